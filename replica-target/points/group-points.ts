/**
 * One group's restore points: which there are, opening one, keeping one. Holds together the history's list, its digests, the
 * places in the journal and the holds; what a byte is, is point-view.ts's. Works the same while the group is failed over.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import type { Extent } from '../../journal/extents.ts';
import { Fault } from '../../journal/fault.ts';
import { formatPoint, isSamePoint, type PointId } from '../../journal/point.ts';
import type { SizedDisk } from '../store/apply-plan.ts';
import type { Catalog, PointFacts } from '../store/catalog.ts';
import type { AppliedMark } from '../store/group-facts.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import { storedPoint } from '../store/group-report.ts';
import { HistoryReader } from '../store/history-reader.ts';
import type { Replica } from '../store/replica.ts';
import { storeFault } from '../store/store-fault.ts';
import type { GroupSuspicion } from '../suspicion/group-suspicion.ts';
import { shownChanges } from '../suspicion/point-changes.ts';
import { GroupChecks } from './group-checks.ts';
import { GroupLocks } from './group-locks.ts';
import { HistoryDigests } from './history-digests.ts';
import { HistoryImages } from './history-images.ts';
import type { HistorySet } from './history-set.ts';
import { PointHolds, type PinnedPoint } from './holds.ts';
import { JournalOverlay } from './journal-overlay.ts';
import { HeldPointView } from './point-view.ts';
import type { DiskChanges, GroupPoints, Hold, PointView, RestorePoint } from './points.ts';
import type { KeptBy } from './retention-plan.ts';
import { SealedPlaces, type SealedPlace } from './sealed-places.ts';

export interface GroupPointsOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly folder: GroupFolder;
  readonly groupId: string;
  readonly segmentBytes: number;
  readonly log: Logger | null;
  readonly history: HistorySet;
  readonly replica: Replica;
  readonly catalog: Catalog;
  /** Of the images as they are. */
  mark(): AppliedMark;
  /** Of disks, for people. */
  nameOf(disk: number): string;
}

export class FileGroupPoints implements GroupPoints {
  readonly #o: GroupPointsOptions;
  readonly places = new SealedPlaces();
  readonly digests: HistoryDigests;
  readonly locks: GroupLocks;
  readonly pins: PointHolds;
  readonly checks: GroupChecks;
  /** Which step of the retention keeps a point; without one, all are kept. */
  keptBy: (point: PointId) => KeptBy = () => 'all';
  /** Called when a point was locked. */
  onLocked: () => void = () => undefined;
  /** Null: what points changed is not looked at. */
  suspicion: Pick<GroupSuspicion, 'changesOf' | 'isSuspect'> | null = null;
  readonly #images: HistoryImages;

  /** `sealed`: what the journal holds. */
  constructor(options: GroupPointsOptions, sealed: readonly SealedPlace[]) {
    const { disk, folder, groupId, history, log } = options;
    this.#o = options;
    for (const place of sealed) this.places.push(place);
    this.digests = new HistoryDigests({ disk, folder, groupId, history, log });
    this.locks = new GroupLocks(options);
    this.pins = new PointHolds({ ...options, locks: this.locks, places: this.places });
    this.#images = new HistoryImages(folder, history, this.digests);
    this.checks = new GroupChecks({ ...options, points: this });
  }

  /** Before anything is applied, trimmed or thinned. */
  async load(): Promise<void> {
    await this.locks.load();
    await this.pins.load();
    await this.checks.load();
    this.digests.start();
  }

