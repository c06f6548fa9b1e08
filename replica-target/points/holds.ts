/**
 * What must stay so that points stay restorable: for every view that is open and every durable hold, the boundary that its point
 * starts from is pinned in the history, and the journal between that boundary and the point is not trimmed. Durable holds are
 * in `holds.json` and are taken up again at the opening, before anything is trimmed or thinned.
 *
 * A lock is a hold that nobody can release: it ends when the target has seen so much time pass (group-locks.ts), and, of one that was taken until a date, when the wall clock has come
 * to that as well. So a clock that is set forward ends no lock, and one that is set back ends none either.
 */
import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import { Fault } from '../../journal/fault.ts';
import { comparePoints, formatPoint, isSamePoint, type PointId } from '../../journal/point.ts';
import { readChecked, replaceChecked } from '../store/checked-json.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import { startOf } from './history-chain-plan.ts';
import { mayHaveSpans, type GroupLocks } from './group-locks.ts';
import type { HistorySet } from './history-set.ts';
import type { Hold } from './points.ts';
import { pointKey } from './retention-plan.ts';
import type { SealedPlace, SealedPlaces } from './sealed-places.ts';

/** 2: some of them are locks, which a release that does not know them would let go. */
const holdsVersion = 2;
const count = z.number().int().nonnegative();
const holdsShape = z.object({
  version: z.union([z.literal(1), z.literal(holdsVersion)]),
  holds: z.array(z.object({
    holdId: z.string(), point: z.object({ term: count, point: count }), reason: z.string(), takenAtMs: count, untilMs: count.nullable(),
    lock: z.object({ forMs: count, fromMs: count, isUntilDate: z.boolean() }).optional(),
  })),
});

/** Where a point starts from, and what of the journal lies between; `deltas` empty for a boundary. */
export interface PinnedPoint {
  readonly point: PointId;
  readonly boundary: PointId | null;
  readonly deltas: readonly SealedPlace[];
  release(): void;
}

export interface PointHoldsOptions {
  readonly disk: Disk;
  readonly folder: GroupFolder;
  readonly clock: Clock;
  readonly history: HistorySet;
  readonly locks: GroupLocks;
  readonly places: SealedPlaces;
  readonly log: Logger | null;
}

export class PointHolds {
  readonly #o: PointHoldsOptions;
  readonly #pins = new Set<PinnedPoint>();
  readonly #durable = new Map<string, { readonly hold: Hold; pin: PinnedPoint | null }>();
  #writing: Promise<void> = Promise.resolve();

