/**
 * A checksum of every block of one image, as a pass over the replica found it, in a file beside the image (FORMAT.md, "Sums").
 * It says nothing of blocks that were written since its point: that is for those who know the history. It is written aside,
 * synced and renamed, and carries a checksum of itself: one that is torn or damaged is as good as none, and is never taken for
 * a damaged image. Zeroes, holes or not, have the sum 0 and no place in the file.
 */
import { Xxh64, xxh64 } from '@node-rs/xxhash';
import type { Disk, DiskFile } from '../../host/disk.ts';
import { compareBlockBytes } from '../../journal/limits.ts';
import type { PointId } from '../../journal/point.ts';
import { removeIfThere } from '../store/checked-json.ts';
import { DataRanges } from '../store/data-ranges.ts';
import { errorCode } from '../store/store-fault.ts';

/** "AIX1", little-endian, at byte 8. */
const magic = 0x31584941;
const version = 1;
const headerBytes = 4096;
/** Bytes of sums that are read and written at once. */
export const windowSumBytes = 4096;
/** Bytes of the image that these stand for: 32 MiB. */
export const windowBytes = (windowSumBytes / 8) * compareBlockBytes;

/** `asOf` 0.0: before the first point. `sizeBytes`: of the image then. */
export interface SumsFacts { readonly asOf: PointId; readonly sizeBytes: number }

const zeroes = Buffer.alloc(compareBlockBytes);

export function sumOf(block: Buffer): bigint {
  if (block.equals(zeroes.subarray(0, block.length))) return 0n;
  const sum = xxh64(block);
  return sum === 0n ? 1n : sum;
}

export class ReplicaSums {
  readonly facts: SumsFacts;
  readonly #file: DiskFile;
  readonly #ranges: DataRanges;

  private constructor(file: DiskFile, facts: SumsFacts) {
    this.#file = file;
    this.#ranges = new DataRanges(file);
    this.facts = facts;
  }

  /** Null when there is none that can be believed. */
  static async open(disk: Disk, path: string): Promise<ReplicaSums | null> {
    let file: DiskFile;
    try {
      file = await disk.open(path, 'read');
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return null;
      throw error;
    }
    const sums = await read(file);
    if (sums === null) await file.close();
    return sums === null ? null : new ReplicaSums(file, sums);
  }

  /** Sums of a window of the image into `into`. In ascending order of windows. */
  async window(index: number, into: Buffer): Promise<void> {
    await readWindow(this.#file, this.#ranges, index, into);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

async function readWindow(file: DiskFile, ranges: DataRanges, index: number, into: Buffer): Promise<boolean> {
  const at = headerBytes + index * windowSumBytes;
  const hasData = (await ranges.within(at, at + windowSumBytes)).length > 0;
  into.fill(0, hasData ? await file.read(into, 0, windowSumBytes, at) : 0);
  return hasData && !isBlank(into);
}

async function read(file: DiskFile): Promise<SumsFacts | null> {
  const header = Buffer.alloc(headerBytes);
  if (await file.read(header, 0, headerBytes, 0) !== headerBytes) return null;
  if (header.readUInt32LE(8) !== magic || header.readUInt16LE(12) !== version || header.readUInt32LE(28) !== compareBlockBytes) return null;
  if (xxh64(header.subarray(8)) !== header.readBigUInt64LE(0)) return null;
  const facts = { asOf: { term: header.readUInt32LE(24), point: Number(header.readBigUInt64LE(16)) }, sizeBytes: Number(header.readBigUInt64LE(32)) };
  const content = new ContentSum();
  const ranges = new DataRanges(file);
  const sums = Buffer.alloc(windowSumBytes);
  for (let index = 0; index * windowBytes < facts.sizeBytes; index++) if (await readWindow(file, ranges, index, sums)) content.add(index, sums);
  return content.value() === header.readBigUInt64LE(40) ? facts : null;
}

export class SumsWriter {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #file: DiskFile;
  readonly #content = new ContentSum();
  #isClosed = false;

  private constructor(disk: Disk, path: string, file: DiskFile) {
    this.#disk = disk;
    this.#path = path;
    this.#file = file;
  }

  static async begin(disk: Disk, path: string): Promise<SumsWriter> {
    await removeIfThere(disk, `${path}.part`);
    return new SumsWriter(disk, path, await disk.open(`${path}.part`, 'create'));
  }

  /** In ascending order of windows, each once. */
  async window(index: number, sums: Buffer): Promise<void> {
    if (isBlank(sums)) return;
    this.#content.add(index, sums);
    await this.#file.write(sums, headerBytes + index * windowSumBytes);
  }

  /** Durable under its name, in the place of the sums before, when it resolves. */
  async seal({ asOf, sizeBytes }: SumsFacts, folder: string): Promise<void> {
    const header = Buffer.alloc(headerBytes);
    header.writeUInt32LE(magic, 8);
    header.writeUInt16LE(version, 12);
    header.writeBigUInt64LE(BigInt(asOf.point), 16);
    header.writeUInt32LE(asOf.term, 24);
    header.writeUInt32LE(compareBlockBytes, 28);
    header.writeBigUInt64LE(BigInt(sizeBytes), 32);
    header.writeBigUInt64LE(this.#content.value(), 40);
    header.writeBigUInt64LE(xxh64(header.subarray(8)), 0);
    await this.#file.write(header, 0);
    await this.#file.sync();
    await this.#close();
    await this.#disk.rename(`${this.#path}.part`, this.#path);
    await this.#disk.syncFolder(folder);
  }

  /** Nothing is left of what was not sealed. */
  async abandon(): Promise<void> {
    if (this.#isClosed) return;
    await this.#close();
    await removeIfThere(this.#disk, `${this.#path}.part`);
  }

  async #close(): Promise<void> {
    this.#isClosed = true;
    await this.#file.close();
  }
}

/** Of the windows that are not blank, with their places. */
class ContentSum {
  readonly #sum = new Xxh64();
  readonly #place = Buffer.alloc(8);

  add(index: number, sums: Buffer): void {
    this.#place.writeBigUInt64LE(BigInt(index));
    this.#sum.update(this.#place);
    this.#sum.update(sums);
  }

  value(): bigint { return this.#sum.digest(); }
}

function isBlank(sums: Buffer): boolean {
  return sums.equals(zeroes.subarray(0, sums.length));
}
