/** A clock that a test moves: delays end when `advance` reaches them. */
import type { Clock } from '../../host/clock.ts';

export class SimulatedClock implements Clock {
  #nowMs = 1_700_000_000_000;
  #waiting: { readonly atMs: number; readonly resolve: () => void }[] = [];

  #setMs = 0;

  nowMs(): number { return this.#nowMs + this.#setMs; }
  monotonicMs(): number { return this.#nowMs; }

  /** Somebody sets the wall clock, by so much; no time passes. */
  set(ms: number): void {
    this.#setMs += ms;
  }

  delay(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) return reject(signal.reason);
      const entry = { atMs: this.#nowMs + ms, resolve };
      this.#waiting.push(entry);
      signal?.addEventListener('abort', () => {
        this.#waiting = this.#waiting.filter((other) => other !== entry);
        reject(signal.reason);
      }, { once: true });
    });
  }

  /** Moves time, ends the delays that are due. */
  advance(ms: number): void {
    this.#nowMs += ms;
    const due = this.#waiting.filter(({ atMs }) => atMs <= this.#nowMs);
    this.#waiting = this.#waiting.filter((entry) => !due.includes(entry));
    for (const { resolve } of due) resolve();
  }
}
