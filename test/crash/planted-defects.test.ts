/**
 * The crash tests find what they are there to find: with any one kind of sync left out, some power cut breaks a promise. A
 * defect that no cut finds would mean that the sync is not needed or that the tests do not look.
 */
import t from 'tap';
import type { Disk, DiskFile } from '../../host/disk.ts';
import { makeCrashScript } from './crash-script.ts';
import { live } from './lives.ts';

/** A disk that says it has synced and has not, where `isIgnored` says so. */
function lying(disk: Disk, isIgnored: (path: string, isFolder: boolean) => boolean): Disk {
  const lyingFile = (file: DiskFile): DiskFile => new Proxy(file, {
    get(target, name) {
      if (name === 'sync' && isIgnored(target.path, false)) return () => Promise.resolve();
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) as unknown : value;
    },
  });
  return {
    open: async (path, mode) => lyingFile(await disk.open(path, mode)),
    list: (folder) => disk.list(folder),
    makeFolder: (path) => disk.makeFolder(path),
    rename: (from, to) => disk.rename(from, to),
    remove: (path) => disk.remove(path),
    syncFolder: (path) => (isIgnored(path, true) ? Promise.resolve() : disk.syncFolder(path)),
    freeBytes: (folder) => disk.freeBytes(folder),
    lock: (path) => disk.lock(path),
  };
}

const defects: readonly (readonly [what: string, isIgnored: (path: string, isFolder: boolean) => boolean])[] = [
  ['segments are not synced', (path, isFolder) => !isFolder && path.endsWith('.seg')],
  ['images are not synced', (path, isFolder) => !isFolder && path.endsWith('.raw')],
  ['history files are not synced', (path, isFolder) => !isFolder && path.endsWith('.part')],
  ['the mark and group.json are not synced', (path, isFolder) => !isFolder && path.endsWith('.json.new')],
  ['the journal folder is not synced', (path, isFolder) => isFolder && path.endsWith('/journal')],
  ['the history folder is not synced', (path, isFolder) => isFolder && path.endsWith('/history')],
  ['the replica folder is not synced', (path, isFolder) => isFolder && path.endsWith('/replica')],
  ['the group folder is not synced', (path, isFolder) => isFolder && /\/[0-9a-f]{32}$/.test(path)],
];

const script = makeCrashScript(7, 12);

for (const [what, isIgnored] of defects) {
  t.test(`found: ${what}`, async (t) => {
    let found: unknown = null;
    let lives = 0;
    for (let round = 0; round < 4 && found === null; round++) {
      // A stride that shares no factor with the number of operations between two syncs meets all kinds of places.
      for (let cutAt = round * 3; found === null; cutAt += 11) {
        lives++;
        try {
          if (await live(script, cutAt + round * 1000, cutAt, 0, (disk) => lying(disk, isIgnored))) break;
        } catch (error) {
          found = error;
        }
      }
    }
    t.not(found, null, `in life ${lives}: ${String(found).slice(0, 100)}`);
  });
}
