/**
 * One sealed history file read from front to back: its runs in order of disk and offset, without its index, every checksum tested
 * that is passed. For merging, where many files are read at once: memory is a small buffer, or the run that does not fit in it.
 */
import type { Disk, DiskFile } from '../../host/disk.ts';
import { checksumOf, decodeHistoryRun, decodeHistoryTrailer, historyIndexEntryBytes, historyRunBytes, historyTrailerBytes, type HistoryFacts, type HistoryRun } from '../store/history-format.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import { HistoryReader } from '../store/history-reader.ts';
import { corrupt, newer } from '../store/store-fault.ts';

/** Of a file that is not smaller. */
const bufferBytesMax = 256 * 1024;

export class RunStream {
  readonly facts: HistoryFacts;
  readonly #file: DiskFile;
  /** Where the runs end. */
  readonly #endAt: number;
  readonly #bufferBytes: number;
  #buffer: Buffer;
  /** Of the file: where the buffer begins, and how much of it is there. */
  #bufferAt: number;
  #filled = 0;
  /** Of the run that comes next. */
  #nextAt: number;
  #payloadAt = 0;
  #payload = 0n;
  #isPayloadTested = false;
  #run: HistoryRun | null = null;
  #readBytes = 0;

  private constructor(file: DiskFile, facts: HistoryFacts, startAt: number, endAt: number) {
    this.#file = file;
    this.facts = facts;
    this.#bufferAt = this.#nextAt = startAt;
    this.#endAt = endAt;
    this.#bufferBytes = Math.min(bufferBytesMax, endAt - startAt);
    this.#buffer = Buffer.allocUnsafe(this.#bufferBytes);
  }

  /** Faults: STORE_CORRUPT, STORE_NEWER. */
  static async open(disk: Disk, folder: GroupFolder, name: string): Promise<RunStream> {
    const { facts, headerBytes } = await HistoryReader.facts(disk, folder, name);
    const file = await disk.open(folder.undo(name), 'read');
    try {
      const sizeBytes = await file.sizeBytes();
      const bytes = Buffer.alloc(historyTrailerBytes);
      const trailerAt = Math.max(0, sizeBytes - historyTrailerBytes);
      const trailer = decodeHistoryTrailer(bytes.subarray(0, await file.read(bytes, 0, historyTrailerBytes, trailerAt)));
      if (!trailer.ok) throw trailer.fault === 'newer' ? newer(file.path, trailer.detail) : corrupt(file.path, trailerAt, trailer.detail);
      const { indexAt, indexCount } = trailer.value;
      if (indexAt + indexCount * historyIndexEntryBytes !== trailerAt || indexAt < headerBytes) throw corrupt(file.path, trailerAt, 'the index does not fill the space before the trailer');
      return new RunStream(file, facts, headerBytes, indexAt);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get readBytes(): number { return this.#readBytes; }

  /** The next run; null at the end. Its payload need not be read. */
  async next(): Promise<HistoryRun | null> {
    if (this.#nextAt === this.#endAt) return this.#run = null;
    const at = await this.#have(this.#nextAt, historyRunBytes);
    const reading = decodeHistoryRun(this.#buffer, at);
    if (!reading.ok) throw corrupt(this.#file.path, this.#nextAt, reading.detail);
    const { payload, ...run } = reading.value;
    const before = this.#run;
    if (before !== null && (before.disk > run.disk || (before.disk === run.disk && before.offset + before.length > run.offset))) throw corrupt(this.#file.path, this.#nextAt, 'the runs are out of order');
    this.#payloadAt = this.#nextAt + historyRunBytes;
    this.#nextAt = this.#payloadAt + (run.kind === 'data' ? run.length : 0);
    if (this.#nextAt > this.#endAt) throw corrupt(this.#file.path, this.#payloadAt, 'a before-image reaches into the index');
    this.#payload = payload;
    this.#isPayloadTested = false;
    return this.#run = run;
  }

  /** The bytes of the data run that `next` gave, until `next` is called again. */
  async payload(): Promise<Buffer> {
    const { length } = this.#run!;
    const at = await this.#have(this.#payloadAt, length);
    const bytes = this.#buffer.subarray(at, at + length);
    if (!this.#isPayloadTested && checksumOf(bytes) !== this.#payload) throw corrupt(this.#file.path, this.#payloadAt, 'a before-image fails its checksum');
    this.#isPayloadTested = true;
    return bytes;
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  /** Index in the buffer of these bytes of the file; never called for what lies before the buffer. */
  async #have(at: number, length: number): Promise<number> {
    const ahead = at - this.#bufferAt;
    if (ahead + length <= this.#filled) return ahead;
    const kept = Math.max(0, this.#filled - ahead);
    if (length > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(length);
      if (kept > 0) this.#buffer.copy(larger, 0, ahead, this.#filled);
      this.#buffer = larger;
    } else {
      // A large run needed a large buffer; what follows does not.
      if (kept > 0) this.#buffer.copyWithin(0, ahead, this.#filled);
      if (this.#buffer.length > this.#bufferBytes && Math.max(kept, length) <= this.#bufferBytes) this.#buffer = Buffer.from(this.#buffer.subarray(0, this.#bufferBytes));
    }
    const want = Math.min(this.#buffer.length, this.#endAt - at) - kept;
    const read = await this.#file.read(this.#buffer, kept, want, at + kept);
    this.#readBytes += read;
    this.#bufferAt = at;
    this.#filled = kept + read;
    if (this.#filled < length) throw corrupt(this.#file.path, at, 'the file ends in the middle of a run');
    return 0;
  }
}
