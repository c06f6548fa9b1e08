/**
 * Searches the index of one history file without having it in memory: the file is read through once, which checks it as a whole,
 * and then of each 64 KiB of it only the first key and a checksum are kept. Damage is STORE_CORRUPT: unlike a digest, nothing
 * else says what this index said.
 */
import { Xxh64, xxh64 } from '@node-rs/xxhash';
import type { DiskFile } from '../../host/disk.ts';
import { decodeHistoryTrailer, historyIndexEntryBytes, historyTrailerBytes } from '../store/history-format.ts';
import { corrupt } from '../store/store-fault.ts';
import { readNumber } from './digest-format.ts';
import { lastAtOrBefore, type DigestSource } from './digest-reader.ts';
import type { ImageRun, RunCursor } from './image-runs.ts';

const blockEntries = Math.floor(64 * 1024 / historyIndexEntryBytes);
const blockBytes = blockEntries * historyIndexEntryBytes;

export class UndoIndex {
  readonly path: string;
  readonly count: number;
  readonly #o: DigestSource;
  readonly #indexAt: number;
  readonly #disks: number[] = [];
  readonly #starts: number[] = [];
  readonly #checksums: bigint[] = [];

  private constructor(o: DigestSource, path: string, indexAt: number, count: number) {
    this.#o = o;
    this.path = path;
    this.#indexAt = indexAt;
    this.count = count;
  }

  /** Faults: STORE_CORRUPT. */
  static open(o: DigestSource, path: string): Promise<UndoIndex> {
    return o.open.use(path, async (file) => {
      const sizeBytes = await file.sizeBytes();
      const trailerAt = Math.max(0, sizeBytes - historyTrailerBytes);
      // Most indices are small: trailer and index come with one read.
      const tailAt = Math.max(0, trailerAt - blockBytes);
      const tail = await readAt(file, tailAt, sizeBytes - tailAt);
      const reading = decodeHistoryTrailer(tail.subarray(trailerAt - tailAt));
      if (!reading.ok) throw corrupt(path, trailerAt, reading.detail);
      const { indexAt, indexCount, indexChecksum } = reading.value;
      if (indexAt + indexCount * historyIndexEntryBytes !== trailerAt) throw corrupt(path, trailerAt, 'the index does not fill the space before the trailer');
      const index = new UndoIndex(o, path, indexAt, indexCount);
      const whole = new Xxh64();
      for (let block = 0; block * blockEntries < indexCount; block++) {
        const at = indexAt + block * blockBytes;
        const length = Math.min(blockBytes, trailerAt - at);
        const bytes = at >= tailAt ? Buffer.from(tail.subarray(at - tailAt, at - tailAt + length)) : await readAt(file, at, length);
        whole.update(bytes);
        index.#disks.push(bytes.readUInt16LE(20));
        index.#starts.push(readNumber(bytes, 0));
        index.#checksums.push(xxh64(bytes));
        o.cache.put(index.#key(block), bytes);
      }
      if ((indexCount === 0 ? xxh64(Buffer.alloc(0)) : whole.digest()) !== indexChecksum) throw corrupt(path, indexAt, 'the index fails its checksum');
      return index;
    });
  }

  /** Adds what overlaps [start, end) to `into`, in order. A promise only when the index must be read. */
  lookup(disk: number, start: number, end: number, into: ImageRun[]): void | Promise<void> {
    const block = lastAtOrBefore(this.#starts.length, (index) => this.#disks[index]! < disk || (this.#disks[index] === disk && this.#starts[index]! <= start));
    return this.#scan(block, -1, disk, start, end, into);
  }

  cursor(): RunCursor { return new UndoCursor(this); }

  /** Entries from `block * blockEntries` on, checked. */
  readBlock(block: number): Promise<Buffer> {
    return this.#o.open.use(this.path, async (file) => {
      const at = this.#indexAt + block * blockBytes;
      const bytes = await readAt(file, at, Math.min(blockBytes, (this.count - block * blockEntries) * historyIndexEntryBytes));
      if (xxh64(bytes) !== this.#checksums[block]) throw corrupt(this.path, at, 'the index fails its checksum');
      return bytes;
    });
  }

  #scan(from: number, firstEntry: number, disk: number, start: number, end: number, into: ImageRun[]): void | Promise<void> {
    for (let block = from, first = firstEntry; block < this.#starts.length; block++, first = 0) {
      const key = this.#key(block);
      const bytes = this.#o.cache.get(key);
      if (bytes === undefined) return this.#o.cache.load(key, () => this.readBlock(block)).then(() => this.#scan(block, first, disk, start, end, into));
      const count = bytes.length / historyIndexEntryBytes;
      const begin = first >= 0 ? first : lastAtOrBefore(count, (index) => isAtOrBefore(bytes, index, disk, start));
      for (let index = begin; index < count; index++) {
        const run = readEntry(bytes, index);
        if (run.disk > disk || (run.disk === disk && run.start >= end)) return;
        if (run.disk === disk && run.end > start) into.push(run);
      }
    }
  }

  #key(block: number): string { return `${this.path}#${block}`; }
}

class UndoCursor implements RunCursor {
  readonly #index: UndoIndex;
  #run: ImageRun | null = null;
  #bytes: Buffer | null = null;
  #block = 0;
  #entry = 0;

  constructor(index: UndoIndex) {
    this.#index = index;
  }

  get disk(): number { return this.#run!.disk; }
  get start(): number { return this.#run!.start; }
  get end(): number { return this.#run!.end; }
  get isZero(): boolean { return this.#run!.isZero; }
  get file(): number { return 0; }
  get at(): number { return this.#run!.at; }

  next(): boolean | Promise<boolean> {
    if (this.#block * blockEntries + this.#entry >= this.#index.count) return false;
    const bytes = this.#bytes;
    if (bytes === null) {
      return this.#index.readBlock(this.#block).then((read) => {
        this.#bytes = read;
        return this.next();
      });
    }
    this.#run = readEntry(bytes, this.#entry++);
    if (this.#entry === blockEntries) {
      this.#entry = 0;
      this.#block++;
      this.#bytes = null;
    }
    return true;
  }
}

/** As history-format.ts `decodeHistoryIndexEntry`, without a BigInt for every number. */
function readEntry(bytes: Buffer, index: number): ImageRun {
  const at = index * historyIndexEntryBytes;
  const start = readNumber(bytes, at);
  return { disk: bytes.readUInt16LE(at + 20), start, end: start + bytes.readUInt32LE(at + 16), isZero: bytes.readUInt16LE(at + 22) === 2, file: 0, at: readNumber(bytes, at + 8) };
}

function isAtOrBefore(bytes: Buffer, index: number, disk: number, offset: number): boolean {
  const at = index * historyIndexEntryBytes;
  const itsDisk = bytes.readUInt16LE(at + 20);
  return itsDisk < disk || (itsDisk === disk && readNumber(bytes, at) <= offset);
}

async function readAt(file: DiskFile, at: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  return bytes.subarray(0, await file.read(bytes, 0, length, at));
}
