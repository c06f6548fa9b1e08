/**
 * Reads records of the journal by their place, in ascending order, several small ones with one read. Its memory is taken once
 * and used again: what it hands out is valid until it is released, and all of it is before `close`. It checks nothing: that is for those who know what a record is.
 */
import { BufferPool } from '../../host/buffer-pool.ts';
import type { Disk, DiskFile } from '../../host/disk.ts';
import type { GroupFolder } from './group-folder.ts';
import type { JournalPosition } from './journal-recovery.ts';

/** Bytes that are read at once when records are small. */
const readAheadBytes = 256 * 1024;
/** Of all sources. */
const chunkBuffers = new BufferPool(0, 16 * readAheadBytes);

/** One read's bytes, and how many of its records are still in use. */
interface Chunk { buffer: Buffer; segment: number; at: number; length: number; users: number }

export class JournalSource {
  readonly #disk: Disk;
  readonly #folder: GroupFolder;
  #file: { readonly segment: number; readonly file: DiskFile } | null = null;
  #current: Chunk | null = null;
  readonly #free: Chunk[] = [];

  constructor(disk: Disk, folder: GroupFolder) {
    this.#disk = disk;
    this.#folder = folder;
  }

  async read(place: JournalPosition, length: number): Promise<{ readonly bytes: Buffer; readonly release: () => void }> {
    const chunk = this.#holds(place, length) ? this.#current! : await this.#load(place, length);
    chunk.users++;
    const release = (): void => {
      chunk.users--;
      if (chunk.users === 0 && chunk !== this.#current) this.#free.push(chunk);
    };
    return { bytes: chunk.buffer.subarray(place.at - chunk.at, Math.min(chunk.length, place.at - chunk.at + length)), release };
  }

  async close(): Promise<void> {
    this.#retire();
    for (const { buffer } of this.#free.splice(0)) chunkBuffers.give(buffer);
    await this.#closeFile();
  }

  #retire(): void {
    if (this.#current?.users === 0) this.#free.push(this.#current);
    this.#current = null;
  }

  async #closeFile(): Promise<void> {
    const open = this.#file;
    this.#file = null;
    await open?.file.close();
  }

  #holds({ segment, at }: JournalPosition, length: number): boolean {
    const chunk = this.#current;
    return chunk !== null && chunk.segment === segment && at >= chunk.at && at + length <= chunk.at + chunk.length;
  }

  async #load(place: JournalPosition, length: number): Promise<Chunk> {
    this.#retire();
    if (this.#file?.segment !== place.segment) {
      await this.#closeFile();
      this.#file = { segment: place.segment, file: await this.#disk.open(this.#folder.segment(place.segment), 'read') };
    }
    const wanted = Math.max(length, readAheadBytes);
    const chunk = this.#free.pop() ?? { buffer: chunkBuffers.take(wanted), segment: 0, at: 0, length: 0, users: 0 };
    if (chunk.buffer.length < wanted) {
      chunkBuffers.give(chunk.buffer);
      chunk.buffer = chunkBuffers.take(wanted);
    }
    chunk.length = await this.#file.file.read(chunk.buffer, 0, wanted, place.at);
    chunk.segment = place.segment;
    chunk.at = place.at;
    this.#current = chunk;
    return chunk;
  }
}
