/** What we are compared with, each until the peer's file is durable. All times in ms. */
import { exportName, diskNode, type StandIn } from './stand-in.ts';
import type { FileServer } from './file-server.ts';
import type { Site } from './site.ts';
import { connectNbd } from '../../qemu/nbd-client.ts';

/** A copy of the stand-in's export by nbdcopy, flushed at the end. */
export async function copyByNbdcopy(site: Site, standIn: StandIn, server: FileServer): Promise<number> {
  const fromMs = performance.now();
  await site.run('nbdcopy', ['--flush', standIn.uri, server.uri]);
  return performance.now() - fromMs;
}

/** QEMU's own mirror job until it is ready, which it says after it has flushed (block/mirror.c, mirror_run). */
export async function copyByMirror(standIn: StandIn, server: FileServer): Promise<number> {
  const { qmp } = standIn;
  const fromMs = performance.now();
  await addServerNode(standIn, server);
  await standIn.job('bench-mirror', ['ready'], () => qmp.execute('blockdev-mirror', { 'job-id': 'bench-mirror', device: diskNode, target: serverNode, sync: 'full' }));
  const tookMs = performance.now() - fromMs;
  await standIn.job('bench-mirror', ['null'], () => qmp.execute('block-job-cancel', { device: 'bench-mirror' }));
  await removeServerNode(standIn);
  return tookMs;
}

/** `load`, under QEMU's own mirror that has each write at the far end before it says that it is done; from when the mirror is ready. */
export async function underWritingMirror<T>(standIn: StandIn, server: FileServer, load: () => Promise<T>): Promise<T> {
  const { qmp } = standIn;
  await addServerNode(standIn, server);
  await standIn.job('bench-mirror', ['ready'], () => qmp.execute('blockdev-mirror', {
    'job-id': 'bench-mirror', device: standIn.topNode, target: serverNode, sync: 'full', 'copy-mode': 'write-blocking',
  }));
  const done = await load();
  await standIn.job('bench-mirror', ['null'], () => qmp.execute('block-job-cancel', { device: 'bench-mirror' }));
  await removeServerNode(standIn);
  return done;
}

/** The peer's bitmap: begins to record what is written from now on. */
export async function beginBitmap({ qmp }: StandIn): Promise<void> {
  await qmp.execute('block-dirty-bitmap-add', { node: diskNode, name: bitmap, granularity: 65_536 });
}

/** QEMU's own incremental backup of what the bitmap holds, into the file of the full copy, and flushed. Ends the bitmap. */
export async function copyByBackup(standIn: StandIn, server: FileServer): Promise<number> {
  const { qmp } = standIn;
  // A backup job does not flush its target; this connection does it, and stands before the clock runs.
  const flusher = await connectNbd({ path: server.socketPath, exportName });
  const fromMs = performance.now();
  await addServerNode(standIn, server);
  await standIn.job('bench-backup', ['concluded', 'null'], () => qmp.execute('blockdev-backup', {
    'job-id': 'bench-backup', device: diskNode, target: serverNode, sync: 'bitmap', bitmap, 'bitmap-mode': 'on-success',
  }));
  await flusher.flush();
  const tookMs = performance.now() - fromMs;
  await flusher.close();
  await removeServerNode(standIn);
  await qmp.execute('block-dirty-bitmap-remove', { node: diskNode, name: bitmap });
  return tookMs;
}

const serverNode = 'bench-peer';
const bitmap = 'bench-dirty';

async function addServerNode({ qmp }: StandIn, server: FileServer): Promise<void> {
  await qmp.execute('blockdev-add', { driver: 'nbd', 'node-name': serverNode, server: { type: 'unix', path: server.socketPath }, export: exportName });
}

async function removeServerNode({ qmp }: StandIn): Promise<void> {
  await qmp.execute('blockdev-del', { 'node-name': serverNode });
}
