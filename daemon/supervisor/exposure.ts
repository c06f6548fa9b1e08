/**
 * Keeps the last figures of one kind (milliseconds) and tells their distribution. Used for the exposure: the age that the
 * newest durable point had reached when the next one became durable, which is the worst that a loss could have cost.
 */
import type { ExposureHistogram } from '../report.ts';

export interface Distribution { readonly samples: number; readonly p50Ms: number | null; readonly p99Ms: number | null; readonly maxMs: number | null }

/** Of the histogram, ms: from the fastest pace of a write log to an hour without a point. */
export const exposureBoundsMs = [100, 250, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 15_000, 30_000, 60_000, 300_000, 900_000, 3_600_000] as const;

export class Exposure {
  readonly #counts = exposureBoundsMs.map(() => 0);
  #sumMs = 0;
  #count = 0;
  readonly #kept: number[] = [];
  readonly #countMax: number;
  #at = 0;

  constructor(countMax = 1000) {
    this.#countMax = countMax;
  }

  add(ms: number): void {
    this.#sumMs += ms;
    this.#count += 1;
    const bound = exposureBoundsMs.findIndex((leMs) => ms <= leMs);
    if (bound >= 0) this.#counts[bound]! += 1;
    if (this.#kept.length < this.#countMax) this.#kept.push(ms);
    else this.#kept[this.#at] = ms;
    this.#at = (this.#at + 1) % this.#countMax;
  }

  histogram(): ExposureHistogram {
    let below = 0;
    return { buckets: exposureBoundsMs.map((leMs, at) => ({ leMs, count: below += this.#counts[at]! })), sumMs: this.#sumMs, count: this.#count };
  }

  distribution(): Distribution {
    const sorted = [...this.#kept].sort((a, b) => a - b);
    const rank = (share: number): number | null => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? null;
    return { samples: sorted.length, p50Ms: rank(0.5), p99Ms: rank(0.99), maxMs: sorted.at(-1) ?? null };
  }
}
