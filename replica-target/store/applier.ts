/**
 * Brings the replica forward, batch by batch of sealed points, and is the only one that does. The order is the promise:
 * before-images into a history file, durable; then the replica, durable; then the mark; then the journal may be trimmed. A
 * batch that failed in between, by a full disk or by the end of the process, is done again over exactly the same range, and its
 * before-images are not read a second time once the replica may have been touched.
 */
import type { Clock } from '../../host/clock.ts';
import type { Disk, DiskFile } from '../../host/disk.ts';
import type { Extent } from '../../journal/extents.ts';
import type { Fault } from '../../journal/fault.ts';
import { runBytesMax, zeroRunBytesMax } from '../../journal/limits.ts';
import { comparePoints, formatPoint, isSamePoint, type PointId } from '../../journal/point.ts';
import { readRecord } from '../../journal/record.ts';
import { ApplyPlan, type DiskPlan } from './apply-plan.ts';
import { BoundedTasks } from './bounded-tasks.ts';
import type { PointFacts } from './catalog.ts';
import { DataRanges } from './data-ranges.ts';
import type { GroupFolder } from './group-folder.ts';
import { writeMark, type AppliedMark } from './group-facts.ts';
import { HistoryWriter } from './history-writer.ts';
import { JournalSource } from './journal-source.ts';
import { readSegmentHeader, type JournalPosition, type SealedDelta } from './journal-recovery.ts';
import { runBytes } from './record-payload.ts';
import type { Replica } from './replica.ts';
import { segmentHeaderBytes } from './segment-header.ts';
import { makeWindow, SegmentReader } from './segment-reader.ts';
import { corrupt, storeFault } from './store-fault.ts';

/** Writes to the replica that are under way at once (style.md: two to four in flight are fastest). */
const writesInFlight = 4;
/** Pause before a failed batch is tried again, growing, ms. */
const retryMsMin = 250;
const retryMsMax = 10_000;

/** A sealed delta that waits to be applied. */
export interface PendingDelta extends SealedDelta { readonly facts: PointFacts }

export interface AppliedBatch {
  readonly from: PointId | null;
  readonly to: PointId;
  readonly points: readonly PointFacts[];
  readonly history: { readonly name: string; readonly sizeBytes: number };
}

export interface ApplierOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly folder: GroupFolder;
  readonly groupId: string;
  readonly replica: Replica;
  readonly segmentBytes: number;
  /** Changed bytes of a batch; a single point may have more. */
  readonly batchBytes: number;
  /** Applies only what `applyAll` or `drain` ask for. */
  readonly isStalled: boolean;
  /** After each batch, when its mark is durable. It must not throw for what a disk does. */
  onApplied(batch: AppliedBatch): Promise<void>;
  /** A batch failed (the fault) or went through again (null). */
  onTrouble(fault: Fault | null): void;
}

interface Batch {
  readonly deltas: readonly PendingDelta[];
  readonly to: PointId;
  /** Its history file is sealed: the replica may have been touched. */
  sealed: { readonly name: string; readonly sizeBytes: number } | null;
}

interface Waiter { readonly upTo: PointId; resolve(): void; reject(fault: unknown): void }

export class Applier {
  readonly #o: ApplierOptions;
  #mark: AppliedMark;
  #pending: PendingDelta[];
  #batch: Batch | null = null;
  #waiters: Waiter[] = [];
  #isPaused = false;
  #isStopped = false;
  #running: Promise<void> | null = null;
  readonly #stopping = new AbortController();
  #retryMs = retryMsMin;

  /** `redo`: the sealed history file that starts at the mark, when there is one. */
  constructor(options: ApplierOptions, mark: AppliedMark, pending: readonly PendingDelta[], redo: { readonly to: PointId; readonly name: string; readonly sizeBytes: number } | null) {
    this.#o = options;
    this.#mark = mark;
    this.#pending = [...pending];
    if (redo === null) return;
    const count = pending.findIndex(({ id }) => isSamePoint(id, redo.to)) + 1;
    if (count === 0) throw corrupt(options.folder.undo(redo.name), 0, `the journal does not hold point ${formatPoint(redo.to)}, up to which the replica may have been written`);
    this.#batch = { deltas: pending.slice(0, count), to: redo.to, sealed: { name: redo.name, sizeBytes: redo.sizeBytes } };
  }

