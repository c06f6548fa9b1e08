/**
 * Writes one digest from runs that come in order: leaves as they fill, then the inner pages, the table of files, the trailer.
 * Memory is a stage of pages and the first key of every leaf. Nothing here is needed for a restore: what fails is left out, and
 * a file that bears a digest's name was whole when it got it.
 */
import type { Disk, DiskFile } from '../../host/disk.ts';
import type { PointId } from '../../journal/point.ts';
import { removeIfThere } from '../store/checked-json.ts';
import {
  digestPageBytes, innerEntriesMax, leafEntriesMax, pageKinds, sealPage, tableEntriesMax, writeInnerEntry, writeLeafEntry, writeTableEntry, writeTrailer, type DigestTableEntry,
} from './digest-format.ts';
import type { ImageRun } from './image-runs.ts';

/** Pages of one write. */
const stagePages = 64;
const partSuffix = '.part';

interface Keys { readonly disks: number[]; readonly starts: number[] }

export interface DigestFacts { readonly groupId: string; readonly level: number; readonly from: PointId | null; readonly files: readonly DigestTableEntry[] }

export class DigestWriter {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #file: DiskFile;
  readonly #stage = Buffer.alloc(stagePages * digestPageBytes);
  /** Pages that are full, in the file and staged. */
  #pages = 0;
  #staged = 0;
  #entries = 0;
  /** Entries in the leaf that is being filled. */
  #inLeaf = 0;
  #isClosed = false;
  readonly #leaves: Keys = { disks: [], starts: [] };

  private constructor(disk: Disk, path: string, file: DiskFile) {
    this.#disk = disk;
    this.#path = path;
    this.#file = file;
  }

  static async begin(disk: Disk, path: string): Promise<DigestWriter> {
    await removeIfThere(disk, path + partSuffix);
    return new DigestWriter(disk, path, await disk.open(path + partSuffix, 'create'));
  }

  /** A promise only when something is written. */
  add(run: ImageRun): void | Promise<void> {
    if (this.#inLeaf === 0) {
      this.#leaves.disks.push(run.disk);
      this.#leaves.starts.push(run.start);
    }
    writeLeafEntry(this.#page(), this.#inLeaf++, run);
    this.#entries++;
    if (this.#inLeaf === leafEntriesMax) return this.#endLeaf();
  }

  /** Whole and under its name when it resolves; not waited for to be durable under it. Returns its size. */
  async seal(facts: DigestFacts): Promise<number> {
    if (this.#inLeaf > 0) await this.#endLeaf();
    const leafCount = this.#pages;
    const rootPage = await this.#writeInner();
    const tablePage = this.#pages;
    for (let first = 0; first < facts.files.length; first += tableEntriesMax) {
      const entries = facts.files.slice(first, first + tableEntriesMax);
      for (const [index, entry] of entries.entries()) writeTableEntry(this.#page(), index, entry);
      await this.#endPage(pageKinds.table, entries.length);
    }
    writeTrailer(this.#page(), { groupId: facts.groupId, level: facts.level, from: facts.from, fileCount: facts.files.length, entryCount: this.#entries, leafCount, rootPage, tablePage });
    await this.#endPage(pageKinds.trailer, 0);
    await this.#flush();
    await this.#file.sync();
    await this.#close();
    await this.#disk.rename(this.#path + partSuffix, this.#path);
    return this.#pages * digestPageBytes;
  }

  async abandon(): Promise<void> {
    await this.#close();
    await removeIfThere(this.#disk, this.#path + partSuffix);
  }

  async #close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#file.close();
  }

  #page(): Buffer {
    return this.#stage.subarray(this.#staged * digestPageBytes, (this.#staged + 1) * digestPageBytes);
  }

  #endLeaf(): void | Promise<void> {
    const count = this.#inLeaf;
    this.#inLeaf = 0;
    return this.#endPage(pageKinds.leaf, count);
  }

  #endPage(kind: number, count: number): void | Promise<void> {
    sealPage(this.#page(), kind, this.#pages, count);
    this.#pages++;
    this.#staged++;
    if (this.#staged === stagePages) return this.#flush();
  }

  async #flush(): Promise<void> {
    if (this.#staged === 0) return;
    await this.#file.write(this.#stage.subarray(0, this.#staged * digestPageBytes), (this.#pages - this.#staged) * digestPageBytes);
    this.#stage.fill(0);
    this.#staged = 0;
  }

  /** Level above level until one page holds all. Returns that page; 0 when the only leaf is all there is. */
  async #writeInner(): Promise<number> {
    let keys: Keys = this.#leaves;
    let firstPage = 0;
    while (keys.starts.length > 1) {
      const above: Keys = { disks: [], starts: [] };
      const aboveFirst = this.#pages;
      for (let first = 0; first < keys.starts.length; first += innerEntriesMax) {
        const count = Math.min(innerEntriesMax, keys.starts.length - first);
        above.disks.push(keys.disks[first]!);
        above.starts.push(keys.starts[first]!);
        for (let index = 0; index < count; index++) writeInnerEntry(this.#page(), index, keys.disks[first + index]!, keys.starts[first + index]!, firstPage + first + index);
        await this.#endPage(pageKinds.inner, count);
      }
      keys = above;
      firstPage = aboveFirst;
    }
    return firstPage;
  }
}
