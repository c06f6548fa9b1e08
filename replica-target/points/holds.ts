/**
 * What must stay so that points stay restorable: for every view that is open and every durable hold, the boundary that its point
 * starts from is pinned in the history, and the journal between that boundary and the point is not trimmed. Durable holds are
 * in `holds.json` and are taken up again at the opening, before anything is trimmed or thinned.
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
import type { HistorySet } from './history-set.ts';
import type { Hold } from './points.ts';
import { pointKey } from './retention-plan.ts';
import type { SealedPlace, SealedPlaces } from './sealed-places.ts';

const holdsVersion = 1;
const count = z.number().int().nonnegative();
const holdsShape = z.object({
  version: z.literal(holdsVersion),
  holds: z.array(z.object({
    holdId: z.string(), point: z.object({ term: count, point: count }), reason: z.string(), takenAtMs: count, untilMs: count.nullable(),
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
    options.history.listen({ settled: () => { this.#expire(); this.#anchorAnew(); } });
  }

  /** Takes up what was held when the process ended. Faults: STORE_CORRUPT, STORE_NEWER. */
  async load(): Promise<void> {
    const kept = await readChecked(this.#o.disk, this.#o.folder.holds, holdsShape, holdsVersion);
    for (const hold of kept?.holds ?? []) {
      const pin = this.#isOver(hold) ? null : this.tryPin(hold.point);
      if (pin === null && !this.#isOver(hold)) this.#o.log?.error({ hold, path: this.#o.folder.holds }, 'a point that is held cannot be restored any more');
      this.#durable.set(hold.holdId, { hold, pin });
    }
    this.#expire();
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

  holds(): readonly Hold[] {
    this.#expire();
    return [...this.#durable.values()].map(({ hold }) => hold);
  }

  async hold(point: PointId, reason: string, untilMs: number | null): Promise<Hold> {
    const pin = this.tryPin(point);
    if (pin === null) throw new Fault('POINT_UNKNOWN', `point ${formatPoint(point)} cannot be restored`, { point: formatPoint(point) });
    const hold: Hold = { holdId: randomUUID(), point: { term: point.term, point: point.point }, reason, takenAtMs: this.#o.clock.nowMs(), untilMs };
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

  #isOver({ untilMs }: Hold): boolean {
    return untilMs !== null && untilMs <= this.#o.clock.nowMs();
  }

  /** That one ended needs no writing to be true: its time says so after a restart as well. */
  #expire(): void {
    for (const [holdId, { hold, pin }] of this.#durable) {
      if (!this.#isOver(hold)) continue;
      this.#durable.delete(holdId);
      pin?.release();
    }
  }

  /** One after the other, each with what is held when its turn comes. */
  #write(): Promise<void> {
    const written = this.#writing.then(() => replaceChecked(this.#o.disk, this.#o.folder.holds, { version: holdsVersion, holds: [...this.#durable.values()].map(({ hold }) => hold) }));
    this.#writing = written.then(() => undefined, () => undefined);
    return written;
  }
}
