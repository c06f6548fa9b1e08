/**
 * What a batch of points changes on each disk, decided from the places of their records alone: every byte belongs to the
 * newest record that covers it, and sizes are followed from point to point (what a shrink cut off reads as zero when the disk
 * grows again). Pure: it reads no payload. Packed, because one large delta may have millions of records; a plan may be of one
 * slice of the disks alone, and forgets what later records covered as soon as there is too much: so its memory is bounded by
 * the sectors of its slice, however many records there are.
 */
import { coalesceRuns, RunList } from '../../journal/extents.ts';
import type { JournalPosition } from './journal-recovery.ts';

export interface SizedDisk { readonly disk: number; readonly sizeBytes: number }

/** A place among all disks, one behind the other. */
export interface DiskPlace { readonly disk: number; readonly offset: number }

/** All places from `from` up to, not including, `to`. */
export interface PlanSlice { readonly from: DiskPlace; readonly to: DiskPlace }

export const wholeSlice: PlanSlice = { from: { disk: 0, offset: 0 }, to: { disk: Infinity, offset: 0 } };

/** Runs after which a plan forgets what later ones covered. */
const compactAtRuns = 1024 * 1024;

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
  readonly #low: number;
  readonly #high: number;
  #runs = new RunList();
  #records: number[] = [];
  /** Bytes at and beyond this are zero, whatever was written before. */
  #highWater: number;
  #starts = new Float64Array(0);
  #ends = new Float64Array(0);
  #extentRecords = new Int32Array(0);

  constructor(disk: number, sizeBefore: number | null, { from, to }: PlanSlice = wholeSlice) {
    this.#low = disk < from.disk ? Infinity : disk === from.disk ? from.offset : 0;
    this.#high = disk < to.disk ? Infinity : disk === to.disk ? to.offset : 0;
    this.disk = disk;
    this.sizeBefore = sizeBefore;
    this.sizeAfter = sizeBefore ?? 0;
    this.#highWater = this.sizeAfter;
  }

  get count(): number { return this.#starts.length; }
  extent(index: number): PlannedExtent {
    return { start: this.#starts[index]!, end: this.#ends[index]!, record: this.#extentRecords[index]! };
  }

  get runCount(): number { return this.#runs.count; }

  covers(start: number, end: number): boolean {
    return Math.max(start, this.#low) < Math.min(end, this.#high);
  }

  add(start: number, end: number, record: number): void {
    this.#highWater = Math.max(this.#highWater, end);
    if (!this.covers(start, end)) return;
    this.#runs.push(Math.max(start, this.#low), Math.min(end, this.#high));
    this.#records.push(record);
  }

  resize(sizeBytes: number): void {
    if (sizeBytes < this.#highWater) this.add(sizeBytes, this.#highWater, -1);
    this.#highWater = sizeBytes;
    this.sizeAfter = sizeBytes;
  }

  /** Forgets what later runs covered. */
  compact(): void {
    this.coalesce();
    const runs = new RunList();
    const records: number[] = [];
    for (let i = 0; i < this.count; i++) {
      const { start, end, record } = this.extent(i);
      runs.push(start, end);
      records.push(record);
    }
    this.#runs = runs;
    this.#records = records;
  }

  /** Whether the byte at `offset` is written with data; after coalescing. */
  writes(offset: number): boolean {
    let [low, high] = [0, this.count];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ends[middle]! <= offset) low = middle + 1;
      else high = middle;
    }
    return low < this.count && this.#starts[low]! <= offset && this.#extentRecords[low]! >= 0;
  }

  markUsed(used: Uint8Array): void {
    for (const record of this.#records) if (record >= 0) used[record] = 1;
  }

  renumber(numbers: Int32Array): void {
    this.#records = this.#records.map((record) => (record < 0 ? record : numbers[record]!));
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
  readonly #slice: PlanSlice;
  readonly #compactAtRuns: number;
  readonly #disks = new Map<number, DiskPlan>();
  #places = new RecordPlaces();
  #compactNextAt: number;
  #sinceCounted = 0;

  constructor(before: readonly SizedDisk[], slice: PlanSlice = wholeSlice, compactAt: number = compactAtRuns) {
    this.#slice = slice;
    this.#compactAtRuns = compactAt;
    this.#compactNextAt = compactAt;
    for (const { disk, sizeBytes } of before) this.#disks.set(disk, new DiskPlan(disk, sizeBytes, slice));
  }

  get places(): RecordPlaces { return this.#places; }

  data(disk: number, offset: number, length: number, place: JournalPosition, recordBytes: number): void {
    const plan = this.#plan(disk);
    plan.add(offset, offset + length, plan.covers(offset, offset + length) ? this.#places.push(place, recordBytes) : -1);
    this.#mayCompact();
  }

  zero(disk: number, offset: number, length: number): void {
    this.#plan(disk).add(offset, offset + length, -1);
    this.#mayCompact();
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

  /** The order of what is kept stays that of the journal. */
  #mayCompact(): void {
    let runs = 0;
    // Of a slice of few disks this is a short sum; it is made for one record in 1,024.
    if (this.#sinceCounted++ < Math.min(1024, this.#compactAtRuns)) return;
    this.#sinceCounted = 0;
    for (const plan of this.#disks.values()) runs += plan.runCount;
    if (runs < this.#compactNextAt) return;
    const used = new Uint8Array(this.#places.count);
    for (const plan of this.#disks.values()) {
      plan.compact();
      plan.markUsed(used);
    }
    const places = new RecordPlaces();
    const numbers = new Int32Array(used.length);
    for (let record = 0; record < used.length; record++) {
      if (used[record] === 0) continue;
      numbers[record] = places.push({ segment: this.#places.segment(record), at: this.#places.at(record) }, this.#places.recordBytes(record));
    }
    this.#places = places;
    let left = 0;
    for (const plan of this.#disks.values()) {
      plan.renumber(numbers);
      left += plan.runCount;
    }
    this.#compactNextAt = Math.max(this.#compactAtRuns, 2 * left);
  }

  #plan(disk: number): DiskPlan {
    let plan = this.#disks.get(disk);
    if (plan === undefined) {
      plan = new DiskPlan(disk, null, this.#slice);
      this.#disks.set(disk, plan);
    }
    return plan;
  }
}

function doubled<T extends Float64Array | Uint32Array>(array: T, into: T): T {
  into.set(array);
  return into;
}
