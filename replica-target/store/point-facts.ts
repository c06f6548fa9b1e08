/** What is kept of a point, from its seal and from when it arrived. Pure. */
import { cutFacts } from '../../journal/seal.ts';
import type { PointFacts } from './catalog.ts';
import type { SealedDelta } from './journal-recovery.ts';

/** Neither time runs backward. `arrivedAtMs` null: when it arrived was lost with a crash; it was no earlier than these. */
export function pointFacts({ id, seal }: Pick<SealedDelta, 'id' | 'seal'>, previous: PointFacts | null, arrivedAtMs: number | null): PointFacts {
  const cutAtMs = Math.max(seal.cutAtMs, previous?.cutAtMs ?? 0);
  return {
    ...id, kind: seal.kind, cutAtMs,
    arrivedAtMs: Math.max(arrivedAtMs ?? seal.cutAtMs, previous?.arrivedAtMs ?? 0),
    changedBytes: seal.changedBytes,
    ...(seal.label === undefined ? {} : { label: seal.label }),
    ...cutFacts.parse(seal),
  };
}
