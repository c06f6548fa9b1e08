/**
 * Cuts a delta that has too many records for one plan into slices of the disks that each have few enough, from a count of
 * records for each region. Pure. A region is never cut: what bounds the plan of one that has been written over and over is
 * that a plan forgets what later records covered (apply-plan.ts), which leaves at most a run for each of its sectors.
 */
import { diskBytesMax, planRegionBytes } from '../../journal/limits.ts';
import { wholeSlice, type DiskPlace, type PlanSlice } from './apply-plan.ts';

/** Counters of all regions that there can be take 64 MiB. */
export class RegionCounts {
  readonly #regionBytes: number;
  readonly #disks = new Map<number, Uint32Array>();

  constructor(bytes: number = planRegionBytes) {
    this.#regionBytes = bytes;
  }

  add(disk: number, offset: number, length: number): void {
    let counts = this.#disks.get(disk);
    const last = Math.floor((offset + length - 1) / this.#regionBytes);
    if (counts === undefined || counts.length <= last) {
      const larger = new Uint32Array(Math.min(Math.ceil(2 * diskBytesMax / this.#regionBytes), Math.max(16, 2 * (last + 1))));
      if (counts !== undefined) larger.set(counts);
      this.#disks.set(disk, counts = larger);
    }
    for (let region = Math.floor(offset / this.#regionBytes); region <= last; region++) counts[region]!++;
  }

  /** Slices that cover everything, in order. Each has at most `recordsMax` records, or is one region. */
  slices(recordsMax: number): PlanSlice[] {
    const slices: PlanSlice[] = [];
    let from: DiskPlace = wholeSlice.from;
    let records = 0;
    for (const [disk, counts] of [...this.#disks].sort(([a], [b]) => a - b)) {
      for (const [region, count] of counts.entries()) {
        if (count === 0) continue;
        if (records > 0 && records + count > recordsMax) {
          const to = { disk, offset: region * this.#regionBytes };
          slices.push({ from, to });
          from = to;
          records = 0;
        }
        records += count;
      }
    }
    slices.push({ from, to: wholeSlice.to });
    return slices;
  }
}
