/**
 * The target's side of flow control (PROTOCOL.md, "Flow control"), for one connection. Counts bytes of binary messages
 * and nothing else. Invariant: what has arrived and was not consumed never exceeds what was granted, so a connection's
 * queues are bounded whatever the peer does and however slow the store is.
 */
import assert from 'node:assert/strict';
import { creditBytes, frameBytesMax } from '../../journal/limits.ts';

/**
 * Credit goes back in pieces of this size: often enough that the source never runs dry, seldom enough to cost nothing (a
 * message for each record doubled the processor time of small ones). What is not given back yet is always less than this, so
 * a source whose records are all consumed can send the largest message that there is.
 */
export const creditReturnBytes = 4 * 1024 * 1024;
assert(creditBytes - creditReturnBytes >= frameBytesMax, 'a source must never wait for credit that waits for it');

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

  /** Bytes to grant now, or 0. */
  consume(bytes: number): number {
    this.#outstandingBytes -= bytes;
    this.#owedBytes += bytes;
    if (this.#owedBytes < creditReturnBytes) return 0;
    const granted = this.#owedBytes;
    this.#owedBytes = 0;
    this.#allowedBytes += granted;
    return granted;
  }
}
