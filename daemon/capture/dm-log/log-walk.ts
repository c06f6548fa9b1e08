/**
 * Walks a log of dm-log-writes (writelog/dm-log.ts has the format) from entry to entry, whoever wrote it and whatever its sector is.
 * Reads headers; data is passed over, and only looked for where the file might end within it. It is for logs that nobody writes just
 * now: what is in flight cannot be told from what is missing. How far the cuts of a log of QEMU's reach is log-stretch.ts's matter.
 *
 * Where a log ends: its superblock counts the entries that there are at least, as it is written now and then only. The walk goes on
 * behind them while entries stand there, up to a sector of zeroes or the end of the file at an entry's boundary. Right behind the
 * last one counted, bytes that are no entry are what the device held before, and the log ends at its count. Older entries of another
 * log that happen to begin right there cannot be told from this one's; `isCountedOnly` leaves them out.
 *
 * Invariants: each entry given out is whole, its data included. Before the count is reached nothing but entries is accepted.
 * Memory: one window, or one sector where that is larger.
 */
import assert from 'node:assert/strict';
import { Fault, isFault } from '../../../journal/fault.ts';
import { decodeLogEntry, decodeLogSuperblock, type LogEntry, type LogSuperblock } from '../writelog/dm-log.ts';

/** Fewer bytes than the buffer has only where the log's file or device ends. */
export interface LogBytes { read(into: Buffer, at: number): Promise<number> }

/** `count`: after as many entries as the superblock counts. Else, after more of them, `zeroes`: at a sector that was never written; `file-end`: where the file or device ends. */
export type LogEndKind = 'count' | 'zeroes' | 'file-end';

export type LogStep =
  | { readonly kind: 'entry'; readonly number: number; readonly entry: LogEntry }
  | { readonly kind: 'end'; readonly endedBy: LogEndKind; readonly at: number };

export interface LogWalkOptions {
  /** Of a log whose superblock was not written yet, which says nothing of it: QEMU writes the first one with the first flush. */
  readonly sectorBytes?: number;
  /** An entry's place to begin at; entries are then numbered from there, and the superblock's count says nothing. */
  readonly fromAt?: number;
  /** Goes no further than the superblock's count. */
  readonly isCountedOnly?: boolean;
}

/** Headers of small writes are found in it without another read. */
const windowBytes = 256 * 1024;
/** Enough of a superblock to see what it is. */
const superblockReadBytes = 512;

export class LogWalk {
  /** Null: not written yet. */
  readonly superblock: LogSuperblock | null;
  readonly sectorBytes: number;
  readonly #log: LogBytes;
  /** Entries that must be there; null: it is not known how many. */
  readonly #countedEntries: number | null;
  readonly #isCountedOnly: boolean;
  readonly #window: Buffer;
  #windowAt = 0;
  #windowLength = 0;
  #at: number;
  #number = 0;

  private constructor(log: LogBytes, superblock: LogSuperblock | null, sectorBytes: number, options: LogWalkOptions) {
    this.#log = log;
    this.superblock = superblock;
    this.sectorBytes = sectorBytes;
    this.#countedEntries = options.fromAt === undefined ? superblock?.entries ?? null : null;
    this.#isCountedOnly = options.isCountedOnly === true;
    this.#at = options.fromAt ?? sectorBytes;
    this.#window = Buffer.allocUnsafe(Math.max(windowBytes, sectorBytes));
  }

  /** Fault LOG_IMPLAUSIBLE when no log begins there. */
  static async open(log: LogBytes, options: LogWalkOptions = {}): Promise<LogWalk> {
    const bytes = Buffer.alloc(superblockReadBytes);
    const length = await log.read(bytes, 0);
    if (options.sectorBytes !== undefined && length === bytes.length && bytes.every((byte) => byte === 0)) return new LogWalk(log, null, options.sectorBytes, options);
    const superblock = decodeLogSuperblock(bytes.subarray(0, length));
    return new LogWalk(log, superblock, superblock.sectorBytes, options);
  }

  /** The next entry, or the end, which comes again and again. Fault LOG_IMPLAUSIBLE, with the place. */
  async next(): Promise<LogStep> {
    const at = this.#at;
    const counted = this.#countedEntries;
    const isCounted = counted !== null && this.#number < counted;
    const isAtCount = this.#number === counted;
    if (this.#isCountedOnly && isAtCount) return { kind: 'end', endedBy: 'count', at };
    const there = await this.#look(at);
    if (there === 0) {
      if (isCounted) throw this.#missing('the log’s file ends');
      return { kind: 'end', endedBy: isAtCount ? 'count' : 'file-end', at };
    }
    let entry: LogEntry | null;
    try {
      if (there < this.sectorBytes) throw new Fault('LOG_IMPLAUSIBLE', `the log’s file ends within the entry at ${at}`, { at });
      const from = at - this.#windowAt;
      entry = decodeLogEntry(this.#window.subarray(from, from + this.sectorBytes), at, this.sectorBytes);
      if (entry !== null && !await this.#hasDataOf(entry)) throw new Fault('LOG_IMPLAUSIBLE', `the log’s file ends within the data of the entry at ${at}, which would end at ${entry.endAt}`, { at, endAt: entry.endAt });
    } catch (error) {
      // A superblock is only ever written with entries.
      const isStale = isFault(error) && error.code === 'LOG_IMPLAUSIBLE' && isAtCount && counted > 0;
      if (!isStale) throw error;
      return { kind: 'end', endedBy: 'count', at };
    }
    if (entry === null) {
      if (isCounted) throw this.#missing('the log holds nothing');
      return { kind: 'end', endedBy: isAtCount ? 'count' : 'zeroes', at };
    }
    const number = this.#number;
    this.#number += 1;
    this.#at = entry.endAt;
    return { kind: 'entry', number, entry };
  }

  /** Puts the sector at `at` into the window; how much of it there is. */
  async #look(at: number): Promise<number> {
    const isIn = at >= this.#windowAt && at + this.sectorBytes <= this.#windowAt + this.#windowLength;
    if (!isIn) {
      this.#windowAt = at;
      this.#windowLength = await this.#log.read(this.#window, at);
      assert(this.#windowLength <= this.#window.length);
    }
    return Math.min(this.sectorBytes, this.#windowAt + this.#windowLength - at);
  }

  async #hasDataOf({ dataAt, endAt }: LogEntry): Promise<boolean> {
    if (endAt === dataAt || endAt <= this.#windowAt + this.#windowLength) return true;
    return await this.#log.read(Buffer.alloc(1), endAt - 1) === 1;
  }

  #missing(what: string): Fault {
    return new Fault('LOG_IMPLAUSIBLE', `${what} at ${this.#at}, after ${this.#number} entries; its superblock counts ${this.#countedEntries}`, { at: this.#at, entries: this.#number });
  }
}
