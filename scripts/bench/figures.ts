/** What is made of measured runs: medians, spreads, ratios, and the one object that a benchmark comes down to. Pure. */
import assert from 'node:assert/strict';

export interface Spread { readonly median: number; readonly min: number; readonly max: number; readonly runs: readonly number[] }

/** What a benchmark states. `ratio` is of the medians, and above 1 is better for us. */
export interface BenchResult {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  readonly peer: number;
  readonly ratio: number;
  readonly runs: number;
  /** Everything else, by its JSON name. */
  readonly extras: Readonly<Record<string, unknown>>;
  /** For people: what was compared, one row each. */
  readonly rows: readonly ResultRow[];
  /** What `ours` and `peer` are, and what else a reader must know. */
  readonly notes: readonly string[];
}

export interface ResultRow { readonly what: string; readonly unit: string; readonly spread: Spread; readonly ratio?: number }

export function median(values: readonly number[]): number {
  assert(values.length > 0, 'a median of nothing');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function spreadOf(values: readonly number[], digits = 0): Spread {
  return { median: rounded(median(values), digits), min: rounded(Math.min(...values), digits), max: rounded(Math.max(...values), digits), runs: values.map((value) => rounded(value, digits)) };
}

/** Of medians, to three digits behind the point. `isLessBetter`: times and bytes, where the peer's goes above the line. */
export function ratioOf(ours: Spread, peer: Spread, isLessBetter: boolean): number {
  return rounded(isLessBetter ? peer.median / ours.median : ours.median / peer.median, 3);
}

export function rounded(value: number, digits: number): number {
  const factor = 10 ** digits;
  return Math.round(value * factor) / factor;
}

/** The last line of `--json`. */
export function jsonOf({ name, unit, ours, peer, ratio, runs, extras, notes }: BenchResult): string {
  return JSON.stringify({ name, unit, ours, peer, ratio, runs, ...extras, notes });
}
