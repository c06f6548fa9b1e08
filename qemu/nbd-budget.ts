/**
 * Bytes that may be under way at once, over all connections of one server. Whoever finds no room waits in line; nobody
 * passes. It allocates nothing itself. Invariant: what is taken never exceeds the limit, but for a single piece larger than
 * the limit, which goes alone.
 */
import assert from 'node:assert/strict';

export class NbdBudget {
  readonly bytesMax: number;
  #takenBytes = 0;
  #peakBytes = 0;
  readonly #waiting = new Set<{ readonly bytes: number; readonly go: () => void }>();

  constructor(bytesMax: number) {
    assert(bytesMax > 0);
    this.bytesMax = bytesMax;
  }

  get takenBytes(): number { return this.#takenBytes; }
  get peakBytes(): number { return this.#peakBytes; }

  /** True: taken. False: `go` is called later, when it is. */
  take(bytes: number, go: () => void): boolean {
    if (this.#waiting.size === 0 && this.#hasRoom(bytes)) {
      this.#grant(bytes);
      return true;
    }
    this.#waiting.add({ bytes, go });
    return false;
  }

  give(bytes: number): void {
    this.#takenBytes -= bytes;
    assert(this.#takenBytes >= 0);
    for (const waiter of this.#waiting) {
      if (!this.#hasRoom(waiter.bytes)) return;
      this.#waiting.delete(waiter);
      this.#grant(waiter.bytes);
      waiter.go();
    }
  }

  #hasRoom(bytes: number): boolean {
    return this.#takenBytes === 0 || this.#takenBytes + bytes <= this.bytesMax;
  }

  #grant(bytes: number): void {
    this.#takenBytes += bytes;
    this.#peakBytes = Math.max(this.#peakBytes, this.#takenBytes);
  }
}
