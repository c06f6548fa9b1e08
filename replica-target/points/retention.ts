/**
 * Carries out what retention-plan.ts decides for one group, one step after the other, beside ingest and applier: merges and drops
 * history files, tells how far the journal may be trimmed, and holds the source off when what is promised fills the space. It
 * decides nothing itself. Killed at any moment it has lost nothing: a merged file counts from the moment it bears its name.
 */
import assert from 'node:assert/strict';
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { comparePoints, formatPoint, type PointId } from '../../journal/point.ts';
import type { Catalog } from '../store/catalog.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import { storeFault } from '../store/store-fault.ts';
import type { GroupLocks } from './group-locks.ts';
import { mergedAtOnce, mergeHistory } from './history-merge.ts';
import type { HistoryFile, HistorySet } from './history-set.ts';
import type { PointHolds } from './holds.ts';
import { planRetention, pointKey, type KeptBy, type RetentionPlan, type RetentionPolicy, type RetentionStep } from './retention-plan.ts';

/** Pace of looking, ms. What leaves the window does so hour by hour; what the budget needs is soon enough within a minute. */
const paceMs = 60_000;
/** While nothing more can be taken, ms. */
const fullPaceMs = 2_000;

export interface RetentionOptions {
  readonly disk: Disk;
  readonly folder: GroupFolder;
  readonly groupId: string;
  readonly clock: Clock;
  readonly log: Logger | null;
  readonly name: () => string;
  readonly policy: () => RetentionPolicy;
  readonly history: HistorySet;
  readonly pins: PointHolds;
  readonly locks: GroupLocks;
  /** Brings locks up to now and to the policy. Rejects with nothing. */
  readonly lookAtLocks: () => Promise<void>;
  /** With what the newest plan keeps. */
  readonly onLooked: (points: readonly PointId[]) => Promise<void>;
  readonly catalog: Catalog;
  readonly journalBytes: () => number;
  /** What the volume has beyond what must stay free, bytes; negative when it is too little. */
  readonly sparedBytes: () => Promise<number>;
  /** Trims the journal as far as {@link Retention.journalLimit} and the pins allow. */
  readonly trimJournal: () => Promise<void>;
  /** The fault while nothing may be taken; null when that is over. */
  readonly onFull: (fault: Fault | null) => void;
}

export interface RetentionReport extends RetentionPolicy {
  /** Protected time that the window has; less than is promised while the group is young, or when points were lost. */
  readonly windowHadMs: number;
  readonly usedBytes: number;
  /** What journal and history may take now; null: no bound is near. */
  readonly limitBytes: number | null;
  readonly space: RetentionPlan<HistoryFile>['space'];
}

export class Retention {
  readonly #o: RetentionOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  /** One at a time. Never rejects. */
  #settling: Promise<void> = Promise.resolve();
  #wake: () => void = () => undefined;
  #plan: RetentionPlan<HistoryFile> | null = null;
  #points: readonly PointId[] = [];
  #limitBytes: number | null = null;
  /** At the last look. */
  #isOver = false;
  #isFull = false;
  #lookedMs = 0;
  #told: string | null = null;