  get applied(): PointId | null { return this.#mark.applied; }
  get mark(): AppliedMark { return this.#mark; }
  get pendingCount(): number { return this.#pending.length; }

  start(): void {
    this.#wake();
  }

  push(delta: PendingDelta): void {
    this.#pending.push(delta);
    this.#wake();
  }

  /** A first sync has ended: the images are as they stand. */
  async seeded(disks: AppliedMark['disks']): Promise<void> {
    const mark: AppliedMark = { applied: null, disks };
    await writeMark(this.#o.disk, this.#o.folder, mark);
    this.#mark = mark;
  }

  /** Resolves when all points that are sealed now are applied. Rejects with the fault of the first batch that fails. */
  applyAll(): Promise<void> {
    const last = this.#pending.at(-1);
    if (last === undefined) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ upTo: last.id, resolve, reject });
      this.#hurry();
      this.#wake();
    });
  }

  /** Applies nothing more, once what is under way is done. */
  async pause(): Promise<void> {
    this.#isPaused = true;
    await this.#running;
  }

  resume(): void {
    this.#isPaused = false;
    this.#wake();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#stopping.abort(new Error('the applier stops'));
    await this.#running;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(storeFault(Object.assign(new Error('the store is closed'), { code: 'ECANCELED' }), 'apply'));
  }

  #hurry: () => void = () => undefined;

