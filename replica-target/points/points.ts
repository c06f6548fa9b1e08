/**
 * What the rest of the target sees of a group's restore points: how one is named, read, and kept. The real ones are
 * point-view.ts (reading), holds.ts (keeping) and point-selector.ts (naming). Nothing here changes what a point is.
 */
import type { Extent } from '../../journal/extents.ts';
import type { PointId } from '../../journal/point.ts';
import type { KeptBy } from './retention-plan.ts';
import type { GroupChecks } from './group-checks.ts';
import type { StoredPoint } from '../store/store.ts';
import type { ShownChanges } from '../suspicion/point-changes.ts';

/** A disk as it was at a point. A disk that was added later is not listed. */
export interface ViewDisk { readonly disk: number; readonly name: string; readonly sizeBytes: number }

/** A run of a disk at a point. `zero`: reads as zero, and need not be read. */
export interface ViewExtent { readonly length: number; readonly isZero: boolean }

/**
 * All disks of a group at one point, read-only, while newer points go on being applied underneath. Holds its point in memory
 * until it is released; for what must outlive the target's process, see {@link Hold}.
 */
export interface PointView {
  readonly point: PointId;
  readonly disks: readonly ViewDisk[];
  /** Fills `into` with the disk's bytes from `offset`; any offset and length within the disk. Faults: STORE_CORRUPT, POINT_GONE. */
  read(disk: number, offset: number, into: Buffer): Promise<void>;
  /** What lies in [offset, offset + length), in order, covering it; at most `countMax` extents, then the cover may end early. */
  extents(disk: number, offset: number, length: number, countMax: number): Promise<readonly ViewExtent[]>;
  release(): Promise<void>;
}

/** A durable promise that a point stays restorable: nothing it needs is pruned, thinned or trimmed until it is released. */
export interface Hold {
  readonly holdId: string;
  readonly point: PointId;
  /** What for, to a person: "test failover of web", "failover of web, streaming". */
  readonly reason: string;
  readonly takenAtMs: number;
  /** Wall clock, ms; null: until released. */
  readonly untilMs: number | null;
  /** It ends at its time and not before. `forMs`: how much time the target has to have seen pass until then; `fromMs`: how much it had seen when the lock was taken; `isUntilDate`: `untilMs` has to have come by the wall clock as well. */
  readonly lock?: { readonly forMs: number; readonly fromMs: number; readonly isUntilDate: boolean } | undefined;
}

/** A restore point with what an operator asks of it. Marked points have their label in {@link StoredPoint}. */
export interface RestorePoint extends StoredPoint {
  readonly isHeld: boolean;
  /** Until when nobody can give it up, by the wall clock, if all goes on as it does, ms; absent: it is not locked. */
  readonly lockedUntilMs?: number;
  /** Of a point that is an hourly, daily, … one after thinning: every point is kept, or which step of the policy keeps this one. */
  readonly keptBy: KeptBy;
  /** What it changed, as far as that was looked at and is remembered. */
  readonly changes?: ShownChanges;
  /** At or after the first point of a suspicion that stands. */
  readonly isSuspect?: true;
  /** When it was rehearsed last with all its guests ready, ms; absent: it was not. */
  readonly provenAtMs?: number;
}

/** What of one disk changed between two points, at least. */
export interface DiskChanges { readonly disk: number; readonly extents: readonly Extent[] }

/** One group's points. */
export interface GroupPoints {
  /** Restorable points, newest last. */
  list(): Promise<readonly RestorePoint[]>;
  /** One of the list, without making the list; null when it is not in it. */
  find(point: PointId): Promise<RestorePoint | null>;
  /** Of each disk of `point` what the deltas after `since` wrote, in order, joined. Faults: POINT_UNKNOWN (the journal has not all of them any more), STORE_CORRUPT. */
  changedSince(since: PointId, point: PointId): Promise<readonly DiskChanges[]>;
  /** Faults: POINT_UNKNOWN (never was, or is not restorable any more), STORE_CORRUPT. */
  open(point: PointId): Promise<PointView>;
  /** Durable when it resolves. Faults: POINT_UNKNOWN. */
  hold(point: PointId, reason: string, untilMs: number | null): Promise<Hold>;
  /** A hold that nobody can release before it has ended. Durable when it resolves. Faults: POINT_UNKNOWN. */
  lock(point: PointId, reason: string, forMs: number, isUntilDate: boolean): Promise<Hold>;
  /** Durable when it resolves; a hold that is not there any more is fine. Fault POINT_LOCKED. */
  release(holdId: string): Promise<void>;
  holds(): readonly Hold[];
  /** Of the stored bytes; absent where none are stored. */
  readonly checks?: GroupChecks;
}
