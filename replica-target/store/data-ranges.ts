/**
 * Where a file has data, asked of the file system as seldom as possible: one answer covers a hole and the data behind it, and
 * questions come in ascending order. What is not reported reads as zero.
 */
import type { DiskFile } from '../../host/disk.ts';
import type { Extent } from '../../journal/extents.ts';

export class DataRanges {
  readonly #file: DiskFile;
  /** What was learnt: [from, data.start) is a hole, [data.start, data.end) is data. */
  #from = 0;
  #data: Extent | null = null;
  #isKnown = false;

  constructor(file: DiskFile) {
    this.#file = file;
  }

  /** Parts of [start, end) that have data, ascending. */
  async within(start: number, end: number): Promise<Extent[]> {
    const found: Extent[] = [];
    let at = start;
    while (at < end) {
      const data = await this.#next(at);
      if (data === null || data.start >= end) break;
      const from = Math.max(at, data.start);
      const to = Math.min(end, data.end);
      found.push({ start: from, end: to });
      at = to;
    }
    return found;
  }

  async #next(at: number): Promise<Extent | null> {
    if (this.#isKnown && at >= this.#from && (this.#data === null || at < this.#data.end)) return this.#data;
    this.#data = await this.#file.nextData(at);
    this.#from = at;
    this.#isKnown = true;
    return this.#data;
  }
}
