/**
 * A guest's stand-in with a real file system: a qemu-storage-daemon's disk, read over NBD by a second one that gives it to this
 * kernel as a file (a FUSE export wants to resize, which a mirror does not bear on its own node), mounted through a loop device.
 * What is written there goes through QEMU's block layer, its dirty bitmaps and the product, as a guest's writes do. Needs root.
 * Both mounts are in mount namespaces of their own, which end with the processes in them: whatever ends those, SIGKILL too, the
 * kernel takes mounts and loop device away, and a folder that is removed after them holds plain files.
 */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { projectRoot } from '../../lab/lab-guest.ts';
import { until, type Running, type Site } from '../site.ts';

export const diskNode = 'disk0';

export interface FileSystemGuest {
  readonly qmpPath: string;
  /** Wall clock of the load's first write, ms; null: not yet. */
  firstMs(): number | null;
  readonly isDone: boolean;
  readonly load: Running;
  end(): Promise<void>;
}

export async function startGuest(site: Site, imagePath: string): Promise<{ readonly qmpPath: string; begin(load: string, seed: number, material: string): Promise<FileSystemGuest>; end(): Promise<void> }> {
  const [qmpPath, nbdPath, file, scratch] = [site.freshPath('qmp'), site.freshPath('nbd'), site.freshPath('disk'), site.freshPath('scratch')];
  writeFileSync(file, '');
  await mkdir(scratch);
  const running = site.spawn('qemu-storage-daemon', [
    '--chardev', `socket,id=c0,path=${qmpPath},server=on,wait=off`, '--monitor', 'chardev=c0',
    '--blockdev', JSON.stringify({ driver: 'raw', 'node-name': diskNode, discard: 'unmap', file: { driver: 'file', filename: imagePath, discard: 'unmap' } }),
    '--nbd-server', `addr.type=unix,addr.path=${nbdPath},max-connections=0`, '--export', `type=nbd,id=n,node-name=${diskNode},name=disk,writable=on`,
  ]);
  await until('the storage daemon serves the disk', () => existsSync(qmpPath) && existsSync(nbdPath), { running });
  const front = site.spawn('unshare', [
    '--mount', '--propagation', 'private', 'qemu-storage-daemon',
    '--blockdev', JSON.stringify({ driver: 'nbd', 'node-name': 'front', server: { type: 'unix', path: nbdPath }, export: 'disk', discard: 'unmap' }),
    '--export', `type=fuse,id=f,node-name=front,mountpoint=${file},writable=on,allow-other=off`,
  ], { name: 'front' });
  await until('the disk is there as a file', () => (statSync(`/proc/${front.pid}/root${file}`, { throwIfNoEntry: false })?.size ?? 0) > 0, { running: front });
  const end = async (): Promise<void> => {
    await front.end('SIGTERM');
    await running.end('SIGTERM');
  };
  return {
    qmpPath,
    end,
    async begin(load, seed, material) {
      const name = `load-${load}`;
      const logPath = join(site.folder, `${name}.log`);
      const child = site.spawn('nsenter', [`--mount=/proc/${front.pid}/ns/mnt`, 'unshare', '--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', 'bash', join(projectRoot(), 'scripts', 'bench', 'ransomware', 'loads'), file, load, String(seed), material, scratch], { name });
      const said = (word: string): number | null => {
        const found = new RegExp(`^AF ${word} (\\d+)$`, 'm').exec(existsSync(logPath) ? readFileSync(logPath, 'utf8') : '');
        return found === null ? null : Number(found[1]);
      };
      return {
        qmpPath, load: child,
        firstMs: () => said('FIRST'),
        get isDone() { return said('DONE') !== null; },
        async end() {
          await child.end('SIGKILL');
          await end();
        },
      };
    },
  };
}
