/**
 * Turns at what only a few may do at once, the others in the order in which they asked. It knows nothing of what is done.
 */
import PQueue from 'p-queue';

export class Turns {
  readonly #queue: PQueue;

  constructor(atOnce: number) {
    this.#queue = new PQueue({ concurrency: atOnce });
  }

  /** Whether the next one to ask has to wait. */
  get isFull(): boolean {
    return this.#queue.pending >= this.#queue.concurrency;
  }

  /** Who is paused needs no turn: until the returned call, another one may go on in its place. */
  lend(): () => void {
    this.#queue.concurrency += 1;
    let isLent = true;
    return () => {
      if (isLent) this.#queue.concurrency -= 1;
      isLent = false;
    };
  }

  /** Runs `act` when it is its turn. Rejects with the signal's reason, and gives the turn up, when that comes before. */
  async take<T>(act: () => Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    let isGivenUp = false;
    let giveUp: () => void = () => undefined;
    const givenUp = new Promise<never>((_, reject) => {
      giveUp = () => { isGivenUp = true; reject(signal.reason as Error); };
      signal.addEventListener('abort', giveUp, { once: true });
    });
    const turn = this.#queue.add(() => {
      // From here on `act` itself listens to the signal, and ends in its own way.
      signal.removeEventListener('abort', giveUp);
      return isGivenUp ? givenUp : act();
    });
    return Promise.race([turn, givenUp]);
  }
}
