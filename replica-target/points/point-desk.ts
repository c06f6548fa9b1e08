/**
 * What an operator can ask about the points of a group: all of them, one with its disks, and to keep one. It answers with plain
 * values and keeps nothing itself: a hold is the group's (points.ts).
 */
import type { Clock } from '../../host/clock.ts';
import { Fault } from '../../journal/fault.ts';
import { lockMsMax } from '../../journal/limits.ts';
import type { GroupStore } from '../store/store.ts';
import { findPoint, pointExportName } from './nbd-exports.ts';
import { rangesOf, type PointRange } from './point-ranges.ts';
import { readSelector } from './point-selector.ts';
import type { Hold, RestorePoint, ViewDisk } from './points.ts';
import type { Verification } from './verify.ts';

/** `afterimage points GUEST --json`. Members are added, never changed. */
export interface GroupTimeline {
  readonly group: string;
  readonly groupId: string;
  /** Target's wall clock when it was asked, ms. */
  readonly atMs: number;
  /** Finest first. */
  readonly ranges: readonly PointRange[];
  /** Newest last. */
  readonly points: readonly RestorePoint[];
  readonly holds: readonly Hold[];
}

export interface PointDescription {
  readonly group: string;
  readonly groupId: string;
  readonly point: RestorePoint;
  /** Those that the guest had then, and the names under which the target's NBD server has them. */
  readonly disks: readonly (ViewDisk & { readonly exportName: string })[];
  /** As the source announced it last. */
  readonly hardware: Readonly<Record<string, unknown>>;
}

export interface HeldPoint extends PointDescription { readonly hold: Hold }

export interface HoldRequest {
  readonly group: string;
  /** The point (point-selector.ts). */
  readonly at: string;
  readonly reason: string;
  /** From now on, ms. Null: until it is released. */
  readonly forMs: number | null;
}

export interface LockRequest {
  readonly group: string;
  /** The point (point-selector.ts). */
  readonly at: string;
  readonly reason: string;
  /** From now on, ms; or until this date, wall clock, ms: exactly one of them. */
  readonly forMs?: number | undefined;
  readonly untilMs?: number | undefined;
}

export interface LockedPoint { readonly group: string; readonly groupId: string; readonly point: RestorePoint; readonly hold: Hold }

export class PointDesk {
  readonly #find: (nameOrId: string) => GroupStore;
  readonly #clock: Clock;

  /** `find` throws GROUP_UNKNOWN. */
  constructor(find: (nameOrId: string) => GroupStore, clock: Clock) {
    this.#find = find;
    this.#clock = clock;
  }

  async timeline(nameOrId: string): Promise<GroupTimeline> {
    const group = this.#find(nameOrId);
    const points = await group.restorePoints.list();
    return { group: group.report().name, groupId: group.groupId, atMs: this.#clock.nowMs(), ranges: rangesOf(points), points, holds: group.restorePoints.holds() };
  }

  /** Faults: POINT_UNKNOWN. */
  async describe(nameOrId: string, at: string): Promise<PointDescription> {
    const group = this.#find(nameOrId);
    return this.#describe(group, await this.#choose(group, at));
  }

  /** Durable when it resolves. Faults: POINT_UNKNOWN. */
  async hold({ group: nameOrId, at, reason, forMs }: HoldRequest): Promise<HeldPoint> {
    const group = this.#find(nameOrId);
    const point = await this.#choose(group, at);
    const hold = await group.restorePoints.hold(point, reason, forMs === null ? null : this.#clock.nowMs() + forMs);
    try {
      return { ...await this.#describe(group, { ...point, isHeld: true }), hold };
    } catch (error) {
      await group.restorePoints.release(hold.holdId);
      throw error;
    }
  }

  /** Durable when it resolves. Faults: POINT_UNKNOWN, REQUEST_INVALID (the date has passed). */
  async lock({ group: nameOrId, at, reason, forMs, untilMs }: LockRequest): Promise<LockedPoint> {
    const group = this.#find(nameOrId);
    if ((forMs === undefined) === (untilMs === undefined)) throw new Fault('REQUEST_INVALID', 'a lock is either for a time (forMs) or until a date (untilMs)', { group: group.report().name });
    const point = await this.#choose(group, at);
    const spanMs = forMs ?? (untilMs ?? 0) - this.#clock.nowMs();
    if (spanMs > lockMsMax) throw new Fault('REQUEST_INVALID', `a lock for longer than ${lockMsMax / 86_400_000} days: nobody could take it back`, { group: group.report().name, untilMs: untilMs ?? null });
    if (spanMs <= 0) throw new Fault('REQUEST_INVALID', 'a lock until a date that has passed', { group: group.report().name, untilMs });
    const hold = await group.restorePoints.lock(point, reason, spanMs, forMs === undefined);
    return { group: group.report().name, groupId: group.groupId, point: await group.restorePoints.find(point) ?? point, hold };
  }

  async verify(nameOrId: string, at: string | null): Promise<Verification> {
    const group = this.#find(nameOrId);
    const { checks } = group.restorePoints;
    if (checks === undefined) throw new Fault('POINT_UNKNOWN', `nothing of ${group.report().name} can be read`, { group: group.report().name });
    return checks.verify(at === null ? null : await this.#choose(group, at));
  }

  async release(nameOrId: string, holdId: string): Promise<void> {
    await this.#find(nameOrId).restorePoints.release(holdId);
  }

  async #choose(group: GroupStore, at: string): Promise<RestorePoint> {
    return findPoint(group.restorePoints, readSelector(at, this.#clock.nowMs()), group.report().name);
  }

  async #describe(group: GroupStore, point: RestorePoint): Promise<PointDescription> {
    const { name } = group.report();
    const view = await group.restorePoints.open(point);
    try {
      const { disks } = view;
      return { group: name, groupId: group.groupId, point, disks: disks.map((disk) => ({ ...disk, exportName: pointExportName(name, disks, disk, point) })), hardware: group.hardware() };
    } finally {
      await view.release();
    }
  }
}
