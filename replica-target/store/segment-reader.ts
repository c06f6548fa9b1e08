/**
 * Walks the records of one open segment, from a position on. It checks each record by itself (checksum, limits); whether a
 * record follows its predecessor is the caller's question. Holds one window in memory, whatever the segment's size.
 */
import type { DiskFile } from '../../host/disk.ts';
import { recordBytesMax, recordHeaderBytes } from '../../journal/limits.ts';
import { readRecord, readRecordSize, type RecordReading } from '../../journal/record.ts';

const windowBytes = 4 * 1024 * 1024;

export class SegmentReader {
  readonly #file: DiskFile;
  readonly #end: number;
  readonly #window: Buffer;
  #windowAt: number;
  #windowLength = 0;
  /** Where the next record starts. */
  at: number;

  /** `end`: no record is read beyond it. `window`: reused memory, see {@link makeWindow}. */
  constructor(file: DiskFile, at: number, end: number, window: Buffer) {
    this.#file = file;
    this.#end = end;
    this.#window = window;
    this.#windowAt = at;
    this.at = at;
  }

  /** The record at `at`; its bytes are valid until the next call. Moves on only when there is one. */
  async next(): Promise<RecordReading> {
    await this.#have(recordHeaderBytes);
    const size = readRecordSize(this.#here());
    if (!size.ok) return size;
    await this.#have(size.recordBytes);
    const reading = readRecord(this.#here());
    if (reading.ok) this.at += reading.next;
    return reading;
  }

  #here(): Buffer {
    return this.#window.subarray(this.at - this.#windowAt, this.#windowLength);
  }

  async #have(bytes: number): Promise<void> {
    if (this.at + bytes <= this.#windowAt + this.#windowLength || this.#windowAt + this.#windowLength >= this.#end) return;
    const kept = this.#windowAt + this.#windowLength - this.at;
    if (kept > 0) this.#window.copyWithin(0, this.at - this.#windowAt, this.#windowLength);
    this.#windowLength = Math.max(0, kept);
    this.#windowAt = this.at;
    const wanted = Math.min(this.#window.length, this.#end - this.at) - this.#windowLength;
    if (wanted > 0) this.#windowLength += await this.#file.read(this.#window, this.#windowLength, wanted, this.at + this.#windowLength);
  }
}

/** No record is longer than a segment. */
export function makeWindow(segmentBytes: number): Buffer {
  return Buffer.allocUnsafe(Math.min(Math.max(windowBytes, recordBytesMax), segmentBytes));
}
