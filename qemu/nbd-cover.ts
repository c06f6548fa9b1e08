/**
 * Which parts of a read have arrived. A structured reply may bring its chunks in any order, must bring every byte once, and must
 * bring nothing else ("Request types", NBD_CMD_READ): only when that held is the caller's buffer whole.
 * Invariant: memory is bounded by `partsMax`, whatever the server sends.
 */

/** Servers cut reads at their own extents, in order, and then two parts are many. */
const partsMax = 4096;

export class NbdCover {
  readonly #from: number;
  readonly #to: number;
  /** Disjoint, in the order in which they came; one that continues the last one is joined to it. */
  readonly #parts: { from: number; to: number }[] = [];
  #bytes = 0;

  constructor(offset: number, length: number) {
    this.#from = offset;
    this.#to = offset + length;
  }

  get isWhole(): boolean { return this.#bytes === this.#to - this.#from; }

  /** False when the part is empty, lies outside, or overlaps what came before. */
  add(offset: number, length: number): boolean {
    const end = offset + length;
    if (length === 0 || offset < this.#from || end > this.#to) return false;
    const last = this.#parts.at(-1);
    for (const part of this.#parts) if (offset < part.to && end > part.from) return false;
    this.#bytes += length;
    if (last !== undefined && last.to === offset) {
      last.to = end;
      return true;
    }
    this.#parts.push({ from: offset, to: end });
    return this.#parts.length <= partsMax;
  }
}
