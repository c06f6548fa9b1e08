/**
 * A group's points summed up: from when to when every point can be had, and which steps lie behind it. Pure.
 * Invariant: the points of all ranges are the points that were given; ranges of finer steps come first.
 */
import { formatPoint } from '../../journal/point.ts';
import type { RestorePoint } from './points.ts';

export interface PointRangeEnd {
  /** `TERM.POINT`. */
  readonly point: string;
  /** Source's wall clock, ms. */
  readonly cutAtMs: number;
}

export interface PointRange {
  /** Every point since `from`, or one per hour, day, week, month. */
  readonly keptBy: RestorePoint['keptBy'];
  readonly from: PointRangeEnd;
  readonly to: PointRangeEnd;
  readonly pointCount: number;
}

const steps = ['all', 'hourly', 'daily', 'weekly', 'monthly'] as const satisfies readonly RestorePoint['keptBy'][];

/** `points`: newest last. */
export function rangesOf(points: readonly RestorePoint[]): readonly PointRange[] {
  return steps.flatMap((step) => {
    const kept = points.filter(({ keptBy }) => keptBy === step);
    const [from, to] = [kept[0], kept.at(-1)];
    return from === undefined || to === undefined ? [] : [{ keptBy: step, from: endOf(from), to: endOf(to), pointCount: kept.length }];
  });
}

function endOf(point: RestorePoint): PointRangeEnd {
  return { point: formatPoint(point), cutAtMs: point.cutAtMs };
}
