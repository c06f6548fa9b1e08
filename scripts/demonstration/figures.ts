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
const afterMsMax = 3_000;

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

/** In words, what the demo shows not to hold; empty when all is well. */
export function brokenPromises(figures: Figures, rpoMs: number): string[] {
  const broken: string[] = [];
  if (figures.counter_recovered <= 0) broken.push('the guest found no counter on its replica');
  if (!figures.fsck_clean) broken.push('the file system of the replica is not clean');
  // A cycle is not instantaneous: as much again and two seconds are left for its cut and its way to the target.
  if (figures.lost_ms > 2 * rpoMs + 2_000) broken.push(`${figures.lost_ms} ms were lost at an RPO of ${rpoMs} ms`);
  return broken;
}
