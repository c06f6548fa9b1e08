/** The newest point of a guest that its target holds, for whoever waits for a newer one. Remembers nothing else. */
import { comparePoints, type PointId } from '../../journal/point.ts';
import type { RelayedPoint } from '../relay/relay-capture.ts';

export class NewestPoint {
  #point: RelayedPoint | null;
  readonly #waiting = new Set<() => void>();

  /** `last`: as an earlier life of the daemon knew it. */
  constructor(last: (PointId & { readonly cutAtMs: number; readonly kind?: RelayedPoint['kind'] | undefined }) | null) {
    this.#point = last === null ? null : { term: last.term, point: last.point, cutAtMs: last.cutAtMs, kind: last.kind ?? 'crash' };
  }

  get point(): RelayedPoint | null { return this.#point; }

  reached({ term, point, kind, cutAtMs }: RelayedPoint): void {
    this.#point = { term, point, kind, cutAtMs };
    for (const wake of [...this.#waiting]) wake();
  }

  /** Rejects with the signal's reason. */
  async newerThan(since: PointId, signal: AbortSignal): Promise<void> {
    while (this.#point === null || comparePoints(this.#point, since) <= 0) {
      signal.throwIfAborted();
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#waiting.delete(wake);
          signal.removeEventListener('abort', wake);
          resolve();
        };
        this.#waiting.add(wake);
        signal.addEventListener('abort', wake, { once: true });
      });
    }
  }
}
