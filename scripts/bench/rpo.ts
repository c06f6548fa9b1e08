/**
 * How much would be lost at any moment: age of the newest point that the target holds durably, looked at every 50 ms under 20 MB/s
 * of random writes over the whole disk, of 64 KiB (the ratio) and of 4 KiB (stated). The bars are the project's own: no peer has this figure.
 */
import type { BenchCapture } from './arguments.ts';
import type { Benchmark } from './benchmark.ts';
import { rpoMsOf, untilCaptured, watchCapture } from './capture-watch.ts';
import { startSource, startTarget } from './daemons.ts';
import { makeDiskImage, readIntoCache } from './disk-image.ts';
import { rounded, spreadOf } from './figures.ts';
import { runLoad } from './fio.ts';
import { startStandIn } from './stand-in.ts';

const bytesPerSecond = 20_000_000;
const writeSizes = { '64k': 64 * 1024, '4k': 4096 } as const;
type WriteSize = keyof typeof writeSizes;
const p99BarMs: Readonly<Record<BenchCapture, number>> = { writelog: 1500, cbt: 3000 };
/** Of the distribution that is printed, ms. */
const edgesMs = [100, 200, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000] as const;

export const rpo: Benchmark = async ({ site, say, arguments: { sizeBytes, runs, loadSeconds, capture: named, profileFolder } }) => {
  const capture = named ?? 'writelog';
  const rpoMs = rpoMsOf[capture];
  const imagePath = site.path('disk.raw');
  await makeDiskImage(imagePath, sizeBytes, true);
  await readIntoCache(imagePath);
  const standIn = await startStandIn(site, imagePath, { isLoggable: true });
  const target = await startTarget(site, { profileFolder });
  const source = await startSource(site, (await target.client.invite()).token, { profileFolder });
  const taken: Record<WriteSize, Ages[]> = { '64k': [], '4k': [] };
  const all: Record<WriteSize, number[]> = { '64k': [], '4k': [] };
  for (let round = 1; round <= runs; round++) {
    const name = `guest${round}`;
    await source.client.protect({ name, qmpPath: standIn.qmpPath, rpoMs, storageDaemonDisks: [standIn.topNode], capture });
    await untilCaptured(source, name, capture);
    for (const size of ['64k', '4k'] as const) {
      const writeBytes = writeSizes[size];
      const seen = await watchCapture(source, name, capture, () => runLoad(site, {
        uri: standIn.uri, seconds: loadSeconds, spanBytes: sizeBytes, writeBytes, iopsMax: Math.round(bytesPerSecond / writeBytes),
      }));
      all[size].push(...seen.agesMs);
      const { before, after } = seen;
      taken[size].push({
        ...agesOf(seen.agesMs), by_cut: agesOf(seen.cutAgesMs), mb_per_s: rounded(seen.loaded.iops * writeBytes / 1e6, 1),
        points: after.capture!.cycles - before.capture!.cycles, log_cuts: after.capture!.logCuts - before.capture!.logCuts, dropped: after.capture!.droppedCycles - before.capture!.droppedCycles,
        age_at_ack_ms: { p50: whole(after.rpo.p50Ms), p99: whole(after.rpo.p99Ms), max: whole(after.rpo.maxMs) }, last_fault: after.lastFault?.code ?? null,
      });
      say(`round ${round}: ${size}: ${JSON.stringify(taken[size].at(-1))}`);
    }
    await source.client.unprotect(name, true);
  }

  const spread = (size: WriteSize, what: 'p50' | 'p99' | 'max') => spreadOf(taken[size].map((one) => one[what]));
  const p99 = spread('64k', 'p99');
  const distribution = { '64k': distributionOf(all['64k']), '4k': distributionOf(all['4k']) };
  return {
    name: 'rpo', unit: 'ms', ours: p99.median, peer: p99BarMs[capture], ratio: rounded(p99BarMs[capture] / p99.median, 3), runs,
    extras: { capture, rpo_ms: rpoMs, image_bytes: sizeBytes, load_seconds: loadSeconds, p50_ms: spread('64k', 'p50').median, p99_ms: p99.median, max_ms: spread('64k', 'max').max, writes: taken, distribution },
    rows: (['64k', '4k'] as const).flatMap((size) => (['p50', 'p99', 'max'] as const).map((what) => ({
      what: `${size}: age of the newest point, ${what}`, unit: 'ms', spread: spread(size, what), ...(size === '64k' && what === 'p99' ? { ratio: rounded(p99BarMs[capture] / p99.median, 3) } : {}),
    }))),
    notes: [
      `${capture} at an RPO of ${rpoMs} ms; ours: p99 of the age, 64 KiB writes at 20 MB/s; peer: the bar${capture === 'writelog' ? ' (and for p50: 500 ms)' : ''}`,
      ...(['64k', '4k'] as const).map((size) => `${size}, share of looks by age: ${Object.entries(distribution[size]).map(([edge, share]) => `${edge} ms ${(share * 100).toFixed(1)} %`).join(', ')}`),
    ],
  };
};

interface AgeFigures { readonly p50: number; readonly p99: number; readonly max: number; readonly looks: number }
/** By their JSON names. */
interface Ages extends AgeFigures {
  readonly by_cut: AgeFigures;
  readonly mb_per_s: number;
  readonly points: number;
  readonly log_cuts: number;
  readonly dropped: number;
  /** The source's own figure, since it first protected the guest: the age that a point had reached when the next became durable. */
  readonly age_at_ack_ms: { readonly p50: number | null; readonly p99: number | null; readonly max: number | null };
  readonly last_fault: string | null;
}

function agesOf(agesMs: readonly number[]): AgeFigures {
  const sorted = [...agesMs].sort((a, b) => a - b);
  const at = (share: number): number => Math.round(sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)]!);
  return { p50: at(0.5), p99: at(0.99), max: at(1), looks: sorted.length };
}

function distributionOf(agesMs: readonly number[]): Record<string, number> {
  const edges = [...edgesMs, Infinity];
  return Object.fromEntries(edges.map((edge, index) => {
    const from = edges[index - 1] ?? -Infinity;
    return [edge === Infinity ? `over ${from}` : `to ${edge}`, rounded(agesMs.filter((age) => age > from && age <= edge).length / agesMs.length, 4)];
  }));
}

function whole(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms);
}
