/** The benchmark command's own words, read and checked. Pure: it prints nothing and ends nothing. */
import { parseArgs } from 'node:util';

export const benchmarkNames = ['seed', 'delta', 'overhead', 'memory', 'points', 'view-read', 'apply', 'retention', 'rpo', 'wire', 'failover', 'failback', 'scale', 'ransomware', 'dashboard'] as const;
export type BenchmarkName = (typeof benchmarkNames)[number];

export interface BenchArguments {
  readonly name: BenchmarkName;
  /** One JSON object as the last line of the output, and no table. */
  readonly isJson: boolean;
  /** Measured rounds; one more goes before them, uncounted. */
  readonly runs: number;
  readonly sizeBytes: number;
  /** Points of the history that is made (points, view-read). */
  readonly pointCount: number;
  /** Length of one run of load, seconds. */
  readonly loadSeconds: number;
  /** Of overhead, rpo and wire; null: none was named. */
  readonly capture: BenchCapture | null;
  /** Where the daemons leave their CPU profiles; null: they are not profiled, which costs. */
  readonly profileFolder: string | null;
  /** Of ransomware: the loads that are run; null: all. */
  readonly only: readonly string[] | null;
}

const mib = 1024 * 1024;
/** The smallest image in which every kind of content comes several times. */
const sizeMibMin = 64;
const runsDefault: Readonly<Record<BenchmarkName, number>> = { seed: 5, delta: 5, overhead: 3, memory: 3, points: 5, 'view-read': 5, apply: 3, retention: 1, rpo: 1, wire: 3, failover: 5, failback: 3, scale: 1, ransomware: 2, dashboard: 3 };

const sizeMibDefault: Readonly<Record<BenchmarkName, number>> = { seed: 2048, delta: 2048, overhead: 2048, memory: 2048, points: 1024, 'view-read': 1024, apply: 1024, retention: 10_240, rpo: 2048, wire: 2048, failover: 512, failback: 2048, scale: 64, ransomware: 512, dashboard: 64 };
const pointsDefault: Readonly<Record<BenchmarkName, number>> = { seed: 1, delta: 1, overhead: 1, memory: 1, points: 10_000, 'view-read': 100, apply: 1, retention: 86_400, rpo: 1, wire: 1, failover: 1, failback: 1, scale: 1, ransomware: 1, dashboard: 1 };
const secondsDefault = 15;
/** Long enough for some hundred cuts, log changes and applied batches. */
const rpoSecondsDefault = 300;
/** Some thirty points of each guest. */
const scaleSecondsDefault = 60;
const captures = ['cbt', 'writelog'] as const;
export type BenchCapture = (typeof captures)[number];

export const usage = `usage: npm run bench -- NAME [--json] [--runs N] [--size MIB] [--seconds S] [--points N] [--capture cbt|writelog] [--profile FOLDER] [--only LOAD,…]
  seed      first sync through TLS against nbdcopy and blockdev-mirror
  delta     10 % scattered dirty blocks against blockdev-backup
  overhead  what protection costs the guest's writes (fio)
  memory    resident memory of both roles during a first sync
  points    from choosing a point to its first byte over NBD
  view-read an old point read whole through NBD against the plain replica
  apply     bytes written on the target per byte changed; the rate that applying keeps up with
  retention thinning a day of points, one a second
  rpo       age of the newest durable point under 20 MB/s of random writes
  wire      bytes sent per byte that the guest changed, scattered writes of 4 KiB
  failover  from the command to the guest's processors running, newest and older point
  failback  bytes and time of the way home, 1 % changed on both sides, against rsync and nbdcopy
  scale     1, 10 and 50 guests at 1 MB/s each: RPO, processor, memory of each role
  dashboard first load, time until it can be used, how it scrolls, in Chromium
  ransomware attacks on a real file system noticed and missed, false alarms, seconds to the alarm (as root)
  --json       end with one JSON object; all else goes to stderr
  --runs       measured rounds (seed, delta: 5; overhead, memory, apply, wire: 3; retention, rpo, scale: 1)
  --size       image in MiB, a smaller one while developing (2048; scale: 64, of each guest); retention: what all points changed (10240)
  --seconds    length of one run of load (15; rpo: 300; scale: 60)
  --points     points of the history that is made (points: 10000, view-read: 100, retention: 86400)
  --capture    overhead: writelog beside the mirror (cbt); rpo, wire: the one measured (writelog)
  --only       ransomware: these loads alone
  --profile    the daemons leave CPU profiles there
`;

/** `problem`: what is wrong with the words, for people. */
export function readArguments(words: readonly string[]): BenchArguments | { readonly problem: string } {
  let parsed;
  try {
    parsed = parseArgs({
      args: [...words],
      allowPositionals: true,
      options: { json: { type: 'boolean' }, runs: { type: 'string' }, size: { type: 'string' }, seconds: { type: 'string' }, points: { type: 'string' }, capture: { type: 'string' }, profile: { type: 'string' }, only: { type: 'string' } },
    });
  } catch (error) {
    if (error instanceof TypeError) return { problem: error.message };
    throw error;
  }
  const { values, positionals } = parsed;
  const name = benchmarkNames.find((known) => known === positionals[0]);
  if (name === undefined || positionals.length > 1) return { problem: `expected one of ${benchmarkNames.join(', ')}` };
  const runs = readCount(values.runs, runsDefault[name], 1);
  const sizeMib = readCount(values.size, sizeMibDefault[name], sizeMibMin);
  const pointCount = readCount(values.points, pointsDefault[name], 1);
  const loadSeconds = readCount(values.seconds, name === 'rpo' ? rpoSecondsDefault : name === 'scale' ? scaleSecondsDefault : secondsDefault, 1);
  if (runs === null) return { problem: '--runs: expected a number from 1' };
  if (sizeMib === null || sizeMib % sizeMibMin !== 0) return { problem: `--size: expected a multiple of ${sizeMibMin} (MiB)` };
  if (pointCount === null) return { problem: '--points: expected a number from 1' };
  if (loadSeconds === null) return { problem: '--seconds: expected a number from 1' };
  const capture = captures.find((known) => known === values.capture) ?? null;
  if (values.capture !== undefined && (capture === null || !['overhead', 'rpo', 'wire'].includes(name))) return { problem: '--capture: expected cbt or writelog, for overhead, rpo and wire' };
  return { name, isJson: values.json === true, runs, sizeBytes: sizeMib * mib, pointCount, loadSeconds, capture, profileFolder: values.profile ?? null, only: values.only?.split(',') ?? null };
}

function readCount(text: string | undefined, fallback: number, min: number): number | null {
  if (text === undefined) return fallback;
  if (!/^\d{1,6}$/.test(text)) return null;
  const count = Number(text);
  return count >= min ? count : null;
}
