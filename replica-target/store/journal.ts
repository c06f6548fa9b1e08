/**
 * The writing side of a group's journal: takes records that were found to follow, appends their bytes as they are, and says
 * when a part or a seal is durable. One write at a time, and none past a part or seal before that one's sync has succeeded:
 * so whatever lies behind a part or a seal in the files proves that it was durable. A sync or write that failed is never
 * taken for success later: what came after the last success is cut off, the segment is closed, the next append begins another.
 */
import assert from 'node:assert/strict';
import type { Disk, DiskFile } from '../../host/disk.ts';
import { Fault } from '../../journal/fault.ts';
import { comparePoints, type PointId } from '../../journal/point.ts';
import type { GroupFolder } from './group-folder.ts';
import { cutFile, removeSegmentsAbove, type JournalPosition, type JournalSegment, type RecoveredJournal } from './journal-recovery.ts';
import { emptyChain, type Chain } from './record-order-plan.ts';
import { encodeSegmentHeader, encodeWitness, segmentHeaderBytes, witnessAt } from './segment-header.ts';
import { errorCode, storeFault } from './store-fault.ts';

/** Bytes gathered for one write. Larger writes are no faster (style.md: 1 MiB and up), and this bounds what one failure loses. */
const gatherBytes = 4 * 1024 * 1024;

export interface JournalOptions {
  readonly disk: Disk;
  readonly folder: GroupFolder;
  readonly groupId: string;
  readonly segmentBytes: number;
  /** Ingest stops before less than this is free. */
  readonly freeBytesMin: number;
  /** Called at once when a failure loses appended records: the chain is back at `durable`. */
  onLost(fault: Fault): void;
}

/** Where an appended record lies. */
export interface Appended { readonly start: JournalPosition; readonly end: JournalPosition }

interface PendingRecord {
  readonly bytes: Buffer;
  readonly chain: Chain;
  /** A part or a seal: synced before it resolves. */
  readonly isBoundary: boolean;
  resolve(at: Appended): void;
  reject(fault: unknown): void;
}

interface PendingTask { run(): Promise<void>; resolve(): void; reject(error: unknown): void }

export class Journal {
  readonly #o: JournalOptions;
  #segments: JournalSegment[];
  #file: DiskFile | null = null;
  /** Where the next record goes, and the chain there. */
  #position: JournalPosition;
  #chain: Chain;
  #durable: { readonly position: JournalPosition; readonly chain: Chain };
  /** Set while what is behind `#durable` must be cut off before anything is written. */
  #mustCut = false;
  #mustBeginSegment = false;
  #records: PendingRecord[] = [];
  #tasks: PendingTask[] = [];
  #isPumping = false;

  constructor(options: JournalOptions, recovered: RecoveredJournal) {
    this.#o = options;
    this.#segments = [...recovered.segments];
    this.#position = recovered.end;
    this.#chain = recovered.chain;
    this.#durable = { position: recovered.end, chain: recovered.chain };
    this.#mustBeginSegment = recovered.segments.length === 0;
  }

