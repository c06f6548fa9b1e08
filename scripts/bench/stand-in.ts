/**
 * The guest's stand-in: a qemu-storage-daemon with one raw disk. It has no I/O threads, so exporting the disk's own node is
 * safe here (design.md: on a guest with I/O threads it is not). One monitor for what is under test, one for the benchmark.
 */
import { existsSync } from 'node:fs';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { until, type Running, type Site } from './site.ts';

/** Name of the disk's node, as the daemon is told it. */
export const diskNode = 'disk0';
/** Of the filter above it, in a stand-in that can be given a write log: it limits nothing, and takes another child while it is written to. */
export const filterNode = 'top0';
export const exportName = 'disk';

export interface StandIn {
  readonly running: Running;
  readonly qmpPath: string;
  /** What the daemon is told, and what the load writes to. */
  readonly topNode: string;
  readonly qmp: QmpConnection;
  readonly nbdPath: string;
  /** Of the disk, writable. */
  readonly uri: string;
  /** A job of the benchmark's own: what `begin` started under this id; resolves when it is in one of the states. */
  job(id: string, states: readonly string[], begin: () => Promise<unknown>): Promise<void>;
}

/** `isLoggable`: with {@link filterNode} above the disk. `socketsAs`: a path that the names of its sockets begin with, where there are several. */
export async function startStandIn(site: Site, imagePath: string, { isLoggable = false, socketsAs = site.path('s') }: { readonly isLoggable?: boolean; readonly socketsAs?: string } = {}): Promise<StandIn> {
  const topNode = isLoggable ? filterNode : diskNode;
  const [qmpPath, ownPath, nbdPath] = [`${socketsAs}qmp`, `${socketsAs}own`, `${socketsAs}nbd`];
  const running = site.spawn('qemu-storage-daemon', [
    '--chardev', `socket,id=c0,path=${qmpPath},server=on,wait=off`, '--monitor', 'chardev=c0',
    '--chardev', `socket,id=c1,path=${ownPath},server=on,wait=off`, '--monitor', 'chardev=c1',
    '--blockdev', JSON.stringify({ driver: 'raw', 'node-name': diskNode, discard: 'unmap', file: { driver: 'file', filename: imagePath, discard: 'unmap' } }),
    ...(isLoggable ? ['--object', 'throttle-group,id=unlimited', '--blockdev', JSON.stringify({ driver: 'throttle', 'node-name': filterNode, 'throttle-group': 'unlimited', file: diskNode })] : []),
    '--nbd-server', `addr.type=unix,addr.path=${nbdPath},max-connections=0`,
    '--export', `type=nbd,id=load,node-name=${topNode},name=${exportName},writable=on`,
  ]);
  await until('the storage daemon makes its sockets', () => [qmpPath, ownPath, nbdPath].every((path) => existsSync(path)), { running });
  const qmp = await connectQmp(ownPath);
  return {
    running, qmpPath, topNode, qmp, nbdPath, uri: uriOf(nbdPath),
    async job(id, states, begin) {
      let stop: () => void = () => undefined;
      const reached = new Promise<void>((resolve, reject) => {
        stop = qmp.onEvent(({ event, data }) => {
          if (event !== 'JOB_STATUS_CHANGE' || data['id'] !== id) return;
          if (states.includes(String(data['status']))) resolve();
          else if (data['status'] === 'aborting') reject(new Error(`job ${id} failed: ${running.lastWords()}`));
        });
        void qmp.closed.then(reject);
      });
      reached.catch(() => undefined);
      try {
        await begin();
        await reached;
      } finally {
        stop();
      }
    },
  };
}

export function uriOf(socketPath: string): string {
  return `nbd+unix:///${exportName}?socket=${socketPath}`;
}
