/**
 * Many guests on one source process and one target process: 1, 10 and 50 stand-ins, each written to at 1 MB/s (64 KiB, random), at an
 * RPO of 2 s. Age of the newest durable point over all guests, looked at twice a second; processor time of each role per GiB that the
 * guests wrote; resident memory of each role. The bars (p99 of 5 s, 600 MiB) are the project's own: no peer has these figures.
 */
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Benchmark, BenchContext } from './benchmark.ts';
import { startSource, startTarget } from './daemons.ts';
import { makeDiskImage } from './disk-image.ts';
import { rounded, spreadOf, type Spread } from './figures.ts';
import { cpuSeconds, peakMib } from './process-usage.ts';
import { until } from './site.ts';
import { startStandIn, type StandIn } from './stand-in.ts';

const counts = [1, 10, 50] as const;
const rpoMs = 2_000;
const bytesPerSecond = 1_000_000;
const writeBytes = 64 * 1024;
const lookMs = 500;
const [p99BarMs, memoryBarMib] = [5_000, 600];
/** Before figures are taken: the first points after a first sync are larger, ms. */
const settleMs = 10_000;

/** By their JSON names. */
interface Taken {
  readonly guests: number;
  readonly rpo_ms: { readonly p50: number; readonly p99: number; readonly max: number; readonly looks: number };
  readonly written_mb_per_s: number;
  readonly cores: { readonly source: number; readonly target: number };
  readonly cpu_s_per_gib: { readonly source: number; readonly target: number };
  readonly rss_mib: { readonly source: number; readonly target: number };
  readonly peak_mib: { readonly source: number; readonly target: number };
  readonly points: number;
  readonly dropped: number;
  readonly last_faults: Readonly<Record<string, number>>;
}

export const scale: Benchmark = async (context) => {
  const { say, arguments: { runs, sizeBytes, loadSeconds } } = context;
  const taken = new Map<number, Taken[]>(counts.map((count) => [count, []]));
  for (let round = 1; round <= runs; round++) {
    for (const count of counts) {
      const one = await measure(context, count);
      taken.get(count)!.push(one);
      say(`round ${round}: ${JSON.stringify(one)}`);
    }
  }
  const of = (count: number, what: (one: Taken) => number, digits = 0): Spread => spreadOf(taken.get(count)!.map(what), digits);
  const p99 = of(50, (one) => one.rpo_ms.p99);
  return {
    name: 'scale', unit: 'ms', ours: p99.median, peer: p99BarMs, ratio: rounded(p99BarMs / p99.median, 3), runs,
    extras: { image_bytes: sizeBytes, load_seconds: loadSeconds, rpo_ms: rpoMs, bar: { p99_ms: p99BarMs, memory_mib: memoryBarMib }, ...Object.fromEntries(counts.map((count) => [`guests_${count}`, taken.get(count)])) },
    rows: counts.flatMap((count) => [
      { what: `${count} guests: age of the newest point, p99`, unit: 'ms', spread: of(count, (one) => one.rpo_ms.p99), ...(count === 50 ? { ratio: rounded(p99BarMs / p99.median, 3) } : {}) },
      { what: `${count} guests: source, processor per GiB written`, unit: 's', spread: of(count, (one) => one.cpu_s_per_gib.source, 2) },
      { what: `${count} guests: target, processor per GiB written`, unit: 's', spread: of(count, (one) => one.cpu_s_per_gib.target, 2) },
      { what: `${count} guests: source, most memory`, unit: 'MiB', spread: of(count, (one) => one.peak_mib.source) },
      { what: `${count} guests: target, most memory`, unit: 'MiB', spread: of(count, (one) => one.peak_mib.target) },
    ]),
    notes: [
      `ours: p99 of the age at 50 guests; peer: the bar. Memory: at most ${memoryBarMib} MiB for each role at 50 guests`,
      'the stand-ins and their load share the machine with both roles',
    ],
  };
};

