/**
 * A group's disks as they were at one point. Each byte comes from the newest of these that has it: the journal's after-images
 * between the boundary and the point, the oldest before-image since the boundary, the replica. Nothing is locked: the applier
 * makes a before-image findable before it overwrites, and a reader looks again after it has read from the replica. So what it
 * hands out is the point's, whatever was applied meanwhile.
 */
import assert from 'node:assert/strict';
import type { Extent } from '../../journal/extents.ts';
import { Fault } from '../../journal/fault.ts';
import { comparePoints, formatPoint, type PointId } from '../../journal/point.ts';
import type { SizedDisk } from '../store/apply-plan.ts';
import { DataRanges } from '../store/data-ranges.ts';
import type { Replica } from '../store/replica.ts';
import { storeFault } from '../store/store-fault.ts';
import { startOf } from './history-chain-plan.ts';
import type { HistoryImages, ImagePiece } from './history-images.ts';
import type { HistoryLease, HistorySet } from './history-set.ts';
import type { JournalOverlay } from './journal-overlay.ts';
import type { PointView, ViewDisk, ViewExtent } from './points.ts';

/** Gaps of the history nearer than this are read from the replica with one read. */
const gapBytesMax = 32 * 1024;
/** Bytes of a disk that extents are asked for at once. */
const extentWindowBytes = 64 * 1024 * 1024;

export interface PointViewParts {
  readonly point: PointId;
  /** Pinned: a boundary of the history for as long as the view is there. */
  readonly boundary: PointId | null;
  readonly atBoundary: readonly SizedDisk[];
  readonly overlay: JournalOverlay | null;
  readonly history: HistorySet;
  readonly images: HistoryImages;
  readonly replica: Replica;
  readonly disks: readonly ViewDisk[];
  /** Called once. */
  release(): void;
}

export class HeldPointView implements PointView {
  readonly point: PointId;
  readonly disks: readonly ViewDisk[];
  readonly #o: PointViewParts;
  readonly #sizes: ReadonlyMap<number, number>;
  readonly #boundarySizes: ReadonlyMap<number, number>;
  #isReleased = false;
  #underWay = 0;

  constructor(parts: PointViewParts) {
    this.#o = parts;
    this.point = parts.point;
    this.disks = parts.disks;
    this.#sizes = new Map(parts.disks.map(({ disk, sizeBytes }) => [disk, sizeBytes]));
    this.#boundarySizes = new Map(parts.atBoundary.map(({ disk, sizeBytes }) => [disk, sizeBytes]));
  }

