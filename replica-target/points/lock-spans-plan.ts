/**
 * Which points are locked by the policy "everything for so long", as a pure decision over spans of points: those that arrived while a policy was in force, each span with what that policy
 * promised. A span is closed now and then and counts from there, so that a point is locked for as long as promised and a little longer, and a file of a few hundred spans says it of
 * any number of points. A policy that is lowered or taken away begins another span and changes none before: what was locked under the old one stays so.
 *
 * Invariants: spans are in the order of their points and do not overlap; only the last may be open.
 *
 * Time is *witnessed* time (locks.ts): how long the group's target has run, by a clock that nobody can set.
 */
import { comparePoints, type PointId } from '../../journal/point.ts';

export interface LockSpan {
  /** Its points are newer than this; null: from the first one on. */
  readonly after: PointId | null;
  /** Its newest point; null: those that arrive are still of it. */
  readonly to: PointId | null;
  /** For how long its points are locked, ms. */
  readonly forMs: number;
  /** Counted from here: when it was closed, by which time all of its points had arrived; of one that is open, when it began. Witnessed time, ms. */
  readonly fromMs: number;
}

export interface LockPolicy {
  /** What arrives is locked for so long, ms; null: not by itself. */
  readonly forMs: number | null;
  /** The newest point that has arrived. */
  readonly newest: PointId | null;
  readonly witnessedMs: number;
}

/** A span is closed after this part of its length: how much longer than promised a point may be locked, and how many spans there are at most. */
const spansMax = 256;
/** Of a short lock: its file is not written more often than this, ms. */
const spanMsMin = 10_000;

/** The spans as they are now: over ones gone, one open exactly while there is a policy. The very same array when nothing has changed. Oldest first. */
export function planSpans(spans: readonly LockSpan[], { forMs, newest, witnessedMs }: LockPolicy): readonly LockSpan[] {
  const left = spans.filter((span) => !isSpanOver(span, witnessedMs));
  const open = left.find(({ to }) => to === null);
  const isDue = open !== undefined && witnessedMs - open.fromMs >= Math.max(spanMsMin, open.forMs / spansMax) && isNewer(newest, open.after);
  if (open !== undefined && open.forMs === forMs && !isDue) return left.length === spans.length ? spans : left;
  if (open === undefined && forMs === null) return left.length === spans.length ? spans : left;
  const next = left.filter((span) => span !== open);
  if (open !== undefined && newest !== null && isNewer(newest, open.after)) next.push({ ...open, to: newest, fromMs: witnessedMs });
  if (forMs !== null) next.push({ after: newest, to: null, forMs, fromMs: witnessedMs });
  return next;
}

/** Nothing of it is locked any more. One that is open never is: its newest point may just have arrived. */
function isSpanOver({ to, forMs, fromMs }: LockSpan, witnessedMs: number): boolean {
  return to !== null && witnessedMs - fromMs >= forMs;
}

/** For how much longer the point is locked, ms of witnessed time: at most, while its span is open; 0: it is not. */
export function lockedForMs(spans: readonly LockSpan[], point: PointId, witnessedMs: number): number {
  // Spans do not overlap: each begins after the newest point of the one before, or later.
  let [low, high] = [0, spans.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isNewer(point, spans[middle]!.after)) low = middle + 1; else high = middle;
  }
  const span = spans[low - 1];
  if (span === undefined || (span.to !== null && comparePoints(point, span.to) > 0)) return 0;
  return Math.max(0, span.to === null ? span.forMs : span.fromMs + span.forMs - witnessedMs);
}

function isNewer(point: PointId | null, than: PointId | null): boolean {
  return point !== null && (than === null || comparePoints(point, than) > 0);
}
