/**
 * Searches a digest. A page is checked when it comes into memory; a lookup reads the pages on its way down, which mostly are
 * there already, and the leaves that it needs. Damage is STORE_CORRUPT with the digest's path: the caller goes without it.
 */
import type { PointId } from '../../journal/point.ts';
import { corrupt } from '../store/store-fault.ts';
import type { BlockCache } from './block-cache.ts';
import {
  digestPageBytes, innerChild, isInnerEntryAtOrBefore, isLeafEntryAtOrBefore, isSoundPage, pageCount, pageKind, pageKinds, readLeafEntry, readTableEntry, readTrailer,
  tableEntriesMax, type DigestTableEntry, type DigestTrailer,
} from './digest-format.ts';
import type { ImageRun, RunCursor } from './image-runs.ts';
import type { OpenFiles } from './open-files.ts';

/** Pages that are read together: one read costs about the same, and neighbours are wanted next by whoever reads in order. */
const chunkPages = 16;
const chunkBytes = chunkPages * digestPageBytes;

export interface DigestSource { readonly open: OpenFiles; readonly cache: BlockCache }

export class DigestReader {
  readonly path: string;
  readonly trailer: DigestTrailer;
  readonly sizeBytes: number;
  readonly #o: DigestSource;

  private constructor(o: DigestSource, path: string, trailer: DigestTrailer, sizeBytes: number) {
    this.#o = o;
    this.path = path;
    this.trailer = trailer;
    this.sizeBytes = sizeBytes;
  }

  /** Null when it is no digest that this release understands. */
  static open(o: DigestSource, path: string): Promise<DigestReader | null> {
    return o.open.use(path, async (file) => {
      const sizeBytes = await file.sizeBytes();
      const page = Buffer.alloc(digestPageBytes);
      if (sizeBytes < digestPageBytes || sizeBytes % digestPageBytes !== 0) return null;
      await file.read(page, 0, digestPageBytes, sizeBytes - digestPageBytes);
      if (!isSoundPage(page, sizeBytes / digestPageBytes - 1)) return null;
      const trailer = readTrailer(page);
      return trailer === null ? null : new DigestReader(o, path, trailer, sizeBytes);
    });
  }

  /** The files that it speaks of, oldest first. */
  async table(): Promise<DigestTableEntry[]> {
    const { fileCount, tablePage } = this.trailer;
    const found: DigestTableEntry[] = [];
    for (let page = tablePage; found.length < fileCount; page++) {
      const chunk = await this.#chunk(page);
      const at = this.#inChunk(page);
      const here = pageCount(chunk, at);
      if (pageKind(chunk, at) !== pageKinds.table || here === 0 || here > tableEntriesMax) throw corrupt(this.path, page * digestPageBytes, 'the table of files ends early');
      for (let index = 0; index < here; index++) found.push(readTableEntry(chunk, at, index));
    }
    return found;
  }

  /** Adds what overlaps [start, end) to `into`, in order. A promise only when pages must be read. */
  lookup(disk: number, start: number, end: number, into: ImageRun[]): void | Promise<void> {
    if (this.trailer.entryCount === 0) return;
    return this.#down(this.trailer.rootPage, disk, start, end, into);
  }

  cursor(): RunCursor { return new DigestCursor(this); }

  #down(page: number, disk: number, start: number, end: number, into: ImageRun[]): void | Promise<void> {
    for (let at = page; ;) {
      const chunk = this.#chunk(at);
      if (chunk instanceof Promise) return chunk.then(() => this.#down(at, disk, start, end, into));
      const offset = this.#inChunk(at);
      if (pageKind(chunk, offset) === pageKinds.leaf) return this.#scan(at, disk, start, end, into);
      if (pageKind(chunk, offset) !== pageKinds.inner || pageCount(chunk, offset) === 0) throw corrupt(this.path, at * digestPageBytes, 'a page on the way down is no inner page');
      const child = innerChild(chunk, offset, lastAtOrBefore(pageCount(chunk, offset), (index) => isInnerEntryAtOrBefore(chunk, offset, index, disk, start)));
      // Pages are written from the leaves up: what leads elsewhere may lead round in a circle.
      if (child >= at) throw corrupt(this.path, at * digestPageBytes, 'an inner page leads to a page above it');
      at = child;
    }
  }

