/**
 * What the demo measures, and what it promises. Pure: it works on lines of the guests' consoles with the times at which
 * this host saw them, so that a figure can be checked by hand against the two logs.
 */
import type { SeenLine } from '../lab/watch-lines.ts';

export interface Figures {
  readonly guest_disk_bytes: number;
  /** From `protect` until the first point was sealed and acknowledged. */
  readonly seed_ms: number;
  /** Points that the target held when the host was lost. */
  readonly points: number;
  /** Exposure: the age that the newest durable point had reached when the next became durable. */
  readonly rpo_ms_p50: number;
  readonly rpo_ms_p99: number;
  /** From asking for the failover until the guest said on its console what it found on its disk. */
  readonly rto_ms: number;
  /** The last counter that the guest reported as fsynced before its QEMU was killed. */
  readonly counter_written: number;
  readonly counter_recovered: number;
  /** From when this host saw the recovered counter until the kill: what was lost at most. 0 when nothing was. */
  readonly lost_ms: number;
  readonly fsck_clean: boolean;
}

export interface CounterLine {
  readonly counter: number;
  readonly atMs: number;
}

/** Every counter that a guest reported as durable. */
export function counterLines(lines: readonly SeenLine[]): CounterLine[] {
  return lines.flatMap(({ text, atMs }) => {
    const counter = /^AF COUNTER (\d+) \d+$/.exec(text)?.[1];
    return counter === undefined ? [] : [{ counter: Number(counter), atMs }];
  });
}

/** Counters rise by one, but a line may be torn at the kill: the next one that was seen stands in for one that was not. */
export function lostMs(lines: readonly CounterLine[], recovered: number, killedAtMs: number): number {
  const written = lines.at(-1);
  if (written === undefined || recovered >= written.counter) return 0;
  const seen = lines.findLast(({ counter }) => counter <= recovered) ?? lines[0];
  return seen === undefined ? 0 : Math.max(0, Math.round(killedAtMs - seen.atMs));
}

/** How long a line may take from the guest's disk to this host, and how far clocks are read apart, ms. */
const beforeMsMax = 250;
const afterMsMax = 1_500;

/**
 * The counters that a point may hold: not less than what the guest had reported as durable shortly before it was cut, and not
 * more than what it reported soon after. `cutAtMs` is wall-clock time.
 */
export function counterRange(lines: readonly SeenLine[], cutAtMs: number): { readonly least: number; readonly most: number } {
  const seen = counterLines(lines).map(({ counter, atMs }) => ({ counter, atMs: performance.timeOrigin + atMs }));
  return {
    least: seen.findLast(({ atMs }) => atMs <= cutAtMs - beforeMsMax)?.counter ?? 0,
    most: seen.find(({ atMs }) => atMs >= cutAtMs + afterMsMax)?.counter ?? Number.POSITIVE_INFINITY,
  };
}

export interface TestedPoint {
  readonly point: string;
  readonly point_time: string;
  readonly age_ms: number;
  /** What the guest had written when the point was cut: at least, at most. */
  readonly counter_least: number;
  readonly counter_most: number;
  readonly counter_found: number;
  readonly agrees: boolean;
  readonly fsck_clean: boolean;
  /** From asking for the test until the guest said on its console what it found on its disk. */
  readonly rto_ms: number;
}

export interface PointsFigures {
  readonly guest_disk_bytes: number;
  /** Points that the target held when the tests began. */
  readonly points: number;
  readonly tests: readonly TestedPoint[];
  readonly agrees: boolean;
  /** New points that were sealed while tests ran. */
  readonly points_while_testing: number;
  readonly rpo_ms: number;
  /** The most that a loss would have cost at any moment while tests ran. */
  readonly rpo_ms_max_while_testing: number;
  /** Files, holds and processes of the tests that were found afterwards. */
  readonly leftovers: number;
}

/** One way of a guest from host to host. */
export interface Leg {
  /** Counters that the guest had reported as durable, and did not find again. */
  readonly counts_lost: number;
  /** From when no guest ran until one did, by the clocks of both hosts. */
  readonly downtime_ms: number;
  /** From when no guest ran until it said on its console what it found on its disk. */
  readonly rto_ms: number;
  /** Records that travelled from host to host for it: before, in the background, and while no guest ran. */
  readonly moved_bytes: number;
  readonly moved_bytes_while_down: number;
  readonly fsck_clean: boolean;
}

export interface FailbackFigures {
  readonly guest_disk_bytes: number;
  readonly seed_ms: number;
  readonly there: Leg;
  readonly back: Leg & {
    /** Between the old disk as the guest left it and what came home, in blocks of 4 KiB. */
    readonly differed_bytes: number;
  };
  /** Points that can be had at the end, by term. */
  readonly points: Readonly<Record<string, number>>;
  /** What a failover would lose at the end, the guest being home and protected as before. */
  readonly rpo_ms_at_end: number;
}

/** As {@link brokenPromises}, of the way there and back. */
export function brokenFailbackPromises({ there, back, points }: FailbackFigures): string[] {
  const broken: string[] = [];
  for (const [way, { counts_lost, fsck_clean }] of Object.entries({ there, back })) {
    if (counts_lost > 0) broken.push(`${counts_lost} counts were lost on the way ${way}`);
    if (!fsck_clean) broken.push(`the file system is not clean on the way ${way}`);
  }
  if (Object.keys(points).length !== 3) broken.push(`there are points of terms ${Object.keys(points).join(', ')}: those of all three were to be kept`);
  return broken;
}

/** As {@link brokenPromises}, of the points' demo. */
export function brokenPointPromises(figures: PointsFigures): string[] {
  const broken: string[] = [];
  for (const { point, agrees, fsck_clean, counter_found, counter_least, counter_most } of figures.tests) {
    if (!agrees) broken.push(`point ${point} held counter ${counter_found}, and ${counter_least} to ${counter_most} was written about then`);
    if (!fsck_clean) broken.push(`the file system of point ${point} is not clean`);
  }
  if (figures.rpo_ms_max_while_testing > 2 * figures.rpo_ms + 2_000) broken.push(`a loss would have cost ${figures.rpo_ms_max_while_testing} ms at an RPO of ${figures.rpo_ms} ms`);
  if (figures.points_while_testing === 0) broken.push('no point was sealed while tests ran');
  if (figures.leftovers > 0) broken.push(`${figures.leftovers} things of the tests were left over`);
  return broken;
}

/** In words, what the demo shows not to hold; empty when all is well. */
export function brokenPromises(figures: Figures, rpoMs: number): string[] {
  const broken: string[] = [];
  if (figures.counter_recovered <= 0) broken.push('the guest found no counter on its replica');
  if (!figures.fsck_clean) broken.push('the file system of the replica is not clean');
  // A cycle is not instantaneous: as much again and two seconds are left for its cut and its way to the target.
  if (figures.lost_ms > 2 * rpoMs + 2_000) broken.push(`${figures.lost_ms} ms were lost at an RPO of ${rpoMs} ms`);
  return broken;
}
