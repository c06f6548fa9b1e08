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
import type { HistorySet } from '../points/history-set.ts';
import { Retention } from '../points/retention.ts';
import { GroupSuspicion, type SuspicionFlag } from '../suspicion/group-suspicion.ts';
import type { AppliedBatch } from './applier.ts';
import type { Catalog } from './catalog.ts';
import type { GroupFolder } from './group-folder.ts';
import { journalFloor } from './group-opening.ts';
import type { Journal } from './journal.ts';
import type { SpaceWatch } from './space-watch.ts';
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
}

export class GroupPast {
  /** Null without a policy: then nothing of the history is ever given up. */
  readonly retention: Retention | null;
  /** Null: what the group changes is not looked at. */
  readonly suspicion: GroupSuspicion | null;
  readonly #o: GroupPastOptions;

  constructor(o: GroupPastOptions) {
    this.#o = o;
    const { retentionOf, freeBytesMin, segmentBytes } = o.options;
    o.history.listen({ replaced: (removed, merged) => o.catalog.replaceHistory(removed, merged, this.#floor()) });
    this.retention = retentionOf === null ? null : new Retention({
      ...o, pins: o.points.pins, policy: () => retentionOf(o.name()),
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

  async load(): Promise<void> {
    await this.suspicion?.load();
    this.retention?.start();
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
