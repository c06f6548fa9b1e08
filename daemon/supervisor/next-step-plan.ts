/**
 * What to do next for a guest, decided from what the target holds and what the capture found. Pure: the supervisor does
 * it. One invariant: a delta is only ever built on a base that both sides agree on; anything else compares or copies.
 */
import type { PointId } from '../../journal/point.ts';
import type { GroupHolding } from '../../journal/wire.ts';
import type { CaptureStanding } from '../capture/capture.ts';

/** What the target's holding means as a base: null when there is nothing to build on. */
export function heldPoint(holding: GroupHolding): PointId | null {
  if (holding.newest !== null) return holding.newest;
  return holding.seed === 'done' ? { term: holding.term, point: 0 } : null;
}

export type NextStep =
  /** Everything goes straight into the replica; when `isCompared`, only what differs. */
  | { readonly step: 'first-sync'; readonly isCompared: boolean; readonly why: string }
  /** The replica has points: what differs goes as parts of an unsealed delta, with history. */
  | { readonly step: 'resync'; readonly base: PointId; readonly why: string }
  /** Deltas can be cut, from `base`. */
  | { readonly step: 'cycle'; readonly base: PointId };

/** `isResyncAsked`: deltas could be cut, but an operator wants both sides compared. */
export function planNextStep(holding: GroupHolding, found: CaptureStanding, isResyncAsked = false): NextStep {
  const standing: CaptureStanding = isResyncAsked && found.standing === 'ready' ? { standing: 'resync', why: 'an operator asked for it' } : found;
  const held = heldPoint(holding);
  if (held === null) {
    return holding.seed === 'none'
      ? { step: 'first-sync', isCompared: false, why: 'the target holds nothing of this guest yet' }
      : { step: 'first-sync', isCompared: true, why: 'a first sync was begun, or an image was put there' };
  }
  if (standing.standing === 'ready') return { step: 'cycle', base: held };
  return held.point === 0 && holding.newest === null
    ? { step: 'first-sync', isCompared: true, why: standing.why }
    : { step: 'resync', base: held, why: standing.why };
}

/** The point that follows `held` in `term`: numbering starts at 1 in each term. */
export function nextPoint(held: PointId, term: number): PointId {
  return held.term === term ? { term, point: held.point + 1 } : { term, point: 1 };
}
