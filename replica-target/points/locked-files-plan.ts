/**
 * Which files of a group locked points need: the history from the oldest of them on, and the journal of those that lie between boundaries. Pure. Only files that nobody writes to any more
 * are named: sealed history up to the applied mark, and segments before the one of the last durable part or seal (to which a journal may be cut back).
 */
import { comparePoints, type PointId } from '../../journal/point.ts';
import { startOf } from './history-chain-plan.ts';
import type { HistoryFile } from './history-set.ts';

/** What a locked point starts from, and the segment in which its journal begins; null: it needs none. */
export interface LockedNeed { readonly boundary: PointId | null; readonly segment: number | null }

export interface LockedFilesState {
  readonly needs: readonly LockedNeed[];
  /** The line, oldest first. */
  readonly history: readonly HistoryFile[];
  readonly applied: PointId | null;
  readonly segments: readonly number[];
  /** Where the journal's last durable part or seal ends. */
  readonly durableSegment: number;
}

export interface LockedFilesPlan { readonly undoNames: readonly string[]; readonly segments: readonly number[] }

export function planLockedFiles({ needs, history, applied, segments, durableSegment }: LockedFilesState): LockedFilesPlan {
  const oldest = needs.reduce<PointId | null>((found, { boundary }) => (found === null || comparePoints(startOf(boundary), found) < 0 ? startOf(boundary) : found), null);
  const fromSegment = needs.reduce((least, { segment }) => Math.min(least, segment ?? Infinity), Infinity);
  return {
    undoNames: oldest === null || applied === null ? [] : history.flatMap(({ name, from, to }) => (
      comparePoints(startOf(from), oldest) >= 0 && comparePoints(to, applied) <= 0 ? [name] : [])),
    segments: segments.filter((number) => number >= fromSegment && number < durableSegment),
  };
}
