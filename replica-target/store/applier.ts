/**
 * Brings the replica forward, batch by batch of sealed points, and is the only one that does. The order is the promise:
 * before-images into a history file, durable; then the replica, durable; then the mark; then the journal may be trimmed. A
 * batch that failed in between, by a full disk or by the end of the process, is done again over exactly the same range, and its
 * before-images are not read a second time once the replica may have been touched.
 */
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import type { Random } from '../../host/random.ts';
import { Fault } from '../../journal/fault.ts';
import { comparePoints, formatPoint, isSamePoint, type PointId } from '../../journal/point.ts';
import type { HistorySet } from '../points/history-set.ts';
import { BlockSampler } from '../suspicion/block-sampler.ts';
import type { PointChanges } from '../suspicion/point-changes.ts';
import type { PointFacts } from './catalog.ts';
import { BatchPlans } from './batch-plans.ts';
import type { GroupFolder } from './group-folder.ts';
import { writeMark, type AppliedMark } from './group-facts.ts';
import type { HistoryFacts } from './history-format.ts';
import type { SealedDelta } from './journal-recovery.ts';
import type { Replica } from './replica.ts';
import { saveBeforeImages } from './save-before-images.ts';
import { corrupt, errorCode, storeFault } from './store-fault.ts';
import type { StoreOptions } from './store-options.ts';
import { writeReplica } from './write-replica.ts';

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
  /** Of each point; null: not looked at, or the images held some of the batch already. */
  readonly changes: readonly PointChanges[] | null;
}

export interface ApplierOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly folder: GroupFolder;
  readonly groupId: string;
  readonly replica: Replica;
  /** Told of a history file before the replica is touched, and of the mark once it is durable. */
  readonly history: HistorySet;
  readonly segmentBytes: number;
  /** Of a batch; a single point may have more bytes and records. */
  readonly limits: Pick<StoreOptions, 'batchBytes' | 'batchRecords' | 'batchPoints' | 'planRecords' | 'planRegionBytes'>;
  /** Applies only what `applyAll` or `drain` ask for. */
  readonly isStalled: boolean;
  /** Draws which blocks of a batch are looked at; null: none is. */
  readonly sampling: () => Random | null;
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
  /** Writing it has begun in this process, and has not ended well. */
  isBegun: boolean;
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
    this.#batch = { deltas: pending.slice(0, count), to: redo.to, sealed: { name: redo.name, sizeBytes: redo.sizeBytes }, isBegun: false };
  }

  get applied(): PointId | null { return this.#mark.applied; }
  get mark(): AppliedMark { return this.#mark; }
  get pendingCount(): number { return this.#pending.length; }
  /** When the oldest point that is not applied arrived, wall clock, ms; null: none waits. */
  get pendingSinceMs(): number | null { return this.#pending[0]?.facts.arrivedAtMs ?? null; }

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
    this.#o.history.settle(null);
  }

  /** Resolves when all points that are sealed now are applied. Rejects with the fault of the first batch that fails. */
  applyAll(): Promise<void> {
    const last = this.#pending.at(-1);
    if (last === undefined) return Promise.resolve();
    if (this.#isStopped) return Promise.reject(storeClosed());
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
    for (const waiter of this.#waiters.splice(0)) waiter.reject(storeClosed());
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
        const fault = batchFault(error, `applying to ${this.#o.folder.replica}`);
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
    const { batchBytes, batchRecords, batchPoints } = this.#o.limits;
    let bytes = 0;
    let records = 0;
    let count = 0;
    for (const { dataBytes, seal } of this.#pending) {
      if (count > 0 && (count === batchPoints || bytes + dataBytes > batchBytes || records + seal.records > batchRecords)) break;
      bytes += dataBytes;
      records += seal.records;
      count++;
    }
    const deltas = this.#pending.slice(0, count);
    return { deltas, to: deltas.at(-1)!.id, sealed: null, isBegun: false };
  }

  async #applyBatch(batch: Batch): Promise<void> {
    const { disk, folder, replica } = this.#o;
    const from = this.#mark.applied;
    const plans = await BatchPlans.make(this.#o, this.#mark.disks, batch.deltas, this.#o.limits);
    const disksAfter = plans.disksAfter.map((one) => ({ ...one }));
    const wasSealed = batch.sealed !== null;
    batch.sealed ??= await this.#save(plans, {
      groupId: this.#o.groupId, from, to: batch.to, disksBefore: this.#mark.disks.map((one) => ({ ...one })),
      disksAfter, points: batch.deltas.map(({ facts }) => ({ ...facts })),
    });
    const isAgain = batch.isBegun;
    const random = wasSealed || isAgain ? null : this.#o.sampling();
    const sampler = random === null ? null : new BlockSampler(batch.deltas.map(({ end }) => end), random);
    batch.isBegun = true;
    for await (const { plan, disks } of plans.all()) await writeReplica(this.#o, plan, disks, isAgain, sampler);
    await replica.sync(disksAfter.map((one) => one.disk));
    const mark: AppliedMark = { applied: batch.to, disks: disksAfter, point: batch.deltas.at(-1)!.facts };
    await writeMark(disk, folder, mark);
    this.#mark = mark;
    this.#o.history.settle(batch.to);
    this.#batch = null;
    this.#pending.splice(0, batch.deltas.length);
    const due = this.#waiters.filter(({ upTo }) => comparePoints(upTo, batch.to) <= 0);
    this.#waiters = this.#waiters.filter((waiter) => !due.includes(waiter));
    try {
      await this.#o.onApplied({ from, to: batch.to, points: batch.deltas.map(({ facts }) => facts), history: batch.sealed, changes: sampler?.finish() ?? null });
    } finally {
      // Applied they are, whatever became of telling it.
      for (const waiter of due) waiter.resolve();
    }
    await this.#dropCached(batch);
  }

  /** Nobody reads what was applied in the journal any more but who recovers. */
  async #dropCached({ deltas }: Batch): Promise<void> {
    const { disk, folder } = this.#o;
    const [start, { segment: last, at: end }] = [deltas[0]!.start, deltas.at(-1)!.end];
    for (let segment = start?.segment ?? last; segment <= last; segment++) {
      const at = segment === start?.segment ? start.at : 0;
      try {
        const file = await disk.open(folder.segment(segment), 'read');
        file.dropCached?.(at, segment === last ? end - at : this.#o.segmentBytes - at);
        await file.close();
      } catch (error) {
        if (errorCode(error) === null) throw error;
      }
    }
  }

  /** From here on readers find what the replica is about to lose. */
  async #save(plans: BatchPlans, facts: HistoryFacts): Promise<{ readonly name: string; readonly sizeBytes: number }> {
    const sealed = await saveBeforeImages(this.#o, plans, facts);
    this.#o.history.add({ ...sealed, from: facts.from, to: facts.to });
    return sealed;
  }
}

/** What a disk does is named for what it is; anything else is a bug of ours, which must not end the process: other groups live in it. */
function batchFault(error: unknown, what: string): Fault {
  if (error instanceof Fault || errorCode(error) !== null) return storeFault(error, what);
  return new Fault('INTERNAL', `${what}: ${String(error)}`, {}, error);
}

function storeClosed(): Fault {
  return new Fault('STORE_SYNC', 'the store is closed: nothing more is applied');
}
