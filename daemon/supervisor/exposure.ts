/**
 * Keeps the last figures of one kind (milliseconds) and tells their distribution. Used for the exposure: the age that the
 * newest durable point had reached when the next one became durable, which is the worst that a loss could have cost.
 */
export interface Distribution { readonly samples: number; readonly p50Ms: number | null; readonly p99Ms: number | null; readonly maxMs: number | null }

export class Exposure {
  readonly #kept: number[] = [];
  readonly #countMax: number;
  #at = 0;

  constructor(countMax = 1000) {
    this.#countMax = countMax;
  }

  add(ms: number): void {
    if (this.#kept.length < this.#countMax) this.#kept.push(ms);
    else this.#kept[this.#at] = ms;
    this.#at = (this.#at + 1) % this.#countMax;
  }

  distribution(): Distribution {
    const sorted = [...this.#kept].sort((a, b) => a - b);
    const rank = (share: number): number | null => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? null;
    return { samples: sorted.length, p50Ms: rank(0.5), p99Ms: rank(0.99), maxMs: sorted.at(-1) ?? null };
  }
}
