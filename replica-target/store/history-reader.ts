/** Reads sealed history files: the facts of a batch from the header, and every run for those who walk back. Checks each checksum. */
import type { Disk, DiskFile } from '../../host/disk.ts';
import type { GroupFolder } from './group-folder.ts';
import {
  checksumOf, decodeHistoryHeader, decodeHistoryIndexEntry, decodeHistoryRun, decodeHistoryTrailer, historyHeaderBytes, historyIndexEntryBytes, historyRunBytes,
  historyTrailerBytes, readHistoryHeaderLength, type HistoryFacts, type HistoryIndexEntry, type HistoryReading,
} from './history-format.ts';
import { corrupt, newer } from './store-fault.ts';

export class HistoryReader {
  readonly facts: HistoryFacts;
  readonly sizeBytes: number;
  readonly #file: DiskFile;
  readonly #index: Buffer;

  private constructor(file: DiskFile, facts: HistoryFacts, index: Buffer, sizeBytes: number) {
    this.#file = file;
    this.facts = facts;
    this.#index = index;
    this.sizeBytes = sizeBytes;
  }

  /** Faults: STORE_CORRUPT, STORE_NEWER. */
  static async open(disk: Disk, folder: GroupFolder, name: string): Promise<HistoryReader> {
    const file = await disk.open(folder.undo(name), 'read');
    try {
      const sizeBytes = await file.sizeBytes();
      const { facts } = await readFacts(file, sizeBytes);
      const trailerAt = sizeBytes - historyTrailerBytes;
      const trailer = checked(file.path, trailerAt, decodeHistoryTrailer(await readAt(file, Math.max(0, trailerAt), historyTrailerBytes)));
      const indexBytes = trailer.indexCount * historyIndexEntryBytes;
      if (trailer.indexAt + indexBytes !== trailerAt) throw corrupt(file.path, trailerAt, 'the index does not fill the space before the trailer');
      const index = await readAt(file, trailer.indexAt, indexBytes);
      if (checksumOf(index) !== trailer.indexChecksum) throw corrupt(file.path, trailer.indexAt, 'the index fails its checksum');
      return new HistoryReader(file, facts, index, sizeBytes);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Only the facts, without index and trailer. */
  static async facts(disk: Disk, folder: GroupFolder, name: string): Promise<{ readonly facts: HistoryFacts; readonly headerBytes: number; readonly sizeBytes: number }> {
    const file = await disk.open(folder.undo(name), 'read');
    try {
      const sizeBytes = await file.sizeBytes();
      return { ...await readFacts(file, sizeBytes), sizeBytes };
    } finally {
      await file.close();
    }
  }

  get count(): number { return this.#index.length / historyIndexEntryBytes; }

  entry(index: number): HistoryIndexEntry {
    return decodeHistoryIndexEntry(this.#index, index);
  }

  /** The run's bytes; null for zeroes. */
  async run(entry: HistoryIndexEntry): Promise<Buffer | null> {
    const { path } = this.#file;
    // A place has 64 bits, a file has fewer.
    if (entry.at + historyRunBytes > this.sizeBytes) throw corrupt(path, this.sizeBytes, 'the index names a place beyond the file');
    const head = checked(path, entry.at, decodeHistoryRun(await readAt(this.#file, entry.at, historyRunBytes)));
    if (head.kind !== entry.kind || head.disk !== entry.disk || head.offset !== entry.offset || head.length !== entry.length) {
      throw corrupt(path, entry.at, 'the run is not the one that the index names');
    }
    if (entry.kind === 'zero') return null;
    // Before memory is taken for it: a length has 32 bits.
    if (entry.at + historyRunBytes + entry.length > this.sizeBytes) throw corrupt(path, entry.at, 'the run reaches beyond the file');
    const bytes = await readAt(this.#file, entry.at + historyRunBytes, entry.length);
    if (bytes.length !== entry.length || checksumOf(bytes) !== head.payload) throw corrupt(path, entry.at + historyRunBytes, 'a before-image fails its checksum');
    return bytes;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

async function readFacts(file: DiskFile, sizeBytes: number): Promise<{ readonly facts: HistoryFacts; readonly headerBytes: number }> {
  const fixed = await readAt(file, 0, historyHeaderBytes);
  const headerBytes = checked(file.path, 0, readHistoryHeaderLength(fixed));
  if (headerBytes > sizeBytes) throw corrupt(file.path, 0, 'the header is cut off');
  return { facts: checked(file.path, 0, decodeHistoryHeader(await readAt(file, 0, headerBytes))), headerBytes };
}

async function readAt(file: DiskFile, at: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  return bytes.subarray(0, await file.read(bytes, 0, length, at));
}

function checked<T>(path: string, at: number, reading: HistoryReading<T>): T {
  if (reading.ok) return reading.value;
  throw reading.fault === 'newer' ? newer(path, reading.detail) : corrupt(path, at, reading.detail);
}
