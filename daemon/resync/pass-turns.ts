/**
 * Whose turn it is to pass over a whole guest: of all guests of one link only a few at a time, the others in the order in which
 * they asked. Side by side they would be no faster, and each would wait longer for the link than QEMU may be made to wait
 * (mirror-pass.ts). It knows no guest and no link.
 */
import PQueue from 'p-queue';

/** Two: while one guest's pass begins or ends, another keeps the link busy. */
const passesAtOnce = 2;

export class PassTurns {
  readonly #queue = new PQueue({ concurrency: passesAtOnce });

  /** Whether the next one to ask has to wait. */
  get isFull(): boolean {
    return this.#queue.pending >= this.#queue.concurrency;
  }

  /** A pass that is paused needs no turn: until the returned call, another one may go on in its place. */
  lend(): () => void {
    this.#queue.concurrency += 1;
    let isLent = true;
    return () => {
      if (isLent) this.#queue.concurrency -= 1;
      isLent = false;
    };
  }

  /** Runs `pass` when it is its turn. Rejects with the signal's reason, and gives the turn up, when that comes before. */
  async take<T>(pass: () => Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    let isGivenUp = false;
    let giveUp: () => void = () => undefined;
    const givenUp = new Promise<never>((_, reject) => {
      giveUp = () => { isGivenUp = true; reject(signal.reason as Error); };
      signal.addEventListener('abort', giveUp, { once: true });
    });
    const turn = this.#queue.add(() => {
      // From here on the pass itself listens to the signal, and ends in its own way.
      signal.removeEventListener('abort', giveUp);
      return isGivenUp ? givenUp : pass();
    });
    return Promise.race([turn, givenUp]);
  }
}
