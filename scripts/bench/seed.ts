/**
 * The first sync, from the request to protect until the target's replica is durable: through TLS (ours), without TLS, and the
 * peers on the same export: nbdcopy (the ratio) and QEMU's own mirror, each to a raw file behind qemu-nbd, flushed. In turns.
 */
import { randomBytes } from 'node:crypto';
import { mibOf, type BenchContext, type Benchmark } from './benchmark.ts';
import { endDaemon, startSource, startTarget, untilProtected } from './daemons.ts';
import { makeDiskImage, readIntoCache } from './disk-image.ts';
import { startDrivenSource, startPlainTarget } from './driven-roles.ts';
import { ratioOf, rounded, spreadOf, type BenchResult } from './figures.ts';
import { startFileServer, type FileServer } from './file-server.ts';
import { copyByMirror, copyByNbdcopy } from './peers.ts';
import { peakMib } from './process-usage.ts';
import { demandSameContent } from './same-content.ts';
import { untilSeeded } from './seed-watch.ts';
import { diskNode, startStandIn } from './stand-in.ts';

/** Keeps cycles out of the measurement: the only cut is the one that makes the first sync a point. */
const rpoMs = 3_600_000;

/** One way to copy the disk. `isChecked`: afterwards what was made is compared with the image. */
interface Contestant { readonly what: string; run(isChecked: boolean): Promise<number> }

export const seed: Benchmark = async (context) => {
  const { site, say, arguments: { sizeBytes, runs, profileFolder } } = context;
  const imagePath = site.path('disk.raw');
  await makeDiskImage(imagePath, sizeBytes);
  const standIn = await startStandIn(site, imagePath);
  const target = await startTarget(site, { profileFolder });
  const source = await startSource(site, (await target.client.token()).token, { profileFolder });
  const plainTarget = await startPlainTarget(site);
  const plainSource = await startDrivenSource(site, { qmpPath: standIn.qmpPath, node: diskNode, token: plainTarget.token, isTls: false });
  let guests = 0;

  const ours: Contestant = {
    what: 'first sync through TLS',
    async run(isChecked) {
      guests += 1;
      const name = `guest${guests}`;
      const fromMs = performance.now();
      const { groupId } = await source.client.protect({ name, qmpPath: standIn.qmpPath, rpoMs, storageDaemonDisks: [diskNode] });
      const group = await untilSeeded({ ...target, groups: async () => (await target.client.report()).groups }, groupId);
      const tookMs = performance.now() - fromMs;
      await untilProtected(source, name);
      if (isChecked) await demandSameContent(imagePath, group.disks[0]!.replicaPath);
      await source.client.unprotect(name, true);
      return tookMs;
    },
  };
  const plain: Contestant = {
    what: 'first sync without TLS',
    async run(isChecked) {
      const groupId = randomBytes(16).toString('hex');
      const isWaiting = plainSource.untilWaiting();
      const fromMs = performance.now();
      plainSource.protect('plain', groupId);
      const group = await untilSeeded(plainTarget, groupId);
      const tookMs = performance.now() - fromMs;
      await isWaiting;
      if (isChecked) await demandSameContent(imagePath, group.disks[0]!.replicaPath);
      await plainSource.release();
      return tookMs;
    },
  };
  const peer = (what: string, copy: (server: FileServer) => Promise<number>): Contestant => ({
    what,
    async run(isChecked) {
      const server = await startFileServer(site, sizeBytes);
      const tookMs = await copy(server);
      if (isChecked) await demandSameContent(imagePath, server.path);
      await server.end();
      return tookMs;
    },
  });
  const contestants = [
    ours, peer('nbdcopy --flush', (server) => copyByNbdcopy(site, standIn, server)), plain, peer('blockdev-mirror', (server) => copyByMirror(standIn, server)),
  ];

  const times = await inTurns(context, contestants, imagePath);
  const memory = { source_rss_mib: rounded(peakMib(source.running.pid), 1), target_rss_mib: rounded(peakMib(target.running.pid), 1) };
  const { targets: [link] } = await source.client.report();
  await endDaemon(source);
  await endDaemon(target);
  if (profileFolder !== null) say(`CPU profiles of source and target are in ${profileFolder}`);
  return resultOf(times, runs, sizeBytes, { ...memory, compression: link?.compression ?? null });
};

/** One uncounted round, in which what was made is checked, then the measured ones. */
async function inTurns({ say, arguments: { runs } }: BenchContext, contestants: readonly Contestant[], imagePath: string): Promise<number[][]> {
  const times: number[][] = contestants.map(() => []);
  for (let round = 0; round <= runs; round++) {
    for (const [index, { what, run }] of contestants.entries()) {
      await readIntoCache(imagePath);
      const tookMs = await run(round === 0);
      say(`${round === 0 ? 'warm-up' : `round ${round}`}: ${what}: ${Math.round(tookMs)} ms`);
      if (round > 0) times[index]!.push(tookMs);
    }
  }
  return times;
}

function resultOf(times: readonly number[][], runs: number, sizeBytes: number, extras: Readonly<Record<string, unknown>>): BenchResult {
  const [ours, nbdcopy, plain, mirror] = times.map((some) => spreadOf(some)) as [ReturnType<typeof spreadOf>, ReturnType<typeof spreadOf>, ReturnType<typeof spreadOf>, ReturnType<typeof spreadOf>];
  const [ratio, ratioMirror, ratioPlain, ratioPlainMirror] = [ratioOf(ours, nbdcopy, true), ratioOf(ours, mirror, true), ratioOf(plain, nbdcopy, true), ratioOf(plain, mirror, true)];
  return {
    name: 'seed', unit: 'ms', ours: ours.median, peer: nbdcopy.median, ratio, runs,
    extras: {
      image_bytes: sizeBytes, ours_mib_per_s: rounded(mibOf(sizeBytes) / (ours.median / 1000), 0),
      ours_ms: ours, nbdcopy_ms: nbdcopy, mirror_ms: mirror, plain_ms: plain,
      ratio_mirror: ratioMirror, plain_ratio: ratioPlain, plain_ratio_mirror: ratioPlainMirror, ...extras,
    },
    rows: [
      { what: 'ours, through TLS', unit: 'ms', spread: ours },
      { what: 'ours, without TLS', unit: 'ms', spread: plain },
      { what: 'nbdcopy --flush', unit: 'ms', spread: nbdcopy, ratio },
      { what: 'blockdev-mirror', unit: 'ms', spread: mirror, ratio: ratioMirror },
    ],
    notes: ['ours: from the request to protect until the replica is durable, real processes, TLS on', 'peer: nbdcopy of the same export to a file behind qemu-nbd', 'a ratio beside a peer is of ours through TLS to it'],
  };
}
