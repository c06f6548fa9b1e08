/**
 * Which of the sealed files in a history folder form the line that leads back from the replica, and what the others are.
 * Pure. A crash while neighbours were merged leaves the merged file beside those that it replaces; one while the oldest were
 * dropped leaves some of them. A file that is simply missing ends the line there: what lies below it is kept and not used.
 */
import { comparePoints, formatPoint, isSamePoint, type PointId } from '../../journal/point.ts';

export interface RangedFile { readonly name: string; readonly from: PointId | null; readonly to: PointId }

export interface HistoryChain<T extends RangedFile> {
  /** Oldest first, each beginning where the one before ends; the last ends at `end`. */
  readonly chain: readonly T[];
  /** Replaced by a merged file, or given up: to be removed. */
  readonly leftovers: readonly T[];
  /** Below a gap, or overlapping the line: of no use, and not ours to remove. */
  readonly strays: readonly T[];
}

/** The replica before its first point comes before every point. */
export function startOf(from: PointId | null): PointId {
  return from ?? { term: 0, point: 0 };
}

/** `end`: where the newest file ends (the applied mark, or the batch that is being applied). `prunedTo`: files up to there were given up. */
export function planHistoryChain<T extends RangedFile>(files: readonly T[], end: PointId | null, prunedTo: PointId | null): HistoryChain<T> {
  const isGivenUp = ({ to }: T): boolean => prunedTo !== null && comparePoints(to, prunedTo) <= 0;
  const leftovers = files.filter(isGivenUp);
  // Widest first among those that begin alike: what follows within its range was merged into it.
  const sorted = files.filter((file) => !isGivenUp(file)).sort((a, b) => comparePoints(startOf(a.from), startOf(b.from)) || comparePoints(b.to, a.to));
  const kept: T[] = [];
  for (const file of sorted) {
    const wider = kept.at(-1);
    if (wider !== undefined && comparePoints(file.to, wider.to) <= 0) leftovers.push(file); else kept.push(file);
  }
  const chain: T[] = [];
  const strays: T[] = [];
  let at = end;
  for (const file of kept.reverse()) {
    if (at !== null && isSamePoint(file.to, at)) {
      chain.push(file);
      at = file.from;
    } else {
      strays.push(file);
    }
  }
  return { chain: chain.reverse(), leftovers, strays };
}

/** Where a line of files is broken, in words; null when each begins where the one before ends. */
export function chainFault(files: readonly RangedFile[]): string | null {
  for (const [index, file] of files.entries()) {
    const before = files[index - 1];
    if (comparePoints(startOf(file.from), file.to) >= 0) return `${file.name} ends before it begins`;
    if (before !== undefined && !isSamePoint(before.to, file.from)) return `${file.name} does not begin at ${formatPoint(before.to)}`;
  }
  return null;
}
