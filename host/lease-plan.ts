/** What the holder of a lease makes of what a witness says, as pure decisions. */
import type { WitnessView } from './witness.ts';

export type LeaseStep = { readonly step: 'hold' } | { readonly step: 'stay-away'; readonly term: number; readonly by: string };

/** `term`: in which the guests run here. A lower record is an older failover's, or one that nobody asked the witness about. */
export function planLease({ record }: WitnessView, term: number): LeaseStep {
  return record === null || record.term <= term ? { step: 'hold' } : { step: 'stay-away', term: record.term, by: record.by };
}

/** Part of a lease's time that is kept for stopping the guests before anybody else may take it for ended. */
const marginPart = 1 / 4;

/** Ms of the monotonic clock after which guests that may only run with a lease must stand still. `sentMs`: when the last renewal that was answered was sent; its answer may have been slow. */
export function leaseEndMs(sentMs: number, ttlMs: number): number {
  return sentMs + ttlMs * (1 - marginPart);
}