  constructor(options: RetentionOptions) {
    this.#o = options;
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Something was added: past the limit it is looked at soon, not at the next pace. */
  grown(): void {
    if (this.#limitBytes !== null && this.#usedBytes() > this.#limitBytes && this.#o.clock.monotonicMs() - this.#lookedMs > fullPaceMs) this.#wake();
  }

  /** Looks now. */
  wake(): void {
    this.#wake();
  }

  /** Ends after the step under way. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error('the store is closed'));
    this.#wake();
    await this.#running;
    await this.#settling;
  }

  /** The journal of points after this is needed; null: all of it. */
  journalLimit(applied: PointId): PointId | null {
    const from = this.#plan?.journalFrom ?? null;
    return from !== null && comparePoints(from, applied) > 0 ? applied : from;
  }

  keptBy(point: PointId): KeptBy {
    return this.#plan?.keptBy.get(pointKey(point)) ?? 'all';
  }

  report(): RetentionReport {
    return { ...this.#o.policy(), windowHadMs: this.#plan?.windowHadMs ?? 0, usedBytes: this.#usedBytes(), limitBytes: this.#limitBytes, space: this.#isFull ? 'full' : this.#plan?.space ?? 'ample' };
  }

  /** Everything that the plan asks for now, after what is being done. For the loop, and for whoever cannot wait for its pace. */
  settle(): Promise<void> {
    const settled = this.#settling.then(() => this.#settle());
    this.#settling = settled.then(() => undefined, () => undefined);
    return settled;
  }

  async #settle(): Promise<void> {
    // What merging frees is known afterwards: only when nothing is left to merge, points are given up for space.
    for (let isPressed = false; !this.#stop.signal.aborted;) {
      const plan = await this.#look(isPressed);
      let hasActed = false;
      for (const step of plan.steps) {
        if (this.#stop.signal.aborted) return;
        if (await this.#do(step)) hasActed = true;
      }
      await this.#o.trimJournal();
      if (hasActed) continue;
      if (isPressed || !this.#isOver) break;
      isPressed = true;
    }
    await this.#o.onLooked(this.#points);
    this.#tell();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await this.settle();
        this.#told = null;
      } catch (error) {
        const fault = isFault(error) ? error : storeFault(error, `thinning the history of ${this.#o.name()}`);
        // The same trouble is met again every minute.
        if (this.#told !== fault.code) this.#o.log?.error({ group: this.#o.name(), code: fault.code, facts: fault.facts }, fault.message);
        this.#told = fault.code;
      }
      const woken = new Promise<void>((resolve) => { this.#wake = resolve; });
      const paused = new AbortController();
      const stop = (): void => paused.abort(signal.reason);
      signal.addEventListener('abort', stop, { once: true });
      if (signal.aborted) return;
      await Promise.race([woken, this.#o.clock.delay(this.#isFull ? fullPaceMs : paceMs, paused.signal).catch((error: unknown) => { if (!paused.signal.aborted) throw error; })]);
      signal.removeEventListener('abort', stop);
      paused.abort(new Error('no longer waiting'));
    }
  }

  async #look(isPressed: boolean): Promise<RetentionPlan<HistoryFile>> {
    const { history, pins, catalog, sparedBytes } = this.#o;
    const policy = this.#o.policy();
    await this.#o.lookAtLocks();
    this.#lookedMs = this.#o.clock.monotonicMs();
    const facts = await catalog.mapPoints(({ term, point, kind, label, arrivedAtMs }) => ({ term, point, kind, label, arrivedAtMs }));
    const spared = await sparedBytes();
    const usedBytes = this.#usedBytes();
    // From here on nothing is awaited: the plan is of one moment.
    const { applied } = history;
    pins.expire();
    const pinned = pins.pinnedPoints();
    const files = history.files.filter(({ to }) => applied !== null && comparePoints(to, applied) <= 0);
    const points = facts.filter((point) => pins.isRestorable(point)).map((point) => ({ ...point, isPinned: pinned.has(pointKey(point)) }));
    const volumeBytes = Math.max(0, usedBytes + spared);
    this.#limitBytes = policy.budgetBytes === null ? volumeBytes : Math.min(policy.budgetBytes, volumeBytes);
    this.#isOver = usedBytes > this.#limitBytes;
    this.#plan = planRetention(policy, { points, files, applied, usedBytes, limitBytes: this.#limitBytes, isPressed, lockedAfter: this.#o.locks.lockedAfter() });
    this.#points = points;
    return this.#plan;
  }

  /** Whether anything changed: what was pinned or replaced meanwhile is left to the next plan. */
  async #do({ step, files }: RetentionStep<HistoryFile>): Promise<boolean> {
    const { history, log } = this.#o;
    const first = files[0]!;
    const last = files.at(-1)!;
    if (step === 'drop') {
      if (!(await history.replace(files, null))) return false;
      log?.info({ group: this.#o.name(), upTo: formatPoint(last.to), files: files.length }, `points of ${this.#o.name()} before ${formatPoint(last.to)} were given up`);
      return true;
    }
    let hasActed = false;
    // So many at once; what comes of it is merged in the next round.
    for (let at = 0, count = 0; at + 1 < files.length && !this.#stop.signal.aborted; at += count) {
      count = mergedAtOnce(files, at);
      const some = files.slice(at, at + count);
      if (some.length < 2) continue;
      const stay = history.leave(some);
      if (stay === null) continue;
      try {
        const { file } = await mergeHistory(this.#o, some);
        const isReplaced = await history.replace(some, file);
        assert(isReplaced, 'nobody pins what leaves, and nobody else replaces');
        hasActed = true;
      } finally {
        stay();
      }
    }
    if (hasActed) log?.debug({ group: this.#o.name(), from: first.name, to: last.name, files: files.length }, 'history was thinned');
    return hasActed;
  }

  #usedBytes(): number {
    return this.#o.journalBytes() + this.#o.history.totalBytes;
  }

  /** After all that can be given up was: whether what is promised fits. */
  #tell(): void {
    const { onFull, name } = this.#o;
    // Steps that are left are refused: a pinned point keeps what they would take away.
    const isFull = this.#isOver && this.#usedBytes() > (this.#limitBytes ?? Infinity);
    if (isFull) {
      const facts = { group: name(), usedBytes: this.#usedBytes(), limitBytes: this.#limitBytes };
      onFull(new Fault('RETENTION_FULL', `journal and history of ${name()} take ${facts.usedBytes} bytes, ${facts.limitBytes} are allowed, and all of it is promised or held`, facts));
    } else if (this.#isFull) onFull(null);
    this.#isFull = isFull;
  }
}