  #wake(): void {
    if (this.#running !== null || !this.#mayWork()) return;
    this.#running = this.#run().finally(() => {
      this.#running = null;
      if (this.#mayWork()) this.#wake();
    });
  }

  #mayWork(): boolean {
    if (this.#isStopped || this.#pending.length === 0) return false;
    return this.#waiters.length > 0 || !(this.#isPaused || (this.#o.isStalled && this.#batch === null));
  }

  async #run(): Promise<void> {
    while (this.#mayWork()) {
      try {
        await this.#applyBatch(this.#batch ??= this.#chooseBatch());
        this.#retryMs = retryMsMin;
        this.#o.onTrouble(null);
      } catch (error) {
        const fault = storeFault(error, `applying to ${this.#o.folder.replica}`);
        for (const waiter of this.#waiters.splice(0)) waiter.reject(fault);
        this.#o.onTrouble(fault);
        await this.#pauseBeforeRetry();
      }
    }
  }

  async #pauseBeforeRetry(): Promise<void> {
    const hurried = new Promise<void>((resolve) => { this.#hurry = resolve; });
    const waited = new AbortController();
    const stop = (): void => waited.abort(this.#stopping.signal.reason);
    if (this.#stopping.signal.aborted) return;
    this.#stopping.signal.addEventListener('abort', stop, { once: true });
    const delay = this.#o.clock.delay(this.#retryMs, waited.signal).catch((error: unknown) => { if (!waited.signal.aborted) throw error; });
    await Promise.race([delay, hurried]);
    this.#stopping.signal.removeEventListener('abort', stop);
    waited.abort(new Error('no longer waiting'));
    this.#retryMs = Math.min(retryMsMax, this.#retryMs * 2);
  }

  #chooseBatch(): Batch {
    let bytes = 0;
    let count = 0;
    for (const { dataBytes } of this.#pending) {
      if (count > 0 && bytes + dataBytes > this.#o.batchBytes) break;
      bytes += dataBytes;
      count++;
    }
    const deltas = this.#pending.slice(0, count);
    return { deltas, to: deltas.at(-1)!.id, sealed: null };
  }

  async #applyBatch(batch: Batch): Promise<void> {
    const { disk, folder, replica } = this.#o;
    const from = this.#mark.applied;
    const plan = await this.#plan(batch);
    const disks = plan.finish();
    batch.sealed ??= await this.#saveBeforeImages(batch, disks);
    await this.#writeReplica(plan, disks);
    await replica.sync(disks.map((one) => one.disk));
    const mark: AppliedMark = { applied: batch.to, disks: disks.map((one) => ({ disk: one.disk, sizeBytes: one.sizeAfter })) };
    await writeMark(disk, folder, mark);
    this.#mark = mark;
    this.#batch = null;
    this.#pending.splice(0, batch.deltas.length);
    const due = this.#waiters.filter(({ upTo }) => comparePoints(upTo, batch.to) <= 0);
    this.#waiters = this.#waiters.filter((waiter) => !due.includes(waiter));
    await this.#o.onApplied({ from, to: batch.to, points: batch.deltas.map(({ facts }) => facts), history: batch.sealed });
    for (const waiter of due) waiter.resolve();
  }

  /** Reads the batch's records: all are sound before anything is written. */
  async #plan(batch: Batch): Promise<ApplyPlan> {
    const { disk, folder, groupId } = this.#o;
    const plan = new ApplyPlan(this.#mark.disks);
    const window = makeWindow(this.#o.segmentBytes);
    for (const delta of batch.deltas) {
      let at: JournalPosition | null = delta.start;
      if (at === null) throw corrupt(folder.journal, 0, `the beginning of point ${formatPoint(delta.id)} is gone`);
      while (at.segment < delta.end.segment || (at.segment === delta.end.segment && at.at < delta.end.at)) {
        const end: number = at.segment === delta.end.segment ? delta.end.at : (await readSegmentHeader(disk, folder, groupId, at.segment + 1)).previousEnd;
        await this.#planRecords(plan, delta, at, end, window);
        at = at.segment === delta.end.segment ? delta.end : { segment: at.segment + 1, at: segmentHeaderBytes };
      }
      plan.endPoint(delta.seal.disks);
    }
    return plan;
  }

  async #planRecords(plan: ApplyPlan, delta: PendingDelta, from: JournalPosition, end: number, window: Buffer): Promise<void> {
    const path = this.#o.folder.segment(from.segment);
    const file = await this.#o.disk.open(path, 'read');
    try {
      const reader = new SegmentReader(file, from.at, end, window);
      while (reader.at < end) {
        const start = reader.at;
        const reading = await reader.next();
        if (!reading.ok) throw corrupt(path, start, reading.detail, { point: formatPoint(delta.id) });
        const { header, bytes } = reading.record;
        if (header.kind === 'data') plan.data(header.disk, header.offset, header.length, { segment: from.segment, at: start }, bytes.length);
        if (header.kind === 'zero') plan.zero(header.disk, header.offset, header.length);
      }
    } finally {
      await file.close();
    }
  }

  async #saveBeforeImages(batch: Batch, disks: readonly DiskPlan[]): Promise<{ name: string; sizeBytes: number }> {
    const { disk, folder, groupId, replica } = this.#o;
    const writer = await HistoryWriter.begin(disk, folder, {
      groupId, from: this.#mark.applied, to: batch.to,
      disksBefore: this.#mark.disks.map((one) => ({ ...one })),
      disksAfter: disks.map((one) => ({ disk: one.disk, sizeBytes: one.sizeAfter })),
      points: batch.deltas.map(({ facts }) => ({ ...facts })),
    });
    try {
      for (const plan of disks) {
        if (plan.sizeBefore === null || plan.sizeBefore === 0 || plan.count === 0) continue;
        const file = await replica.file(plan.disk);
        const ranges = new DataRanges(file);
        for (const [start, end] of spans(plan, plan.sizeBefore)) {
          const data = await ranges.within(start, end);
          let at = start;
          for (const range of [...data, { start: end, end }]) {
            for (; at < range.start; at += zeroRunBytesMax) await writer.zero(plan.disk, at, Math.min(zeroRunBytesMax, range.start - at));
            for (at = range.start; at < range.end; at += runBytesMax) {
              const bytes = await writer.room(Math.min(runBytesMax, range.end - at));
              bytes.fill(0, await file.read(bytes, 0, bytes.length, at));
              if (isZero(bytes)) await writer.zero(plan.disk, at, bytes.length);
              else writer.data(plan.disk, at, bytes.length);
            }
            at = range.end;
          }
        }
      }
      return await writer.seal();
    } finally {
      await writer.close();
    }
  }

  async #writeReplica(plan: ApplyPlan, disks: readonly DiskPlan[]): Promise<void> {
    const { replica } = this.#o;
    const tasks = new BoundedTasks(writesInFlight);
    try {
      for (const one of disks) {
        const file = await replica.file(one.disk);
        if (await file.sizeBytes() < one.sizeAfter) await file.truncate(one.sizeAfter);
        await this.#writeDisk(plan, one, tasks);
      }
      await tasks.drain();
    } finally {
      await tasks.settle();
    }
    for (const one of disks) await replica.resize(one.disk, one.sizeAfter);
  }

  /** In order of the journal, so that each record is read and unpacked once, however many pieces of it are left. */
  async #writeDisk(plan: ApplyPlan, one: DiskPlan, tasks: BoundedTasks): Promise<void> {
    const { replica } = this.#o;
    const file = await replica.file(one.disk);
    const order = one.inJournalOrder();
    const { places } = plan;
    const source = new JournalSource(this.#o.disk, this.#o.folder);
    try {
      let next = 0;
      while (next < order.length) {
        const { start, end, record } = one.extent(order[next]!);
        if (record < 0) {
          next++;
          const until = Math.min(end, one.sizeAfter);
          if (start < until) await tasks.add(() => replica.zero(one.disk, start, until, false));
          continue;
        }
        const pieces: Extent[] = [];
        for (; next < order.length && one.extent(order[next]!).record === record; next++) {
          const piece = one.extent(order[next]!);
          if (piece.start < one.sizeAfter) pieces.push({ start: piece.start, end: Math.min(piece.end, one.sizeAfter) });
        }
        if (pieces.length === 0) continue;
        const place = { segment: places.segment(record), at: places.at(record) };
        const { bytes, release } = await source.read(place, places.recordBytes(record));
        await tasks.add(() => this.#writePieces(file, place, bytes, pieces).finally(release));
      }
      await tasks.drain();
    } finally {
      await tasks.settle();
      await source.close();
    }
  }

  async #writePieces(file: DiskFile, place: JournalPosition, bytes: Buffer, pieces: readonly Extent[]): Promise<void> {
    const path = this.#o.folder.segment(place.segment);
    const reading = readRecord(bytes);
    if (!reading.ok) throw corrupt(path, place.at, reading.detail);
    const { header } = reading.record;
    const run = await runBytes(header, reading.record.bytes);
    if (run === null) throw corrupt(path, place.at, 'the compressed data cannot be unpacked');
    for (const piece of pieces) await file.write(run.subarray(piece.start - header.offset, piece.end - header.offset), piece.start);
  }
}

/** The plan's extents below `limit`, those that touch joined. */
function* spans(plan: DiskPlan, limit: number): Generator<[start: number, end: number]> {
  let open: [number, number] | null = null;
  for (let i = 0; i < plan.count; i++) {
    const extent = plan.extent(i);
    const end = Math.min(extent.end, limit);
    if (extent.start >= end) continue;
    if (open !== null && open[1] === extent.start) { open[1] = end; continue; }
    if (open !== null) yield open;
    open = [extent.start, end];
  }
  if (open !== null) yield open;
}

const zeroBlock = Buffer.alloc(runBytesMax);

function isZero(bytes: Buffer): boolean {
  return bytes.equals(zeroBlock.subarray(0, bytes.length));
}

