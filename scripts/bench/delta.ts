/**
 * A delta of 10 % scattered dirty blocks of 64 KiB, from the order to cut until the target has acknowledged the point, against
 * QEMU's own incremental backup of the very same blocks into a full copy behind qemu-nbd, until flushed. The target is a real
 * one, through TLS; the source is the product's parts, cut by order (driven-source.ts). In turns, each first every other round.
 */
import { randomBytes } from 'node:crypto';
import { mibOf, type Benchmark } from './benchmark.ts';
import { startTarget } from './daemons.ts';
import { writeDirtyBlocks } from './dirty-blocks.ts';
import { makeDiskImage, readIntoCache } from './disk-image.ts';
import { startDrivenSource } from './driven-roles.ts';
import { ratioOf, rounded, spreadOf } from './figures.ts';
import { startFileServer } from './file-server.ts';
import { beginBitmap, copyByBackup, copyByNbdcopy } from './peers.ts';
import { meterCpu } from './process-usage.ts';
import { demandSameContent } from './same-content.ts';
import { until } from './site.ts';
import { diskNode, startStandIn } from './stand-in.ts';

const dirtyShare = 0.1;

export const delta: Benchmark = async ({ site, say, arguments: { sizeBytes, runs } }) => {
  const imagePath = site.path('disk.raw');
  await makeDiskImage(imagePath, sizeBytes);
  const standIn = await startStandIn(site, imagePath);
  const target = await startTarget(site);
  const source = await startDrivenSource(site, { qmpPath: standIn.qmpPath, node: diskNode, token: (await target.client.invite()).token, isTls: true });
  const groupId = randomBytes(16).toString('hex');
  const isWaiting = source.untilWaiting();
  source.protect('guest', groupId);
  await isWaiting;
  const server = await startFileServer(site, sizeBytes);
  await copyByNbdcopy(site, standIn, server);

  const group = async () => (await target.client.report()).groups.find((one) => one.groupId === groupId)!;
  const ours = async (): Promise<number> => {
    const isAgain = source.untilWaiting();
    const cpuUsed = meterCpu({ standIn: standIn.running.pid, source: source.running.pid, target: target.running.pid });
    const fromMs = performance.now();
    await source.cut();
    const tookMs = performance.now() - fromMs;
    oursCpu.push(cpuUsed());
    await isAgain;
    // What is applied after the acknowledgement must not weigh on the peer.
    await until('the point is applied', async () => {
      const { newest, applied } = await group();
      return newest !== null && applied?.point === newest.point;
    }, { running: target.running, limitMs: 120_000, everyMs: 20 });
    return tookMs;
  };
  const oursCpu: Record<string, number>[] = [];
  const times: Record<'ours' | 'peer', number[]> = { ours: [], peer: [] };
  let dirtyBytes = 0;
  for (let round = 0; round <= runs; round++) {
    await beginBitmap(standIn);
    dirtyBytes = await writeDirtyBlocks(standIn.nbdPath, sizeBytes, dirtyShare, round);
    for (const who of round % 2 === 0 ? ['ours', 'peer'] as const : ['peer', 'ours'] as const) {
      await readIntoCache(imagePath);
      const tookMs = who === 'ours' ? await ours() : await copyByBackup(standIn, server);
      say(`${round === 0 ? 'warm-up' : `round ${round}`}: ${who === 'ours' ? 'delta' : 'blockdev-backup'}: ${Math.round(tookMs)} ms${who === 'ours' ? `, CPU seconds: ${cpuText(oursCpu.at(-1)!)}` : ''}`);
      if (round > 0) times[who].push(tookMs);
    }
    if (round > 0) continue;
    await demandSameContent(imagePath, (await group()).disks[0]!.replicaPath);
    await demandSameContent(imagePath, server.path);
  }

  // The warm-up's is the first.
  const cpu = Object.fromEntries(Object.keys(oursCpu[0]!).map((name) => [name, spreadOf(oursCpu.slice(1).map((one) => one[name]!), 2).median]));
  const [spread, peer] = [spreadOf(times.ours), spreadOf(times.peer)];
  const ratio = ratioOf(spread, peer, true);
  return {
    name: 'delta', unit: 'ms', ours: spread.median, peer: peer.median, ratio, runs,
    extras: { image_bytes: sizeBytes, dirty_bytes: dirtyBytes, ours_mib_per_s: rounded(mibOf(dirtyBytes) / (spread.median / 1000), 0), ours_ms: spread, ours_cpu_s_by: cpu, backup_ms: peer },
    rows: [{ what: 'ours, through TLS', unit: 'ms', spread }, { what: 'blockdev-backup', unit: 'ms', spread: peer, ratio }],
    notes: [
      `${rounded(mibOf(dirtyBytes), 0)} MiB dirty in scattered blocks of 64 KiB, other ones in each round`,
      'ours: from the order to cut until the target has acknowledged the point',
      'peer: blockdev-backup sync=bitmap of the same blocks to a raw file behind qemu-nbd, until flushed',
    ],
  };
};

function cpuText(seconds: Readonly<Record<string, number>>): string {
  return Object.entries(seconds).map(([name, used]) => `${name} ${used.toFixed(2)}`).join(', ');
}
