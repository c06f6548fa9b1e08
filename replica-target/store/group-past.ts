/**
 * What is done about a group's past when its replica has moved on: the journal is trimmed as far as retention and pins allow, and
 * retention is told. It decides neither what is kept nor what a point needs.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import { Fault } from '../../journal/fault.ts';
import { comparePoints, type PointId } from '../../journal/point.ts';
import type { FileGroupPoints } from '../points/group-points.ts';
import { LockedFiles } from '../points/locked-files.ts';
import { planLockedFiles, type LockedNeed } from '../points/locked-files-plan.ts';
import type { HistorySet } from '../points/history-set.ts';
import { Retention } from '../points/retention.ts';
import { GroupSuspicion, type SuspicionFlag } from '../suspicion/group-suspicion.ts';
import type { AppliedBatch } from './applier.ts';
import type { Catalog } from './catalog.ts';
import type { GroupFolder } from './group-folder.ts';
import { journalFloor } from './group-opening.ts';
import type { Journal } from './journal.ts';
import type { SpaceWatch } from './space-watch.ts';
import type { GroupStoreReport } from './store.ts';
import { storeFault } from './store-fault.ts';
import type { StoreOptions } from './store-options.ts';

export interface GroupPastOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly log: Logger | null;
  readonly options: StoreOptions;
  readonly folder: GroupFolder;
  readonly groupId: string;
  readonly name: () => string;
  readonly journal: Journal;
  readonly catalog: Catalog;
  readonly history: HistorySet;
  readonly points: FileGroupPoints;
  readonly space: SpaceWatch;
  /** The newest sealed point. */
  readonly newest: () => PointId | null;
}

export class GroupPast {
  /** Null without a policy: then nothing of the history is ever given up. */
  readonly retention: Retention | null;
  /** Null: what the group changes is not looked at. */
  readonly suspicion: GroupSuspicion | null;
  readonly #o: GroupPastOptions;
  readonly #files: LockedFiles;

