/**
 * What a stretch of a disk's log wrote, each place once: the last write wins. Entries are taken in the log's order and laid over
 * each other from the newest back, at a granularity of 512 bytes. Pure. Memory: 40 bytes for each entry, and 256 bytes for each
 * MiB of the disk that was touched.
 */
import { sectorBytes } from '../../../journal/limits.ts';

/** Bytes side by side on the disk; `at`: where they stand in the log numbered `log`. */
export interface WrittenPiece { readonly offset: number; readonly length: number; readonly log: number; readonly at: number }

const chunkBytes = 1024 * 1024;
const sectorsPerChunk = chunkBytes / sectorBytes;

/** Numbers of each entry: offset, length, log, place. */
const width = 4;

export class WrittenRanges {
  #entries = new Float64Array(width * 256);
  #count = 0;

  get count(): number { return this.#count; }

  /** Offset and length are multiples of a sector. */
  add(offset: number, length: number, log: number, at: number): void {
    if (length === 0) return;
    if ((this.#count + 1) * width > this.#entries.length) {
      const larger = new Float64Array(this.#entries.length * 2);
      larger.set(this.#entries);
      this.#entries = larger;
    }
    this.#entries.set([offset, length, log, at], this.#count * width);
    this.#count += 1;
  }

  /** In order of offset, none over another. */
  pieces(): WrittenPiece[] {
    const covered = new Map<number, Uint8Array>();
    const found: WrittenPiece[] = [];
    for (let index = this.#count - 1; index >= 0; index -= 1) {
      const [offset, length, log, at] = this.#entries.subarray(index * width, index * width + width) as unknown as [number, number, number, number];
      uncover(covered, offset, length, (from, bytes) => found.push({ offset: from, length: bytes, log, at: at + (from - offset) }));
    }
    return found.sort((a, b) => a.offset - b.offset);
  }
}

/** Calls back with each stretch of [offset, offset + length) that was not covered before; then it is. */
function uncover(covered: Map<number, Uint8Array>, offset: number, length: number, onNew: (offset: number, length: number) => void): void {
  let newFrom = -1;
  const end = offset + length;
  for (let at = offset; at < end;) {
    const chunk = Math.floor(at / chunkBytes);
    const chunkEnd = Math.min(end, (chunk + 1) * chunkBytes);
    let bits = covered.get(chunk);
    if (bits === undefined) covered.set(chunk, bits = new Uint8Array(sectorsPerChunk / 8));
    for (; at < chunkEnd; at += sectorBytes) {
      const sector = (at / sectorBytes) % sectorsPerChunk;
      const [byte, bit] = [sector >>> 3, 1 << (sector & 7)];
      if ((bits[byte]! & bit) !== 0) {
        if (newFrom >= 0) onNew(newFrom, at - newFrom);
        newFrom = -1;
        continue;
      }
      bits[byte]! |= bit;
      if (newFrom < 0) newFrom = at;
    }
  }
  if (newFrom >= 0) onNew(newFrom, end - newFrom);
}
