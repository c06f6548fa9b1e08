/**
 * What a batch of points changes on each disk, decided from the places of their records alone: every byte belongs to the
 * newest record that covers it, and sizes are followed from point to point (what a shrink cut off reads as zero when the disk
 * grows again). Pure: it reads no payload. Packed, because one large delta may have millions of records.
 */
import { coalesceRuns, RunList } from '../../journal/extents.ts';
import type { JournalPosition } from './journal-recovery.ts';

export interface SizedDisk { readonly disk: number; readonly sizeBytes: number }

/** Where the batch's data records lie, in order of the journal. */
export class RecordPlaces {
  #segments = new Float64Array(256);
  #ats = new Float64Array(256);
  #lengths = new Uint32Array(256);
  #count = 0;

  get count(): number { return this.#count; }
  segment(record: number): number { return this.#segments[record]!; }
  at(record: number): number { return this.#ats[record]!; }
  /** Of the record in the journal, header included. */
  recordBytes(record: number): number { return this.#lengths[record]!; }

  push(place: JournalPosition, recordBytes: number): number {
    if (this.#count === this.#ats.length) {
      this.#segments = doubled(this.#segments, new Float64Array(this.#count * 2));
      this.#ats = doubled(this.#ats, new Float64Array(this.#count * 2));
      this.#lengths = doubled(this.#lengths, new Uint32Array(this.#count * 2));
    }
    this.#segments[this.#count] = place.segment;
    this.#ats[this.#count] = place.at;
    this.#lengths[this.#count] = recordBytes;
    return this.#count++;
  }
}

/** `record`: index in {@link RecordPlaces}; -1 for zeroes. */
export interface PlannedExtent { readonly start: number; readonly end: number; readonly record: number }

export class DiskPlan {
  readonly disk: number;
  /** Null when the disk has no replica yet. */
  readonly sizeBefore: number | null;
  sizeAfter: number;
  readonly #runs = new RunList();
  readonly #records: number[] = [];
  /** Bytes at and beyond this are zero, whatever was written before. */
  #highWater: number;
  #starts = new Float64Array(0);
  #ends = new Float64Array(0);
  #extentRecords = new Int32Array(0);

  constructor(disk: number, sizeBefore: number | null) {
    this.disk = disk;
    this.sizeBefore = sizeBefore;
    this.sizeAfter = sizeBefore ?? 0;
    this.#highWater = this.sizeAfter;
  }

  get count(): number { return this.#starts.length; }
  extent(index: number): PlannedExtent {
    return { start: this.#starts[index]!, end: this.#ends[index]!, record: this.#extentRecords[index]! };
  }

  add(start: number, end: number, record: number): void {
    this.#runs.push(start, end);
    this.#records.push(record);
    this.#highWater = Math.max(this.#highWater, end);
  }

  resize(sizeBytes: number): void {
    if (sizeBytes < this.#highWater) this.add(sizeBytes, this.#highWater, -1);
    this.#highWater = sizeBytes;
    this.sizeAfter = sizeBytes;
  }

  coalesce(): void {
    const starts: number[] = [];
    const ends: number[] = [];
    const records: number[] = [];
    coalesceRuns(this.#runs, (start, end, run) => {
      const record = this.#records[run]!;
      const last = ends.length - 1;
      if (last >= 0 && ends[last] === start && records[last] === record) { ends[last] = end; return; }
      starts.push(start);
      ends.push(end);
      records.push(record);
    });
    this.#starts = Float64Array.from(starts);
    this.#ends = Float64Array.from(ends);
    this.#extentRecords = Int32Array.from(records);
  }

  /** Extents ordered by the place of their record in the journal; zeroes first. */
  inJournalOrder(): Uint32Array {
    const order = new Uint32Array(this.count);
    for (let i = 0; i < order.length; i++) order[i] = i;
    return order.sort((a, b) => this.#extentRecords[a]! - this.#extentRecords[b]! || a - b);
  }
}

export class ApplyPlan {
  readonly places = new RecordPlaces();
  readonly #disks = new Map<number, DiskPlan>();

  constructor(before: readonly SizedDisk[]) {
    for (const { disk, sizeBytes } of before) this.#disks.set(disk, new DiskPlan(disk, sizeBytes));
  }

  data(disk: number, offset: number, length: number, place: JournalPosition, recordBytes: number): void {
    this.#plan(disk).add(offset, offset + length, this.places.push(place, recordBytes));
  }

  zero(disk: number, offset: number, length: number): void {
    this.#plan(disk).add(offset, offset + length, -1);
  }

  /** A point is complete; `sizes` are those of its seal. */
  endPoint(sizes: readonly SizedDisk[]): void {
    for (const { disk, sizeBytes } of sizes) this.#plan(disk).resize(sizeBytes);
  }

  /** All disks, ascending. */
  finish(): readonly DiskPlan[] {
    const plans = [...this.#disks.values()].sort((a, b) => a.disk - b.disk);
    for (const plan of plans) plan.coalesce();
    return plans;
  }

  #plan(disk: number): DiskPlan {
    let plan = this.#disks.get(disk);
    if (plan === undefined) {
      plan = new DiskPlan(disk, null);
      this.#disks.set(disk, plan);
    }
    return plan;
  }
}

function doubled<T extends Float64Array | Uint32Array>(array: T, into: T): T {
  into.set(array);
  return into;
}
