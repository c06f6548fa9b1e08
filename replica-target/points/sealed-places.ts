/**
 * Where in the journal the sealed deltas lie that it still holds whole: what a point between two boundaries is made from.
 * Only places, some 100 bytes a point; the records stay in the journal. Grows with seals, shrinks with trimming.
 */
import { comparePoints, isSamePoint, type PointId } from '../../journal/point.ts';
import type { SealPayload } from '../../journal/seal.ts';
import type { JournalPosition } from '../store/journal-recovery.ts';

export interface SealedPlace {
  readonly id: PointId;
  /** Null when the segment that held its beginning is trimmed. */
  readonly start: JournalPosition | null;
  readonly end: JournalPosition;
  readonly seal: Pick<SealPayload, 'base' | 'disks'>;
}

export class SealedPlaces {
  /** In order, each from the point before it. */
  #places: SealedPlace[] = [];

  get count(): number { return this.#places.length; }

  push({ id, start, end, seal: { base, disks } }: SealedPlace): void {
    // Sizes change seldom: one list serves many points.
    const before = this.#places.at(-1)?.seal.disks;
    const isSame = before?.length === disks.length && before.every((one, index) => one.disk === disks[index]!.disk && one.sizeBytes === disks[index]!.sizeBytes);
    this.#places.push({ id, start, end, seal: { base, disks: isSame ? before : disks } });
  }

  /** The journal begins at this segment now. */
  trimmed(firstSegment: number): void {
    const kept = this.#places.findIndex(({ start }) => start !== null && start.segment >= firstSegment);
    this.#places = kept < 0 ? [] : this.#places.slice(kept);
  }

  /** The deltas that lead from a boundary to a point, oldest first; null when the journal does not have them all. */
  between(boundary: PointId | null, point: PointId): readonly SealedPlace[] | null {
    const first = boundary === null ? 0 : this.#firstAfter(boundary);
    const last = this.#firstAfter(point) - 1;
    const from = this.#places[first];
    const to = this.#places[last];
    if (from === undefined || to === undefined || last < first || from.start === null) return null;
    if (!isSamePoint(from.seal.base, boundary) || !isSamePoint(to.id, point)) return null;
    return this.#places.slice(first, last + 1);
  }

  #firstAfter(point: PointId): number {
    let low = 0;
    let high = this.#places.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (comparePoints(this.#places[middle]!.id, point) > 0) high = middle; else low = middle + 1;
    }
    return low;
  }
}
