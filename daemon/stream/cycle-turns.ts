/**
 * Whose cycle it is, of many guests that share a link: a few at a time cut and send, the others in the order in which they asked. Side by
 * side all would be there when the last is, and every guest's newest point that much older; so who waits has not cut yet. A turn is lent for a while only: a long delta,
 * or one that a rate limit holds, goes on beside the others after that. It knows no guest and no link.
 */
import PQueue from 'p-queue';
import type { Clock } from '../../host/clock.ts';

/** Enough that QEMU copies for one, while others are read, encoded, and wait for the link. */
const cyclesAtOnce = 4;
/** Of a turn, ms. */
const heldMsMax = 1000;

export class CycleTurns {
  readonly #queue = new PQueue({ concurrency: cyclesAtOnce });
  readonly #clock: Pick<Clock, 'delay'>;

  constructor(clock: Pick<Clock, 'delay'>) {
    this.#clock = clock;
  }

  /** Resolves when it is the caller's turn, with what ends it. Rejects with the signal's reason when that comes first. */
  take(signal?: AbortSignal): Promise<() => void> {
    return new Promise((resolve, reject) => {
      const giveUp = (): void => reject(signal!.reason as Error);
      if (signal?.aborted === true) return giveUp();
      signal?.addEventListener('abort', giveUp, { once: true });
      void this.#queue.add(async () => {
        signal?.removeEventListener('abort', giveUp);
        if (signal?.aborted === true) return;
        const over = new AbortController();
        resolve(() => over.abort(new Error('the turn is over')));
        await this.#clock.delay(heldMsMax, over.signal).catch((error: unknown) => { if (!over.signal.aborted) throw error; });
      });
    });
  }
}
