/**
 * Which blocks of which disks an unsealed delta has written, coarsely (a bit per compare block). The replica does not have
 * those writes yet, so a comparison must count such a block as different, whatever the replica holds. May say more than was
 * written, never less: when there are too many pages, what has none counts as written.
 */
import { compareBlockBytes, touchedPagesMax } from '../../journal/limits.ts';

/** Blocks in one page of bits: 8 KiB of memory cover 4 GiB of disk. */
const pageBlocks = 64 * 1024;

export class TouchedBlocks {
  readonly #pages = new Map<number, Map<number, Uint8Array>>();
  readonly #pagesMax: number;
  #pageCount = 0;
  #isOverfull = false;

  constructor(pagesMax: number = touchedPagesMax) {
    this.#pagesMax = pagesMax;
  }

  add(disk: number, offset: number, length: number): void {
    let pages = this.#pages.get(disk);
    if (pages === undefined) this.#pages.set(disk, pages = new Map<number, Uint8Array>());
    const last = Math.floor((offset + length - 1) / compareBlockBytes);
    for (let block = Math.floor(offset / compareBlockBytes); block <= last; block++) {
      const pageIndex = Math.floor(block / pageBlocks);
      let page = pages.get(pageIndex);
      if (page === undefined) {
        if (this.#pageCount >= this.#pagesMax) {
          this.#isOverfull = true;
          block = (pageIndex + 1) * pageBlocks - 1;
          continue;
        }
        this.#pageCount++;
        pages.set(pageIndex, page = new Uint8Array(pageBlocks / 8));
      }
      const bit = block % pageBlocks;
      page[bit >> 3]! |= 1 << (bit & 7);
    }
  }

  overlaps(disk: number, offset: number, length: number): boolean {
    const pages = this.#pages.get(disk);
    if (pages === undefined) return this.#isOverfull;
    const last = Math.floor((offset + length - 1) / compareBlockBytes);
    for (let block = Math.floor(offset / compareBlockBytes); block <= last; block++) {
      const page = pages.get(Math.floor(block / pageBlocks));
      const bit = block % pageBlocks;
      if (page === undefined ? this.#isOverfull : (page[bit >> 3]! & (1 << (bit & 7))) !== 0) return true;
    }
    return false;
  }

  /** `bits` of blocks from `offset` on, with a '1' for each that was written, too. */
  mark(bits: string, disk: number, offset: number, length: number, blockBytes: number): string {
    return Array.from(bits, (bit, block) => (bit === '1' || this.overlaps(disk, offset + block * blockBytes, Math.min(blockBytes, length - block * blockBytes)) ? '1' : '0')).join('');
  }

  clear(): void {
    this.#pages.clear();
    this.#pageCount = 0;
    this.#isOverfull = false;
  }
}
