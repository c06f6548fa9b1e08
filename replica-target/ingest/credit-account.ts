/**
 * The target's side of flow control (PROTOCOL.md, "Flow control"), for one connection. Counts bytes of binary messages
 * and nothing else. Invariant: what has arrived and was not consumed never exceeds what was granted, so a connection's
 * queues are bounded whatever the peer does and however slow the store is.
 */
import { creditBytes } from '../../journal/limits.ts';

/** Credit goes back in pieces of this size: often enough that the source never runs dry, seldom enough to cost nothing. */
export const creditReturnBytes = 1024 * 1024;

export class CreditAccount {
  #allowedBytes = creditBytes;
  #outstandingBytes = 0;
  #owedBytes = 0;

  get outstandingBytes(): number {
    return this.#outstandingBytes;
  }

  /** False: the peer sent more than it was granted. */
  arrive(bytes: number): boolean {
    if (bytes > this.#allowedBytes) return false;
    this.#allowedBytes -= bytes;
    this.#outstandingBytes += bytes;
    return true;
  }

  /** Bytes to grant now, or 0. Everything is given back when nothing is outstanding: else a record larger than the rest would wait for ever. */
  consume(bytes: number): number {
    this.#outstandingBytes -= bytes;
    this.#owedBytes += bytes;
    if (this.#owedBytes < creditReturnBytes && this.#outstandingBytes > 0) return 0;
    const granted = this.#owedBytes;
    this.#owedBytes = 0;
    this.#allowedBytes += granted;
    return granted;
  }
}