  constructor(o: GroupPastOptions) {
    this.#o = o;
    this.#files = new LockedFiles({ disk: o.disk, folder: o.folder, locks: o.points.locks, log: o.log });
    o.points.onLocked = () => this.locked();
    const { retentionOf, freeBytesMin, segmentBytes } = o.options;
    o.history.listen({ replaced: (removed, merged) => o.catalog.replaceHistory(removed, merged, this.#floor()) });
    this.retention = retentionOf === null ? null : new Retention({
      ...o, pins: o.points.pins, locks: o.points.locks, lookAtLocks: () => this.#lookAtLocks(), onLooked: (points) => this.#attribute(points), policy: () => retentionOf(o.name()),
      journalBytes: () => o.journal.bytes,
      // Ingest stops one segment before the minimum; what can be given up is given up before that.
      sparedBytes: async () => await o.disk.freeBytes(o.folder.history) - freeBytesMin - 2 * segmentBytes,
      trimJournal: () => this.#trim(),
      onFull: (fault) => o.space.overLimit(fault),
    });
    const { suspicion } = o.options;
    this.suspicion = suspicion === null ? null : new GroupSuspicion({
      ...o, policy: () => suspicion.of(o.name()), restorable: async () => (await o.catalog.points()).filter((point) => o.points.pins.isRestorable(point)),
      hold: (point, reason, untilMs) => o.points.hold(point, reason, untilMs), release: (holdId) => o.points.release(holdId),
    });
    o.points.suspicion = this.suspicion;
    o.points.keptBy = (point) => this.retention?.keptBy(point) ?? 'all';
  }

  /** Before anything is taken: what arrives from here on is locked as the policy says, also while a full disk keeps that from being noted: the group must open for a failover. */
  async begin(): Promise<void> {
    await this.#lookAtLocks();
    await this.suspicion?.load();
    this.retention?.start();
  }

  /** After a batch. What fails is said and tried again after the next one. */
  async applied({ points, changes }: Pick<AppliedBatch, 'points' | 'changes'>): Promise<void> {
    // First: a point from before is held as long as it is there.
    await this.suspicion?.applied(points, changes);
    try {
      await this.#trim();
    } catch (error) {
      this.#o.log?.warn({ group: this.#o.name(), err: storeFault(error, 'trimming') }, 'the journal could not be trimmed; it is tried again after the next batch');
    }
    this.retention?.grown();
  }

  #lockMs(): number | null {
    return this.#o.options.retentionOf?.(this.#o.name()).lockMs ?? null;
  }

  /** What cannot be noted stays locked, and is noted the next time: a full disk must not keep retention from making room. */
  async #lookAtLocks(): Promise<void> {
    try {
      await this.#o.points.locks.look(this.#lockMs(), this.#o.newest(), this.#o.points.pins.hasLocks);
    } catch (error) {
      this.#o.log?.warn({ group: this.#o.name(), err: storeFault(error, `writing ${this.#o.folder.locks}`) }, 'what time has passed for locks could not be noted');
    }
  }

  /** A lock was made: its files are seen to now, not at the next pace. */
  locked(): void {
    this.retention?.wake();
  }

  /** What the report says of locks; nothing when there are none. */
  lockReport(): Pick<GroupStoreReport, 'locked'> {
    const lockedForMs = this.#o.points.pins.longestLockMs(this.#o.newest());
    return lockedForMs === 0 ? {} : { locked: { untilMs: this.#o.clock.nowMs() + lockedForMs, isImmutable: this.#files.isImmutable } };
  }

  /** `points`: those that can be restored. A file that cannot be seen to now is at the next look. */
  async #attribute(restorable: readonly PointId[]): Promise<void> {
    const { journal, history, points: { pins, locks, places }, folder, log } = this.#o;
    const after = locks.lockedAfter();
    const byPolicy = after === undefined ? [] : restorable.filter((point) => after === null || comparePoints(point, after) > 0);
    const inside = byPolicy.find((point) => history.indexOf(point) === null);
    const needs: LockedNeed[] = pins.lockedPins().map(({ boundary, deltas }) => ({ boundary, segment: deltas[0]?.start?.segment ?? null }));
    for (const point of [byPolicy[0], inside]) {
      const boundary = point === undefined ? undefined : history.boundaryAtOrBefore(point);
      if (point === undefined || boundary === undefined) continue;
      needs.push({ boundary, segment: point === inside ? places.between(boundary, point)?.[0]?.start?.segment ?? null : null });
    }
    try {
      await this.#files.bring(planLockedFiles({
        needs, history: history.files, applied: history.applied, segments: journal.segments().map(({ number }) => number), durableSegment: journal.end.segment,
      }));
    } catch (error) {
      log?.warn({ err: storeFault(error, `making locked files of ${folder.path} immutable`) }, 'the attribute of locked files could not be changed; it is tried again soon');
    }
  }

  /** Faults: REQUEST_INVALID, STORE_FULL, STORE_SYNC. */
  async dismiss(): Promise<SuspicionFlag> {
    if (this.suspicion === null) throw new Fault('REQUEST_INVALID', `what ${this.#o.name()} changes is not looked at`, { group: this.#o.name() });
    try {
      return await this.suspicion.dismiss();
    } catch (error) {
      throw storeFault(error, 'dismissing a suspicion');
    }
  }

  async close(): Promise<void> {
    await this.retention?.stop();
    await this.suspicion?.close();
  }

  async #trim(): Promise<void> {
    const { journal, history, points: { pins, places }, options, catalog } = this.#o;
    const { applied } = history;
    if (applied === null) return;
    const limit = (): PointId | null => {
      const [pinned, promised] = [pins.trimLimit(applied), this.retention === null ? applied : this.retention.journalLimit(applied)];
      return pinned === null || promised === null ? null : comparePoints(pinned, promised) < 0 ? pinned : promised;
    };
    if (!(await journal.trim(limit, this.retention === null ? options.journalKeepBytes : 0, (first) => places.trimmed(first)))) return;
    const floor = this.#floor();
    if (floor !== null) catalog.thin(floor);
  }

  #floor(): PointId | null {
    return journalFloor({ segments: this.#o.journal.segments() });
  }
}
