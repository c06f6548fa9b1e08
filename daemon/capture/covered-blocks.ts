/**
 * Which blocks of a disk a full pass has handed over at least once. A mirror job calls itself ready only when, for a moment,
 * nothing is left to copy; on a guest that writes faster than the pass sends, that moment never comes. But the pass needs less:
 * every block sent once, as all that is written meanwhile is in the pass's bitmap. This is what tells. Pure.
 */
import assert from 'node:assert/strict';

export const coveredBlockBytes = 65536;

export class CoveredBlocks {
  readonly #sizeBytes: number;
  readonly #bits: Uint8Array;
  #lacking: number;

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
    this.#lacking = Math.ceil(sizeBytes / coveredBlockBytes);
    this.#bits = new Uint8Array(Math.ceil(this.#lacking / 8));
  }

  get isComplete(): boolean { return this.#lacking === 0; }

  get bytes(): number { return Math.max(0, this.#sizeBytes - this.#lacking * coveredBlockBytes); }

  /** Counts the blocks that lie wholly within the run, the disk's last one up to its end. */
  add(offset: number, length: number): void {
    assert(offset >= 0 && offset + length <= this.#sizeBytes);
    const end = offset + length;
    const behind = end === this.#sizeBytes ? Math.ceil(end / coveredBlockBytes) : Math.floor(end / coveredBlockBytes);
    for (let block = Math.ceil(offset / coveredBlockBytes); block < behind; block += 1) {
      const bit = 1 << (block % 8);
      if ((this.#bits[block >>> 3]! & bit) !== 0) continue;
      this.#bits[block >>> 3]! |= bit;
      this.#lacking -= 1;
    }
  }
}