  /** The chain at the last durable part or seal. */
  get durable(): Chain { return this.#durable.chain; }

  get end(): JournalPosition { return this.#durable.position; }

  /** Bytes that the segments take, as preallocated. */
  get bytes(): number { return this.#segments.length * this.#o.segmentBytes; }

  segments(): readonly JournalSegment[] { return this.#segments; }

  /**
   * Appends one record, after which the chain stands at `chain`. Resolves when it is written, for a part or seal when it is
   * durable. Faults: STORE_FULL, STORE_SYNC; then all records behind the last durable part or seal are lost.
   */
  append(bytes: Buffer, chain: Chain, isBoundary: boolean): Promise<Appended> {
    return new Promise((resolve, reject) => {
      this.#records.push({ bytes, chain, isBoundary, resolve, reject });
      void this.#pump();
    });
  }

  /** Cuts off what follows the last durable part or seal. Records that are still queued are lost with it. */
  cut(reason: Fault): Promise<void> {
    this.#lose(reason);
    return this.#task(async () => {
      this.#mustCut = this.#mustCut || this.#position.segment !== this.#durable.position.segment || this.#position.at !== this.#durable.position.at;
      await this.#cutIfNeeded();
    });
  }

  /** Forgets everything: the first sync begins anew and nothing was ever sealed. */
  reset(): Promise<void> {
    return this.#task(async () => {
      await this.#closeFile();
      await removeSegmentsAbove(this.#o.disk, this.#o.folder, this.#segments.map(({ number }) => number), 0);
      this.#segments = [];
      this.#position = { segment: 0, at: 0 };
      this.#chain = emptyChain;
      this.#durable = { position: this.#position, chain: emptyChain };
      this.#mustCut = false;
      this.#mustBeginSegment = true;
    });
  }

  /**
   * Removes segments that hold nothing newer than `limit()` (null: none), oldest first, as long as `keepBytes` stay. Asked anew
   * for each, and with no await before `onTrimmed` hears which segment is the first now. Returns whether any went.
   */
  trim(limit: () => PointId | null, keepBytes: number, onTrimmed: (first: number) => void): Promise<boolean> {
    let isTrimmed = false;
    return this.#task(async () => {
      for (;;) {
        const second = this.#segments[1];
        if (second === undefined || this.bytes - this.#o.segmentBytes < keepBytes) return;
        const latest = second.start.open ?? second.start.newest;
        const mark = limit();
        if (mark === null || (latest !== null && comparePoints(latest, mark) > 0)) return;
        onTrimmed(second.number);
        await this.#o.disk.remove(this.#o.folder.segment(this.#segments[0]!.number));
        this.#segments.shift();
        isTrimmed = true;
      }
    }).then(() => isTrimmed);
  }

  async close(): Promise<void> {
    await this.#task(() => this.#closeFile());
  }