  constructor(options: PointHoldsOptions) {
    this.#o = options;
    options.history.listen({ settled: () => { this.expire(); this.#anchorAnew(); } });
  }

  /** Takes up what was held when the process ended. Faults: STORE_CORRUPT, STORE_NEWER. */
  async load(): Promise<void> {
    const kept = await readChecked(this.#o.disk, this.#o.folder.holds, holdsShape, holdsVersion);
    for (const hold of kept?.holds ?? []) {
      const pin = this.#isOver(hold) ? null : this.tryPin(hold.point);
      if (pin === null && !this.#isOver(hold)) this.#o.log?.error({ hold, path: this.#o.folder.holds }, 'a point that is held cannot be restored any more');
      this.#durable.set(hold.holdId, { hold, pin });
    }
    this.expire();
  }

  /** In memory only. Null when the point cannot be restored. No await lies between finding what it needs and keeping it. */
  tryPin(point: PointId): PinnedPoint | null {
    const needs = this.#needs(point);
    if (needs === null) return null;
    const unpin = this.#o.history.pin(needs.boundary);
    const pin: PinnedPoint = {
      point, ...needs,
      release: () => { if (this.#pins.delete(pin)) unpin(); },
    };
    this.#pins.add(pin);
    return pin;
  }

  isRestorable(point: PointId): boolean {
    return this.#needs(point) !== null;
  }

  isHeld(point: PointId): boolean {
    for (const { hold } of this.#durable.values()) if (isSamePoint(hold.point, point)) return true;
    return false;
  }

  /** By locks of its own and by the policy's: for how much longer at least, ms; 0: it is not locked. */
  lockedForMs(point: PointId): number {
    let longest = this.#o.locks.lockedForMs(point);
    for (const { hold } of this.#durable.values()) if (isSamePoint(hold.point, point)) longest = Math.max(longest, this.#lockLeftMs(hold));
    return longest;
  }

  /** Of all the group's points, given the newest: for how much longer any is locked, ms; 0: none is. */
  longestLockMs(newest: PointId | null): number {
    return [...this.#durable.values()].reduce((longest, { hold }) => Math.max(longest, this.#lockLeftMs(hold)), this.#o.locks.longestMs(newest));
  }

  /** Whether there are locks beside those of the policy. */
  get hasLocks(): boolean {
    for (const { hold } of this.#durable.values()) if (hold.lock !== undefined) return true;
    return false;
  }

  /** Of what is locked beside the policy: the pins. */
  lockedPins(): readonly PinnedPoint[] {
    return [...this.#durable.values()].flatMap(({ hold, pin }) => (hold.lock === undefined || pin === null ? [] : [pin]));
  }

  /** `untilMs` of a lock is when it ends if all goes on as it does. */
  holds(): readonly Hold[] {
    this.expire();
    return [...this.#durable.values()].map(({ hold }) => (hold.lock === undefined ? hold : { ...hold, untilMs: this.#lockEndMs(hold) }));
  }

  hold(point: PointId, reason: string, untilMs: number | null): Promise<Hold> {
    return this.#hold(point, { reason, untilMs });
  }

  /** `isUntilDate`: not before the wall clock has come to where it would be then. */
  async lock(point: PointId, reason: string, forMs: number, isUntilDate: boolean): Promise<Hold> {
    await this.#o.locks.note();
    return this.#hold(point, { reason, untilMs: this.#o.clock.nowMs() + forMs, lock: { forMs, fromMs: this.#o.locks.witnessedMs(), isUntilDate } });
  }

  async #hold(point: PointId, kind: Pick<Hold, 'reason' | 'untilMs' | 'lock'>): Promise<Hold> {
    const pin = this.tryPin(point);
    if (pin === null) throw new Fault('POINT_UNKNOWN', `point ${formatPoint(point)} cannot be restored`, { point: formatPoint(point) });
    const hold: Hold = { holdId: randomUUID(), point: { term: point.term, point: point.point }, takenAtMs: this.#o.clock.nowMs(), ...kind };
    this.#durable.set(hold.holdId, { hold, pin });
    try {
      await this.#write();
    } catch (error) {
      this.#durable.delete(hold.holdId);
      pin.release();
      throw error;
    }
    return hold;
  }

  async release(holdId: string): Promise<void> {
    const known = this.#durable.get(holdId);
    if (known === undefined) return;
    const { hold } = known;
    if (this.#lockLeftMs(hold) > 0) {
      const untilMs = this.#lockEndMs(hold);
      throw new Fault('POINT_LOCKED', `point ${formatPoint(hold.point)} is locked until ${new Date(untilMs).toISOString()}, and a lock is not released`, { point: formatPoint(hold.point), untilMs });
    }
    this.#durable.delete(holdId);
    try {
      await this.#write();
    } catch (error) {
      this.#durable.set(holdId, known);
      throw error;
    }
    known.pin?.release();
  }

  /** Keys (`pointKey`) of what is held or being read, and of the boundaries that it starts from. */
  pinnedPoints(): ReadonlySet<string> {
    return new Set([...this.#pins].flatMap(({ point, boundary }) => [pointKey(point), pointKey(startOf(boundary))]));
  }

  /** The journal may be trimmed of what is at or before this point; null: of nothing. */
  trimLimit(applied: PointId): PointId | null {
    let limit: PointId | null = applied;
    for (const { boundary, deltas } of this.#pins) {
      if (deltas.length === 0) continue;
      if (boundary === null) return null;
      if (comparePoints(boundary, limit) < 0) limit = boundary;
    }
    return limit;
  }

  async settled(): Promise<void> {
    await this.#writing;
  }

  #needs(point: PointId): { readonly boundary: PointId | null; readonly deltas: readonly SealedPlace[] } | null {
    const boundary = this.#o.history.boundaryAtOrBefore(point);
    if (boundary === undefined || this.#o.history.isLeaving(boundary)) return null;
    if (isSamePoint(boundary, point)) return { boundary, deltas: [] };
    const deltas = this.#o.places.between(boundary, point);
    return deltas === null ? null : { boundary, deltas };
  }

  /** A point that waited to be applied may be a boundary now, or nearer to one: less of the journal is kept for it. */
  #anchorAnew(): void {
    for (const held of this.#durable.values()) {
      if (held.pin === null || held.pin.deltas.length === 0) continue;
      const pin = this.tryPin(held.hold.point);
      if (pin === null) continue;
      held.pin.release();
      held.pin = pin;
    }
  }

  #isOver(hold: Hold): boolean {
    if (hold.lock !== undefined) return this.#lockLeftMs(hold) === 0;
    return hold.untilMs !== null && hold.untilMs <= this.#o.clock.nowMs();
  }

  /** 0: it is none, or over. */
  #lockLeftMs({ lock, untilMs }: Hold): number {
    if (lock === undefined) return 0;
    return Math.max(0, lock.fromMs + lock.forMs - this.#o.locks.witnessedMs(), lock.isUntilDate ? (untilMs ?? 0) - this.#o.clock.nowMs() : 0);
  }

  #lockEndMs(hold: Hold): number {
    return this.#o.clock.nowMs() + this.#lockLeftMs(hold);
  }

  /** That one ended needs no writing to be true: its time says so after a restart as well. */
  expire(): void {
    for (const [holdId, { hold, pin }] of this.#durable) {
      if (!this.#isOver(hold)) continue;
      this.#durable.delete(holdId);
      pin?.release();
    }
  }

  /** One after the other, each with what is held when its turn comes. */
  #write(): Promise<void> {
    const written = this.#writing.then(() => replaceChecked(this.#o.disk, this.#o.folder.holds, { version: this.hasLocks ? holdsVersion : 1, holds: [...this.#durable.values()].map(({ hold }) => hold) }));
    this.#writing = written.then(() => undefined, () => undefined);
    return written;
  }
}

/** Of a group that is not open: whether its files say that points are locked. Nothing counts its time down, so that it may be over already. Faults: STORE_CORRUPT, STORE_NEWER. */
export async function mayBeLocked(disk: Disk, folder: GroupFolder): Promise<boolean> {
  const kept = await readChecked(disk, folder.holds, holdsShape, holdsVersion);
  return kept?.holds.some(({ lock }) => lock !== undefined) === true || mayHaveSpans(disk, folder);
}