  /** From the last entry that begins at or before `start`. */
  #scan(leaf: number, disk: number, start: number, end: number, into: ImageRun[], from = -1): void | Promise<void> {
    for (let page = leaf, first = from; page < this.trailer.leafCount; page++, first = 0) {
      const chunk = this.#chunk(page);
      if (chunk instanceof Promise) return chunk.then(() => this.#scan(page, disk, start, end, into, first));
      const offset = this.#inChunk(page);
      if (pageKind(chunk, offset) !== pageKinds.leaf) throw corrupt(this.path, page * digestPageBytes, 'a page among the leaves is none');
      const count = pageCount(chunk, offset);
      const begin = first >= 0 ? first : lastAtOrBefore(count, (index) => isLeafEntryAtOrBefore(chunk, offset, index, disk, start));
      for (let index = begin; index < count; index++) {
        const run = readLeafEntry(chunk, offset, index);
        if (run.disk > disk || (run.disk === disk && run.start >= end)) return;
        if (run.disk === disk && run.end > start) into.push(run);
      }
    }
  }

  #inChunk(page: number): number { return (page % chunkPages) * digestPageBytes; }

  /** Fault STORE_CORRUPT for a page that the file does not have. */
  #chunk(page: number): Buffer | Promise<Buffer> {
    if (page * digestPageBytes >= this.sizeBytes) throw corrupt(this.path, page * digestPageBytes, 'a page is named that is not there');
    const index = Math.floor(page / chunkPages);
    const key = `${this.path}#${index}`;
    return this.#o.cache.get(key) ?? this.#o.cache.load(key, () => this.readChunk(index));
  }

  /** Pages from `index * 16` on, checked. */
  readChunk(index: number): Promise<Buffer> {
    return this.#o.open.use(this.path, async (file) => {
      const at = index * chunkBytes;
      const bytes = Buffer.allocUnsafe(Math.max(0, Math.min(chunkBytes, this.sizeBytes - at)));
      const read = await file.read(bytes, 0, bytes.length, at);
      for (let page = 0; page < bytes.length; page += digestPageBytes) {
        const number = (at + page) / digestPageBytes;
        if (page + digestPageBytes > read || !isSoundPage(bytes.subarray(page, page + digestPageBytes), number)) throw corrupt(this.path, at + page, 'a digest’s page fails its checksum');
      }
      return bytes;
    });
  }
}

/** Reads past the cache: whoever merges digests reads each once. */
class DigestCursor implements RunCursor {
  readonly #reader: DigestReader;
  #run: ImageRun | null = null;
  #chunk: Buffer | null = null;
  #page = 0;
  #index = 0;

  constructor(reader: DigestReader) {
    this.#reader = reader;
  }

  get disk(): number { return this.#run!.disk; }
  get start(): number { return this.#run!.start; }
  get end(): number { return this.#run!.end; }
  get isZero(): boolean { return this.#run!.isZero; }
  get file(): number { return this.#run!.file; }
  get at(): number { return this.#run!.at; }

  next(): boolean | Promise<boolean> {
    if (this.#page >= this.#reader.trailer.leafCount) return false;
    const chunk = this.#chunk;
    if (chunk === null) {
      return this.#reader.readChunk(Math.floor(this.#page / chunkPages)).then((read) => {
        this.#chunk = read;
        return this.next();
      });
    }
    const offset = (this.#page % chunkPages) * digestPageBytes;
    if (offset >= chunk.length || pageKind(chunk, offset) !== pageKinds.leaf || pageCount(chunk, offset) === 0) throw corrupt(this.#reader.path, this.#page * digestPageBytes, 'a page among the leaves is none');
    this.#run = readLeafEntry(chunk, offset, this.#index);
    if (++this.#index >= pageCount(chunk, offset)) {
      this.#index = 0;
      this.#page++;
      if (this.#page % chunkPages === 0) this.#chunk = null;
    }
    return true;
  }
}

/** Index of the last entry for which it is true, 0 when there is none. */
export function lastAtOrBefore(count: number, isTrue: (index: number) => boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isTrue(middle)) low = middle + 1; else high = middle;
  }
  return Math.max(0, low - 1);
}