  #task(run: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#tasks.push({ run, resolve, reject });
      void this.#pump();
    });
  }

  async #pump(): Promise<void> {
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      for (;;) {
        const task = this.#tasks.shift();
        if (task !== undefined) {
          await task.run().then(task.resolve, task.reject);
        } else if (this.#records.length > 0) {
          await this.#writeSome();
        } else {
          return;
        }
      }
    } finally {
      this.#isPumping = false;
    }
  }

  /** Writes records from the front of the queue up to a part or seal, to the end of the segment, or to what one write takes. */
  async #writeSome(): Promise<void> {
    let taken: readonly PendingRecord[] = [];
    try {
      await this.#cutIfNeeded();
      const first = this.#records[0];
      if (first === undefined) return;
      if (this.#mustBeginSegment || this.#position.at + first.bytes.length > this.#o.segmentBytes) await this.#beginSegment();
      taken = this.#take();
      const file = await this.#open();
      const start = this.#position;
      await file.writeMany(taken.map(({ bytes }) => bytes), start.at);
      let at = start.at;
      const spans = taken.map(({ bytes }) => {
        const from = { segment: start.segment, at };
        at += bytes.length;
        return { start: from, end: { segment: start.segment, at } };
      });
      this.#position = { segment: start.segment, at };
      const last = taken.at(-1);
      if (last === undefined) return;
      this.#chain = last.chain;
      if (last.isBoundary) {
        await file.sync();
        this.#durable = { position: this.#position, chain: this.#chain };
        await this.#witness(file);
      }
      for (const [index, record] of taken.entries()) record.resolve(spans[index]!);
    } catch (error) {
      this.#fail(error, taken);
    }
  }

  #take(): readonly PendingRecord[] {
    let count = 0;
    let bytes = 0;
    for (const record of this.#records) {
      if (count > 0 && (bytes + record.bytes.length > gatherBytes || this.#position.at + bytes + record.bytes.length > this.#o.segmentBytes)) break;
      bytes += record.bytes.length;
      count++;
      if (record.isBoundary) break;
    }
    return this.#records.splice(0, count);
  }

  /** Not synced by itself: it lands with the next sync or when the system gets to it, and its absence only says less. */
  async #witness(file: DiskFile): Promise<void> {
    const { segment, at } = this.#durable.position;
    try {
      await file.write(encodeWitness(this.#o.groupId, segment, at), witnessAt);
    } catch (error) {
      if (errorCode(error) === null) throw error;
      this.#mustBeginSegment = true;
    }
  }

  #fail(error: unknown, taken: readonly PendingRecord[]): void {
    let fault: unknown = error;
    try {
      fault = storeFault(error, `journal ${this.#o.folder.journal}`);
    } catch (bug) {
      fault = bug;
    }
    this.#mustCut = true;
    // A full disk leaves a sound segment behind; any other failure leaves one whose pages the system may have given up.
    if (!(fault instanceof Fault && fault.code === 'STORE_FULL')) this.#mustBeginSegment = true;
    for (const record of taken) record.reject(fault);
    const reason = fault instanceof Fault ? fault : new Fault('STORE_SYNC', String(fault), {}, fault);
    this.#lose(reason);
    this.#o.onLost(reason);
    // Bytes of a failed write must not be read back as if they were there: not by this process and not by the next.
    void this.#task(() => this.#cutIfNeeded()).catch((again: unknown) => { if (errorCode(again) === null) throw again; });
  }

  #lose(fault: Fault): void {
    const lost = this.#records;
    this.#records = [];
    for (const record of lost) record.reject(fault);
  }

  async #cutIfNeeded(): Promise<void> {
    if (!this.#mustCut) return;
    const { position, chain } = this.#durable;
    await this.#closeFile();
    const numbers = this.#segments.map(({ number }) => number);
    // One more than is known: a segment whose beginning failed may be there.
    await removeSegmentsAbove(this.#o.disk, this.#o.folder, [...numbers, this.#nextNumber()], position.segment);
    this.#segments = this.#segments.filter(({ number }) => number <= position.segment);
    if (position.segment > 0) {
      const file = await this.#o.disk.open(this.#o.folder.segment(position.segment), 'readWrite');
      this.#file = file;
      await cutFile(file, position.at, this.#o.segmentBytes);
    } else {
      this.#mustBeginSegment = true;
    }
    this.#position = position;
    this.#chain = chain;
    this.#mustCut = false;
  }

  /** The old segment is durable to its end before the new one says where that is; the new one's header before any record. */
  async #beginSegment(): Promise<void> {
    const { disk, folder, groupId, segmentBytes, freeBytesMin } = this.#o;
    const free = await disk.freeBytes(folder.journal);
    if (free < freeBytesMin + segmentBytes) {
      throw new Fault('STORE_FULL', `${free} bytes are free, a new segment must leave ${freeBytesMin} of them`, { freeBytes: free, freeBytesMin });
    }
    if (this.#position.segment > 0 && !this.#isDurableHere()) await (await this.#open()).sync();
    await this.#closeFile();
    const number = this.#nextNumber();
    const file = await disk.open(folder.segment(number), 'create');
    try {
      await file.preallocate(segmentBytes);
      await file.write(encodeSegmentHeader({ groupId, number, previousEnd: this.#position.at, chain: this.#chain }), 0);
      await file.sync();
      await disk.syncFolder(folder.journal);
    } catch (error) {
      await file.close();
      this.#mustCut = true;
      throw error;
    }
    this.#file = file;
    this.#segments.push({ number, start: this.#chain });
    this.#position = { segment: number, at: segmentHeaderBytes };
    if (this.#durable.chain === this.#chain) this.#durable = { position: this.#position, chain: this.#chain };
    this.#mustBeginSegment = false;
  }

  #isDurableHere(): boolean {
    return this.#durable.position.segment === this.#position.segment && this.#durable.position.at === this.#position.at;
  }

  #nextNumber(): number {
    return (this.#segments.at(-1)?.number ?? 0) + 1;
  }

  async #open(): Promise<DiskFile> {
    assert(this.#position.segment > 0, 'a segment has begun');
    this.#file ??= await this.#o.disk.open(this.#o.folder.segment(this.#position.segment), 'readWrite');
    return this.#file;
  }

  async #closeFile(): Promise<void> {
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }
}
