/**
 * A group's points summed up: from when to when every point can be had, and which steps lie behind it. Pure.
 * Invariants: the points of all ranges are the points that were given; ranges of finer steps come first; from a range of every
 * point none is missing.
 */
import { formatPoint, type PointId } from '../../journal/point.ts';
import type { RestorePoint } from './points.ts';

export interface PointRangeEnd {
  /** `TERM.POINT`. */
  readonly point: string;
  /** Source's wall clock, ms. */
  readonly cutAtMs: number;
}

export interface PointRange {
  /** `all`: every point since `from`. `some`: what is left of the points before, where the journal of the others has gone. Else one per hour, day, week, month. */
  readonly keptBy: RestorePoint['keptBy'] | 'some';
  readonly from: PointRangeEnd;
  readonly to: PointRangeEnd;
  readonly pointCount: number;
}

const steps = ['hourly', 'daily', 'weekly', 'monthly', 'held'] as const satisfies readonly RestorePoint['keptBy'][];

/** `points`: newest last. */
export function rangesOf(points: readonly RestorePoint[]): readonly PointRange[] {
  const ofAll = points.filter(({ keptBy }) => keptBy === 'all');
  const gap = ofAll.findLastIndex((point, index) => index > 0 && !follows(point, ofAll[index - 1]!));
  const firstOfEvery = Math.max(0, gap);
  return [
    ...rangeOf('all', ofAll.slice(firstOfEvery)), ...rangeOf('some', ofAll.slice(0, firstOfEvery)),
    ...steps.flatMap((step) => rangeOf(step, points.filter(({ keptBy }) => keptBy === step))),
  ];
}

/** Points are numbered without gaps, from 1 in each term. */
function follows(point: PointId, before: PointId): boolean {
  return point.term === before.term ? point.point === before.point + 1 : point.point === 1;
}

function rangeOf(keptBy: PointRange['keptBy'], kept: readonly RestorePoint[]): PointRange[] {
  const [from, to] = [kept[0], kept.at(-1)];
  return from === undefined || to === undefined ? [] : [{ keptBy, from: endOf(from), to: endOf(to), pointCount: kept.length }];
}

function endOf(point: RestorePoint): PointRangeEnd {
  return { point: formatPoint(point), cutAtMs: point.cutAtMs };
}
