/**
 * The first sync, from the request to protect until the target's replica is durable: through TLS (ours), without TLS, and the
 * peers on the same export: nbdcopy (the ratio) and QEMU's own mirror, each to a raw file behind qemu-nbd, flushed. In turns.
 */
import { randomBytes } from 'node:crypto';
import { mibOf, type BenchContext, type Benchmark } from './benchmark.ts';
import { endDaemon, startSource, startTarget, untilProtected } from './daemons.ts';
import { makeDiskImage, readIntoCache } from './disk-image.ts';
import { startDrivenSource, startPlainTarget } from './driven-roles.ts';
import { ratioOf, rounded, spreadOf, type BenchResult, type ResultRow, type Spread } from './figures.ts';
import { startFileServer, type FileServer } from './file-server.ts';
import { copyByMirror, copyByNbdcopy } from './peers.ts';
import { meterCpu, peakMib } from './process-usage.ts';
import { demandSameContent } from './same-content.ts';
import { untilSeeded } from './seed-watch.ts';
import { diskNode, startStandIn } from './stand-in.ts';

/** Keeps cycles out of the measurement: the only cut is the one that makes the first sync a point. */
const rpoMs = 3_600_000;

/** `cpuSeconds`: processor time of each that takes part, the stand-in included. Says more than time on a busy machine. */
interface Taken { readonly tookMs: number; readonly cpuSeconds: Readonly<Record<string, number>> }
/** One way to copy the disk. `isChecked`: afterwards what was made is compared with the image. */
interface Contestant { readonly what: string; run(isChecked: boolean): Promise<Taken> }

export const seed: Benchmark = async (context) => {
  const { site, say, arguments: { sizeBytes, runs, profileFolder } } = context;
  const imagePath = site.path('disk.raw');
  await makeDiskImage(imagePath, sizeBytes);
  const standIn = await startStandIn(site, imagePath);
  const target = await startTarget(site, { profileFolder });
  const source = await startSource(site, (await target.client.invite()).token, { profileFolder });
  const plainTarget = await startPlainTarget(site);
  const plainSource = await startDrivenSource(site, { qmpPath: standIn.qmpPath, node: diskNode, token: plainTarget.token, isTls: false });
  let guests = 0;

  const ours: Contestant = {
    what: 'first sync through TLS',
    async run(isChecked) {
      guests += 1;
      const name = `guest${guests}`;
      const cpu = meterCpu({ standIn: standIn.running.pid, source: source.running.pid, target: target.running.pid });
      const fromMs = performance.now();
      const { groupId } = await source.client.protect({ name, qmpPath: standIn.qmpPath, rpoMs, storageDaemonDisks: [diskNode] });
      const group = await untilSeeded({ ...target, groups: async () => (await target.client.report()).groups }, groupId);
      const taken = { tookMs: performance.now() - fromMs, cpuSeconds: cpu() };
      await untilProtected(source, name);
      if (isChecked) await demandSameContent(imagePath, group.disks[0]!.replicaPath);
      await source.client.unprotect(name, true);
      return taken;
    },
  };
  const plain: Contestant = {
    what: 'first sync without TLS',
    async run(isChecked) {
      const groupId = randomBytes(16).toString('hex');
      const isWaiting = plainSource.untilWaiting();
      const cpu = meterCpu({ standIn: standIn.running.pid, source: plainSource.running.pid, target: plainTarget.running.pid });
      const fromMs = performance.now();
      plainSource.protect('plain', groupId);
      const group = await untilSeeded(plainTarget, groupId);
      const taken = { tookMs: performance.now() - fromMs, cpuSeconds: cpu() };
      await isWaiting;
      if (isChecked) await demandSameContent(imagePath, group.disks[0]!.replicaPath);
      await plainSource.release();
      return taken;
    },
  };
  const peer = (what: string, copy: (server: FileServer) => Promise<number>): Contestant => ({
    what,
    async run(isChecked) {
      const server = await startFileServer(site, sizeBytes);
      const cpu = meterCpu({ standIn: standIn.running.pid, server: server.pid });
      const taken = { tookMs: await copy(server), cpuSeconds: cpu() };
      if (isChecked) await demandSameContent(imagePath, server.path);
      await server.end();
      return taken;
    },
  });
  const contestants = [
    ours, peer('nbdcopy --flush', (server) => copyByNbdcopy(site, standIn, server)), plain, peer('blockdev-mirror', (server) => copyByMirror(standIn, server)),
  ];

  const rounds = await inTurns(context, contestants, imagePath);
  const memory = { source_rss_mib: rounded(peakMib(source.running.pid), 1), target_rss_mib: rounded(peakMib(target.running.pid), 1) };
  const { targets: [link] } = await source.client.report();
  await endDaemon(source);
  await endDaemon(target);
  if (profileFolder !== null) say(`CPU profiles of source and target are in ${profileFolder}`);
  return resultOf(rounds, runs, sizeBytes, { ...memory, compression: link?.compression ?? null });
};

