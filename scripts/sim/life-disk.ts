/** A simulated disk as one process sees it: when the process has ended nothing that it asked for comes back; when the power goes in the middle of an operation, it ends with it. */
import type { Disk, DiskFile } from '../../host/disk.ts';
import type { SimulatedDisk } from './simulated-disk.ts';
import type { Life } from './world.ts';

/** Whether a sync says that it was done and was not: the disk of a planted defect. */
export type LyingSync = (path: string) => boolean;

export function lifeDisk(disk: SimulatedDisk, life: Life, isLying: LyingSync, onPowerCut: () => void): Disk {
  const living = async <T>(act: () => Promise<T>): Promise<T> => {
    if (life.isOver) return never();
    try {
      const done = await act();
      return life.isOver ? never<T>() : done;
    } catch (error) {
      if (life.isOver) return never();
      if ((error as NodeJS.ErrnoException).code !== 'EPOWER') throw error;
      onPowerCut();
      return never();
    }
  };
  const livingFile = (file: DiskFile): DiskFile => new Proxy(file, {
    get(target, name) {
      if (name === 'sync' && isLying(target.path)) return () => living(() => Promise.resolve());
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      const call = value.bind(target) as (...args: unknown[]) => unknown;
      return name === 'barWriters' || name === 'readNow' ? call : (...args: unknown[]) => living(() => call(...args) as Promise<unknown>);
    },
  });
  return {
    open: (path, mode) => living(async () => livingFile(await disk.open(path, mode))),
    list: (folder) => living(() => disk.list(folder)),
    makeFolder: (path) => living(() => disk.makeFolder(path)),
    rename: (from, to) => living(() => disk.rename(from, to)),
    remove: (path) => living(() => disk.remove(path)),
    syncFolder: (path) => living(() => disk.syncFolder(path)),
    freeBytes: () => living(() => disk.freeBytes()),
    lock: (path) => living(() => disk.lock(path)),
  };
}

function never<T>(): Promise<T> {
  return new Promise(() => undefined);
}