  async list(): Promise<readonly RestorePoint[]> {
    const { applied } = this.#o.history;
    return (await this.#o.catalog.points()).filter((facts) => this.pins.isRestorable(facts)).map((facts) => this.#row(facts, applied));
  }

  async find(point: PointId): Promise<RestorePoint | null> {
    const facts = await this.#o.catalog.point(point);
    return facts === null || !this.pins.isRestorable(facts) ? null : this.#row(facts, this.#o.history.applied);
  }

  async open(point: PointId): Promise<PointView> {
    await this.#checkKnown(point);
    const pin = this.pins.tryPin(point);
    if (pin === null) throw unknown(point);
    try {
      return await this.#view(pin);
    } catch (error) {
      pin.release();
      throw storeFault(error, `opening point ${formatPoint(point)}`);
    }
  }

  async changedSince(since: PointId, point: PointId): Promise<readonly DiskChanges[]> {
    await this.#checkKnown(point);
    if (isSamePoint(since, point)) return [];
    const { history, disk, folder, groupId, segmentBytes } = this.#o;
    const deltas = this.places.between(since, point);
    // What the newer point needs of the journal stays meanwhile.
    const pin = this.pins.tryPin(point);
    if (deltas === null || pin === null) {
      pin?.release();
      throw unknown(deltas === null ? since : point);
    }
    try {
      const sizes = deltas[0]!.seal.disks;
      const changes = await JournalOverlay.make({ disk, folder, groupId, segmentBytes }, history.open, sizes, deltas);
      const found = changes.disks.map(({ disk: number, sizeBytes }) => ({ disk: number, extents: joined(changes.find(number, 0, sizeBytes).pieces) }));
      changes.forget();
      return found;
    } catch (error) {
      throw storeFault(error, `finding what changed since point ${formatPoint(since)}`);
    } finally {
      pin.release();
    }
  }

  async hold(point: PointId, reason: string, untilMs: number | null): Promise<Hold> {
    await this.#checkKnown(point);
    try {
      return await this.pins.hold(point, reason, untilMs);
    } catch (error) {
      throw storeFault(error, `holding point ${formatPoint(point)}`);
    }
  }

  async lock(point: PointId, reason: string, forMs: number, isUntilDate: boolean): Promise<Hold> {
    await this.#checkKnown(point);
    try {
      const hold = await this.pins.lock(point, reason, forMs, isUntilDate);
      this.onLocked();
      return hold;
    } catch (error) {
      throw storeFault(error, `locking point ${formatPoint(point)}`);
    }
  }

  async release(holdId: string): Promise<void> {
    try {
      await this.pins.release(holdId);
    } catch (error) {
      throw storeFault(error, 'releasing a held point');
    }
  }

  holds(): readonly Hold[] {
    return this.pins.holds();
  }

  async close(): Promise<void> {
    await this.checks.close();
    await this.digests.close();
    await this.pins.settled();
    await this.locks.close(this.pins.hasLocks);
  }

  async #view(pin: PinnedPoint): Promise<PointView> {
    const { history, replica, disk, folder, groupId, segmentBytes, nameOf } = this.#o;
    const atBoundary = await this.#sizesAt(pin.boundary);
    const overlay = pin.deltas.length === 0 ? null : await JournalOverlay.make({ disk, folder, groupId, segmentBytes }, history.open, atBoundary, pin.deltas);
    const disks = (overlay?.disks ?? atBoundary).map((one) => ({ ...one, name: nameOf(one.disk) })).sort((a, b) => a.disk - b.disk);
    const { point, boundary } = pin;
    return new HeldPointView({ point: { term: point.term, point: point.point }, boundary, atBoundary, overlay, history, images: this.#images, replica, disks, release: () => pin.release() });
  }

  /** Of a pinned boundary. */
  async #sizesAt(boundary: PointId | null): Promise<readonly SizedDisk[]> {
    const { history, disk, folder, mark } = this.#o;
    if (isSamePoint(mark().applied, boundary)) return mark().disks;
    const lease = history.lease();
    try {
      const index = history.indexOf(boundary);
      const file = index === null ? undefined : lease.files[index];
      if (file === undefined) throw new Fault('POINT_GONE', 'the history that leads to the point is gone', {});
      return (await HistoryReader.facts(disk, folder, file.name)).facts.disksBefore;
    } finally {
      lease.release();
    }
  }

  #row(facts: PointFacts, applied: PointId | null): RestorePoint {
    const lockedForMs = this.pins.lockedForMs(facts);
    const changes = this.suspicion?.changesOf(facts) ?? null;
    return {
      ...storedPoint(facts, applied), isHeld: this.pins.isHeld(facts), ...(lockedForMs === 0 ? {} : { lockedUntilMs: this.#o.clock.nowMs() + lockedForMs }), keptBy: this.keptBy(facts),
      ...(changes === null ? {} : { changes: shownChanges(changes) }), ...(this.suspicion?.isSuspect(facts) === true ? { isSuspect: true as const } : {}),
    };
  }

  async #checkKnown(point: PointId): Promise<void> {
    if (await this.#o.catalog.point(point) === null) throw unknown(point);
  }
}

function joined(pieces: readonly Extent[]): Extent[] {
  const extents: { start: number; end: number }[] = [];
  for (const { start, end } of pieces) {
    const last = extents.at(-1);
    if (last?.end === start) last.end = end;
    else extents.push({ start, end });
  }
  return extents;
}

function unknown(point: PointId): Fault {
  return new Fault('POINT_UNKNOWN', `there is no point ${formatPoint(point)}, or it cannot be restored any more`, { point: formatPoint(point) });
}
