/**
 * The plans of one batch: one for all of it, or, when a delta has more records than a plan may hold, one for each slice of the
 * disks, made anew from the journal whenever it is asked for. So the memory of applying is bounded, whatever a source sends.
 */
import type { ApplyPlan, DiskPlan, PlanSlice, SizedDisk } from './apply-plan.ts';
import { RegionCounts } from './plan-slices.ts';
import { readBatch, walkRuns, type BatchSource } from './read-batch.ts';
import type { SealedDelta } from './journal-recovery.ts';
import type { StoreOptions } from './store-options.ts';

export type PlanLimits = Pick<StoreOptions, 'planRecords' | 'planRegionBytes'>;

export interface SlicePlan { readonly plan: ApplyPlan; readonly disks: readonly DiskPlan[] }

export class BatchPlans {
  readonly #o: BatchSource;
  readonly #before: readonly SizedDisk[];
  readonly #deltas: readonly SealedDelta[];
  readonly #slices: readonly PlanSlice[];
  /** Of the first slice. */
  #first: SlicePlan | null;
  /** All disks, ascending, at the batch's end. */
  readonly disksAfter: readonly SizedDisk[];

  private constructor(o: BatchSource, before: readonly SizedDisk[], deltas: readonly SealedDelta[], slices: readonly PlanSlice[], first: SlicePlan) {
    this.#o = o;
    this.#before = before;
    this.#deltas = deltas;
    this.#slices = slices;
    this.#first = first;
    this.disksAfter = first.disks.map(({ disk, sizeAfter: sizeBytes }) => ({ disk, sizeBytes }));
  }

  /** Every record of the batch has been checked when it resolves. Faults: STORE_CORRUPT. */
  static async make(o: BatchSource, before: readonly SizedDisk[], deltas: readonly SealedDelta[], limits: PlanLimits): Promise<BatchPlans> {
    const records = deltas.reduce((total, { seal }) => total + seal.records, 0);
    const slices = records <= limits.planRecords ? null : await count(o, deltas, limits);
    const plan = await readBatch(o, before, deltas, slices?.[0]);
    return new BatchPlans(o, before, deltas, slices ?? [], { plan, disks: plan.finish() });
  }

  /** In ascending order of the disks. A plan is let go of when the next is asked for. */
  async *all(): AsyncGenerator<SlicePlan, void, undefined> {
    for (let index = 0; index < Math.max(1, this.#slices.length); index++) {
      const kept = index === 0 ? this.#first : null;
      if (kept !== null) {
        // With more to come, what is kept would lie beside the next.
        if (this.#slices.length > 1) this.#first = null;
        yield kept;
        continue;
      }
      const plan = await readBatch(this.#o, this.#before, this.#deltas, this.#slices[index]);
      yield { plan, disks: plan.finish() };
    }
  }
}

async function count(o: BatchSource, deltas: readonly SealedDelta[], { planRecords, planRegionBytes }: PlanLimits): Promise<PlanSlice[]> {
  const counts = new RegionCounts(planRegionBytes);
  await walkRuns(o, deltas, { run: ({ disk, offset, length }) => counts.add(disk, offset, length), end: () => undefined });
  return counts.slices(planRecords);
}