/** One uncounted round, in which what was made is checked, then the measured ones. */
async function inTurns({ say, arguments: { runs } }: BenchContext, contestants: readonly Contestant[], imagePath: string): Promise<Taken[][]> {
  const all: Taken[][] = contestants.map(() => []);
  for (let round = 0; round <= runs; round++) {
    for (const [index, { what, run }] of contestants.entries()) {
      await readIntoCache(imagePath);
      const taken = await run(round === 0);
      say(`${round === 0 ? 'warm-up' : `round ${round}`}: ${what}: ${Math.round(taken.tookMs)} ms, CPU seconds: ${Object.entries(taken.cpuSeconds).map(([who, seconds]) => `${who} ${seconds.toFixed(2)}`).join(', ')}`);
      if (round > 0) all[index]!.push(taken);
    }
  }
  return all;
}

function resultOf(all: readonly (readonly Taken[])[], runs: number, sizeBytes: number, extras: Readonly<Record<string, unknown>>): BenchResult {
  const [ours, nbdcopy, plain, mirror] = all.map((some) => ({
    time: spreadOf(some.map(({ tookMs }) => tookMs)), cpu: spreadOf(some.map(({ cpuSeconds }) => Object.values(cpuSeconds).reduce((sum, seconds) => sum + seconds, 0)), 2),
    cpuBy: Object.fromEntries(Object.keys(some[0]!.cpuSeconds).map((who) => [who, spreadOf(some.map(({ cpuSeconds }) => cpuSeconds[who]!), 2).median])),
  })) as [Spreads, Spreads, Spreads, Spreads];
  const ratio = ratioOf(ours.time, nbdcopy.time, true);
  const ratioMirror = ratioOf(ours.time, mirror.time, true);
  const row = (what: string, { time }: Spreads, ratioThere?: number): ResultRow => ({ what, unit: 'ms', spread: time, ...(ratioThere === undefined ? {} : { ratio: ratioThere }) });
  const cpuRow = (what: string, { cpu }: Spreads): ResultRow => ({ what: `${what}, CPU`, unit: 's', spread: cpu });
  return {
    name: 'seed', unit: 'ms', ours: ours.time.median, peer: nbdcopy.time.median, ratio, runs,
    extras: {
      image_bytes: sizeBytes, ours_mib_per_s: rounded(mibOf(sizeBytes) / (ours.time.median / 1000), 0), ratio_mirror: ratioMirror,
      plain_ratio: ratioOf(plain.time, nbdcopy.time, true), plain_ratio_mirror: ratioOf(plain.time, mirror.time, true),
      ours_ms: ours.time, nbdcopy_ms: nbdcopy.time, mirror_ms: mirror.time, plain_ms: plain.time,
      ours_cpu_s: ours.cpu, ours_cpu_s_by: ours.cpuBy, nbdcopy_cpu_s: nbdcopy.cpu, mirror_cpu_s: mirror.cpu, plain_cpu_s: plain.cpu, plain_cpu_s_by: plain.cpuBy, ...extras,
    },
    rows: [
      row('ours, through TLS', ours), row('ours, without TLS', plain), row('nbdcopy --flush', nbdcopy, ratio), row('blockdev-mirror', mirror, ratioMirror),
      cpuRow('ours, through TLS', ours), cpuRow('ours, without TLS', plain), cpuRow('nbdcopy --flush', nbdcopy), cpuRow('blockdev-mirror', mirror),
    ],
    notes: [
      'ours: from the request to protect until the replica is durable, real processes, TLS on', 'peer: nbdcopy of the same export to a file behind qemu-nbd',
      'a ratio beside a peer is of ours through TLS to it', 'CPU: of all processes that take part, the storage daemon included',
    ],
  };
}

interface Spreads { readonly time: Spread; readonly cpu: Spread; readonly cpuBy: Readonly<Record<string, number>> }
