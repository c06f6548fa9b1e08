/**
 * Whose cycle it is, of many guests that share a link: a few at a time cut and send, the others in the order in which they asked. Side by
 * side all would be there when the last is, and every guest's newest point that much older; so who waits has not cut yet. A turn is lent
 * for a while only: a long delta, or one that a rate limit holds, goes on beside the others after that. It knows no guest and no link.
 */
import type { Clock } from '../../host/clock.ts';
import { Turns } from '../turns.ts';

/** Enough that QEMU copies for one, while others are read, encoded, and wait for the link. */
const cyclesAtOnce = 4;
/** Of a turn, ms. */
const heldMsMax = 1000;

export class CycleTurns {
  readonly #turns = new Turns(cyclesAtOnce);
  readonly #clock: Pick<Clock, 'delay'>;

  constructor(clock: Pick<Clock, 'delay'>) {
    this.#clock = clock;
  }

  /** Resolves when it is the caller's turn, with what ends it. Rejects with the signal's reason when that comes first. */
  take(signal: AbortSignal): Promise<() => void> {
    const over = new AbortController();
    return new Promise((resolve, reject) => {
      this.#turns.take(() => {
        resolve(() => over.abort(new Error('the turn is over')));
        return this.#clock.delay(heldMsMax, over.signal);
        // Once it has been the caller's turn, nobody hears how it ended.
      }, signal).catch(reject);
    });
  }
}
