/**
 * A group's images: one plain raw file per disk. Two things write them, never at the same time: the first sync, straight and
 * with nothing to undo, and from then on the applier. Reading for comparison is here too, because it must see holes as they are.
 */
import { blake3 } from '@napi-rs/blake-hash';
import type { Disk, DiskFile } from '../../host/disk.ts';
import { Fault } from '../../journal/fault.ts';
import type { GroupFolder } from './group-folder.ts';
import { DataRanges } from './data-ranges.ts';
import { corrupt, errorCode } from './store-fault.ts';

/** Bytes of one read when blocks are compared: large enough for the disk, small beside the memory limit. */
const compareReadBytes = 1024 * 1024;

export class Replica {
  readonly #disk: Disk;
  readonly #folder: GroupFolder;
  readonly #files = new Map<number, Promise<DiskFile>>();
  /** True from the start: an earlier life may have made an image and ended before its name was durable. */
  #isFolderDirty = true;

  constructor(disk: Disk, folder: GroupFolder) {
    this.#disk = disk;
    this.#folder = folder;
  }

  path(disk: number): string {
    return this.#folder.image(disk);
  }

  /** The disk's image, made (empty) if it is not there. */
  file(disk: number): Promise<DiskFile> {
    let opening = this.#files.get(disk);
    if (opening === undefined) {
      opening = this.#openOrMake(disk);
      this.#files.set(disk, opening);
      opening.catch(() => this.#files.delete(disk));
    }
    return opening;
  }

  /** Nobody else may write to the images, unless they are a guest's again (`isBarred` false). */
  async bar(disks: readonly number[], isBarred: boolean): Promise<void> {
    for (const disk of disks) (await this.file(disk)).barWriters?.(isBarred);
  }

  /** Sets an image's length. */
  async resize(disk: number, sizeBytes: number): Promise<void> {
    const file = await this.file(disk);
    if (await file.sizeBytes() !== sizeBytes) await file.truncate(sizeBytes);
  }

  /**
   * Makes [start, end) read as zero. `skipsHoles`: leaves alone what is a hole already. Not for what is done again after a failed
   * sync, when what reads as a hole may not be one on the disk.
   */
  async zero(disk: number, start: number, end: number, skipsHoles: boolean): Promise<void> {
    const file = await this.file(disk);
    if (!skipsHoles) return file.punch(start, end - start);
    for (const data of await new DataRanges(file).within(start, end)) await file.punch(data.start, data.end - data.start);
  }

  /**
   * As `zero`, for what is done again after a write or sync of the image failed: what reads as a hole may be data on the disk, and
   * to punch it again may do nothing. So it is made data first.
   */
  async zeroAgain(disk: number, start: number, end: number): Promise<void> {
    const file = await this.file(disk);
    const zeroes = Buffer.alloc(Math.min(compareReadBytes, end - start));
    for (let at = start; at < end; at += zeroes.length) await file.write(zeroes.subarray(0, Math.min(zeroes.length, end - at)), at);
    await file.punch(start, end - start);
  }

  /** Everything written so far is durable, and so are the images' names. */
  async sync(disks: readonly number[]): Promise<void> {
    for (const disk of disks) await (await this.file(disk)).sync();
    if (!this.#isFolderDirty) return;
    await this.#disk.syncFolder(this.#folder.replica);
    this.#isFolderDirty = false;
  }

  async allocatedBytes(disks: readonly number[]): Promise<number> {
    let total = 0;
    for (const disk of disks) total += await (await this.file(disk)).allocatedBytes();
    return total;
  }

  /** '1' for each block whose hash differs, or that does not lie whole within `sizeBytes`. */
  async compare(disk: number, offset: number, length: number, blockBytes: number, hashes: Buffer): Promise<string> {
    const file = await this.file(disk);
    const ranges = new DataRanges(file);
    const sizeBytes = await file.sizeBytes();
    const end = offset + length;
    const readBytes = Math.max(blockBytes, Math.floor(compareReadBytes / blockBytes) * blockBytes);
    const buffer = Buffer.allocUnsafe(readBytes);
    let bits = '';
    for (let at = offset; at < end; at += readBytes) {
      const until = Math.min(end, at + readBytes);
      const data = await ranges.within(at, until);
      if (data.length > 0) {
        const read = await file.read(buffer, 0, until - at, at);
        buffer.fill(0, read, until - at);
      }
      for (let block = at; block < until; block += blockBytes) {
        const blockEnd = Math.min(until, block + blockBytes);
        const hash = hashes.subarray(((block - offset) / blockBytes) * 32, ((block - offset) / blockBytes) * 32 + 32);
        const hasData = data.some((range) => range.start < blockEnd && range.end > block);
        const ours = hasData ? blake3(buffer.subarray(block - at, blockEnd - at)) : zeroHash(blockEnd - block);
        bits += blockEnd <= sizeBytes && ours.equals(hash) ? '0' : '1';
      }
    }
    return bits;
  }

  async close(): Promise<void> {
    const files = [...this.#files.values()];
    this.#files.clear();
    for (const opening of files) await (await opening).close();
  }

  /** Fault STORE_CORRUPT when the image of a disk that has been written is gone: it must not come back empty. */
  async checkThere(disk: number): Promise<void> {
    try {
      await (await this.#disk.open(this.path(disk), 'read')).close();
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
      throw corrupt(this.path(disk), 0, 'the image is gone');
    }
  }

  async #openOrMake(disk: number): Promise<DiskFile> {
    const file = await this.#openIfThere(disk) ?? await this.#make(disk);
    if (file.barWriters?.(true) !== false) return file;
    await file.close();
    throw new Fault('STORE_LOCKED', `${this.path(disk)} is written to by another program, a running guest perhaps`, { path: this.path(disk) });
  }

  async #openIfThere(disk: number): Promise<DiskFile | null> {
    try {
      return await this.#disk.open(this.path(disk), 'readWrite');
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return null;
      throw error;
    }
  }

  #make(disk: number): Promise<DiskFile> {
    this.#isFolderDirty = true;
    return this.#disk.open(this.path(disk), 'create');
  }
}

const zeroHashes = new Map<number, Buffer>();

function zeroHash(length: number): Buffer {
  let hash = zeroHashes.get(length);
  if (hash === undefined) {
    hash = blake3(Buffer.alloc(length));
    zeroHashes.set(length, hash);
  }
  return hash;
}