  async read(disk: number, offset: number, into: Buffer): Promise<void> {
    const end = offset + into.length;
    this.#checkRange(disk, offset, end);
    if (into.length === 0) return;
    await this.#whileHeld(async () => {
      const { overlay, images } = this.#o;
      const { pieces, gaps } = overlay?.find(disk, offset, end) ?? { pieces: [], gaps: [{ start: offset, end }] };
      const { below, beyond } = this.#split(disk, gaps);
      for (const gap of beyond) into.fill(0, gap.start - offset, gap.end - offset);
      let isDone = below.length === 0;
      while (!isDone) {
        isDone = await this.#resolve(disk, below, async (found) => {
          await this.#readReplica(disk, found, offset, into);
        }, async (all) => images.read(disk, all, offset, into));
      }
      if (pieces.length > 0) await overlay!.read(disk, pieces, offset, into);
    });
  }

  async extents(disk: number, offset: number, length: number, countMax: number): Promise<readonly ViewExtent[]> {
    this.#checkRange(disk, offset, offset + length);
    return this.#whileHeld(async () => {
      const found: { length: number; isZero: boolean }[] = [];
      for (let at = offset; at < offset + length && found.length <= countMax; at += extentWindowBytes) {
        for (const { start, end, isZero } of await this.#window(disk, at, Math.min(offset + length, at + extentWindowBytes))) {
          const last = found.at(-1);
          if (last?.isZero === isZero) last.length += end - start; else found.push({ length: end - start, isZero });
        }
      }
      return found.slice(0, countMax);
    });
  }

  release(): Promise<void> {
    if (!this.#isReleased) {
      this.#isReleased = true;
      if (this.#underWay === 0) this.#letGo();
    }
    return Promise.resolve();
  }

  /** Whether each byte of a window is zero without reading it: in order, covering it. */
  async #window(disk: number, start: number, end: number): Promise<KnownExtent[]> {
    const { overlay, replica } = this.#o;
    const { pieces, gaps } = overlay?.find(disk, start, end) ?? { pieces: [], gaps: [{ start, end }] };
    const { below, beyond } = this.#split(disk, gaps);
    const all: KnownExtent[] = [...pieces.map((piece) => ({ start: piece.start, end: piece.end, isZero: piece.record < 0 })), ...asExtents(beyond, true)];
    if (below.length > 0) {
      const data: Extent[] = [];
      await this.#resolve(disk, below, async (found) => {
        const ranges = new DataRanges(await replica.file(disk));
        for (const gap of found) data.push(...await ranges.within(gap.start, gap.end));
      }, (images) => {
        // What was sealed meanwhile speaks for the replica as it was: it comes last.
        all.push(...over(over(asExtents(below, true), asExtents(data, false)), [...images].sort((a, b) => a.start - b.start)));
        return Promise.resolve(true);
      });
    }
    return all.sort((a, b) => a.start - b.start);
  }

  /**
   * Finds who has the bytes. `fromReplica` is called with what no history file had; `use` with all pieces, those of files that
   * were sealed while the replica was read included (they overlap what was read from it, and win). `use` false: once more.
   */
  async #resolve(disk: number, wanted: readonly Extent[], fromReplica: (gaps: readonly Extent[]) => Promise<void>, use: (pieces: readonly ImagePiece[]) => Promise<boolean>): Promise<boolean> {
    const { history, images, boundary, point } = this.#o;
    const lease = history.lease();
    let later: HistoryLease | null = null;
    try {
      const first = history.indexOf(boundary);
      if (first === null) throw new Fault('POINT_GONE', `the history that leads to ${formatPoint(point)} is gone`, { point: formatPoint(point) });
      const { pieces, gaps } = await images.find(lease, first, lease.count, disk, wanted);
      if (gaps.length === 0) return await use(pieces);
      await fromReplica(gaps);
      later = history.lease();
      const from = firstSince(later, lease);
      if (from >= later.count) return await use(pieces);
      const sealed = await images.find(later, from, later.count, disk, gaps);
      return await use([...pieces, ...sealed.pieces]);
    } finally {
      later?.release();
      lease.release();
    }
  }

  async #readReplica(disk: number, gaps: readonly Extent[], offset: number, into: Buffer): Promise<void> {
    const file = await this.#o.replica.file(disk);
    for (let index = 0; index < gaps.length;) {
      const { start } = gaps[index]!;
      let { end } = gaps[index++]!;
      for (; index < gaps.length && gaps[index]!.start - end <= gapBytesMax; index++) ({ end } = gaps[index]!);
      const read = await file.read(into, start - offset, end - start, start);
      into.fill(0, start - offset + read, end - offset);
    }
  }

  /** What the disk had at the boundary, and what it did not have: that was grown since, and reads as zero. */
  #split(disk: number, gaps: readonly Extent[]): { readonly below: readonly Extent[]; readonly beyond: readonly Extent[] } {
    const size = this.#boundarySizes.get(disk) ?? 0;
    const below: Extent[] = [];
    const beyond: Extent[] = [];
    for (const { start, end } of gaps) {
      if (start < size) below.push({ start, end: Math.min(end, size) });
      if (end > size) beyond.push({ start: Math.max(start, size), end });
    }
    return { below, beyond };
  }

  #checkRange(disk: number, start: number, end: number): void {
    const size = this.#sizes.get(disk);
    assert(size !== undefined && start >= 0 && start <= end && end <= size, `[${start}, ${end}) of disk ${disk} lies within it`);
  }

  async #whileHeld<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isReleased) throw new Fault('POINT_GONE', `the view of ${formatPoint(this.point)} was released`, { point: formatPoint(this.point) });
    this.#underWay++;
    try {
      return await work();
    } catch (error) {
      throw storeFault(error, `reading point ${formatPoint(this.point)}`);
    } finally {
      this.#underWay--;
      if (this.#isReleased && this.#underWay === 0) this.#letGo();
    }
  }

  #letGo(): void {
    this.#o.overlay?.forget();
    this.#o.release();
  }
}

interface KnownExtent extends Extent { readonly isZero: boolean }

function asExtents(extents: readonly Extent[], isZero: boolean): KnownExtent[] {
  return extents.map(({ start, end }) => ({ start, end, isZero }));
}

/** Index of the first file in `later` that was sealed after `lease` was taken. */
function firstSince(later: HistoryLease, lease: HistoryLease): number {
  if (later.files === lease.files) return lease.count;
  // Files were merged or dropped meanwhile. One that reaches back behind the lease's end has, of what the lease did not have, only what is newer.
  const last = startOf(lease.files[lease.count - 1]?.to ?? null);
  let first = later.count;
  while (first > 0 && comparePoints(later.files[first - 1]!.to, last) > 0) first--;
  return first;
}

/** `top` over `base`, where base is: both in order and disjoint. */
function over(base: readonly KnownExtent[], top: readonly KnownExtent[]): KnownExtent[] {
  const found: KnownExtent[] = [];
  let next = 0;
  for (const { start, end, isZero } of base) {
    let at = start;
    while (next < top.length && top[next]!.end <= at) next++;
    for (let index = next; index < top.length && top[index]!.start < end; index++) {
      const one = top[index]!;
      if (one.start > at) found.push({ start: at, end: one.start, isZero });
      found.push({ start: Math.max(at, one.start), end: Math.min(one.end, end), isZero: one.isZero });
      at = Math.min(one.end, end);
    }
    if (at < end) found.push({ start: at, end, isZero });
  }
  return found;
}