async function measure(context: BenchContext, count: number): Promise<Taken> {
  const { site, arguments: { sizeBytes, loadSeconds, profileFolder } } = context;
  const standIns: StandIn[] = [];
  for (let at = 0; at < count; at++) {
    const imagePath = site.freshPath('disk');
    await makeDiskImage(imagePath, sizeBytes, true);
    standIns.push(await startStandIn(site, imagePath, { socketsAs: site.freshPath('q') }));
  }
  const target = await startTarget(site, { profileFolder });
  const source = await startSource(site, (await target.client.invite()).token, { profileFolder });
  const pids = { source: source.running.pid, target: target.running.pid };
  for (const [at, { qmpPath, topNode }] of standIns.entries()) await source.client.protect({ name: `guest${at}`, qmpPath, rpoMs, storageDaemonDisks: [topNode], capture: 'cbt' });
  await until(`${count} guests are protected`, async () => (await source.client.report()).guests.every(({ phase }) => phase === 'protected'), { running: source.running, limitMs: 600_000, everyMs: 500 });

  const output = site.freshPath('fio');
  const load = site.run('fio', [
    '--ioengine=nbd', '--thread', '--rw=randwrite', `--bs=${writeBytes}`, '--iodepth=4', `--size=${sizeBytes}`, '--norandommap', '--randrepeat=0', '--time_based', `--runtime=${loadSeconds + settleMs / 1000}`,
    `--rate=${bytesPerSecond}`, '--group_reporting', '--output-format=json', `--output=${output}`,
    ...standIns.flatMap(({ uri }, at) => [`--name=load${at}`, `--uri=${uri}`]),
  ], 'fio');
  let isOver = false;
  const ended = load.finally(() => { isOver = true; });
  // Waited for below; a load that fails says so then.
  ended.catch(() => undefined);
  await delay(settleMs);
  const usage = (): { source: number; target: number } => ({ source: cpuSeconds(pids.source), target: cpuSeconds(pids.target) });
  const [before, fromMs] = [usage(), performance.now()];
  const firstCycles = (await source.client.report()).guests.reduce((sum, { capture }) => sum + (capture?.cycles ?? 0), 0);
  const agesMs: number[] = [];
  let last = await source.client.report();
  let seen: { readonly atMs: number; readonly agesMs: readonly number[] } | null = null;
  for (let dueMs = performance.now(); !isOver; dueMs += lookMs) {
    last = await source.client.report();
    const nowMs = performance.now();
    // A source that answers late hides nothing: in the looks that were missed, what was known grew older.
    for (; seen !== null && dueMs + lookMs < nowMs; dueMs += lookMs) for (const age of seen.agesMs) agesMs.push(age + dueMs - seen.atMs);
    seen = { atMs: nowMs, agesMs: last.guests.map(({ name, clocks: { newestPointMs } }) => { if (newestPointMs === null) throw new Error(`${name} has no point`); return newestPointMs; }) };
    agesMs.push(...seen.agesMs);
    await delay(Math.max(0, dueMs + lookMs - performance.now()));
  }
  const [after, seconds] = [usage(), (performance.now() - fromMs) / 1000];
  await ended;
  const text = await readFile(output, 'utf8');
  const { jobs } = JSON.parse(text.slice(text.indexOf('{'))) as { jobs: { error: number; write: { bw_bytes: number } }[] };
  if (jobs.some(({ error }) => error !== 0)) throw new Error(`fio failed: ${text.slice(0, 400)}`);
  const perSecond = jobs.reduce((sum, { write }) => sum + write.bw_bytes, 0);
  const both = (of: (role: 'source' | 'target') => number, digits: number) => ({ source: rounded(of('source'), digits), target: rounded(of('target'), digits) });
  const sorted = agesMs.sort((a, b) => a - b);
  const rank = (share: number): number => Math.round(sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)]!);
  const rss = { source: last.memoryRssBytes, target: (await target.client.report()).memoryRssBytes };
  const faults: Record<string, number> = {};
  for (const { lastFault } of last.guests) if (lastFault !== null) faults[lastFault.code] = (faults[lastFault.code] ?? 0) + 1;
  const result: Taken = {
    guests: count,
    rpo_ms: { p50: rank(0.5), p99: rank(0.99), max: rank(1), looks: sorted.length },
    written_mb_per_s: rounded(perSecond / 1e6, 1),
    cores: both((role) => (after[role] - before[role]) / seconds, 2),
    cpu_s_per_gib: both((role) => (after[role] - before[role]) / (perSecond * seconds / 1024 ** 3), 2),
    rss_mib: both((role) => rss[role] / 1024 ** 2, 0),
    peak_mib: both((role) => peakMib(pids[role]), 0),
    points: last.guests.reduce((sum, { capture }) => sum + (capture?.cycles ?? 0), 0) - firstCycles,
    dropped: last.guests.reduce((sum, { capture }) => sum + (capture?.droppedCycles ?? 0), 0),
    last_faults: faults,
  };
  // With SIGTERM, so that a profile is written.
  await source.running.end('SIGTERM');
  await target.running.end('SIGTERM');
  for (const { running } of standIns) await running.end();
  return result;
}
