/**
 * What the charts show of a group's points: pure. Points come oldest first; what lies between two of them that do not follow each other is
 * a gap, and said so.
 */
import { formatPoint } from '../../journal/point.ts';
import type { RestorePoint } from '../../replica-target/points/points.ts';

export interface PointSeries {
  /** Seconds since 1970: what uPlot counts in. */
  readonly cutAtS: readonly number[];
  readonly changedBytes: readonly number[];
  /** How old the point before had become when this one was durable, s; null for the first and behind a gap. */
  readonly exposureS: readonly (number | null)[];
  /** Bytes changed a second since the point before; null for the first and behind a gap. */
  readonly bytesPerSecond: readonly (number | null)[];
}

export function pointSeries(points: readonly RestorePoint[]): PointSeries {
  const follows = (at: number): RestorePoint | null => {
    const [before, point] = [points[at - 1], points[at]!];
    return before !== undefined && (before.term === point.term ? before.point + 1 === point.point : point.point === 1) ? before : null;
  };
  return {
    cutAtS: points.map(({ cutAtMs }) => cutAtMs / 1000),
    changedBytes: points.map(({ changedBytes }) => changedBytes),
    exposureS: points.map(({ arrivedAtMs }, at) => { const before = follows(at); return before === null ? null : Math.max(0, arrivedAtMs - before.cutAtMs) / 1000; }),
    bytesPerSecond: points.map(({ cutAtMs, changedBytes }, at) => { const before = follows(at); return before === null || cutAtMs <= before.cutAtMs ? null : changedBytes / (cutAtMs - before.cutAtMs) * 1000; }),
  };
}

/** Of points that are known and those that were asked for anew, both oldest first: the newer knowledge of each, and none before `oldest`. */
export function joinPoints(known: readonly RestorePoint[], anew: readonly RestorePoint[], countMax: number): readonly RestorePoint[] {
  const byName = new Map(known.map((point) => [formatPoint(point), point]));
  for (const point of anew) byName.set(formatPoint(point), point);
  const joined = [...byName.values()].sort((a, b) => a.term - b.term || a.point - b.point);
  return joined.slice(-countMax);
}

/** Changed bytes a millisecond over the last `spanMs` of the points; 0 when there are none. */
export function recentBytesPerMs(points: readonly RestorePoint[], spanMs: number): number {
  const newest = points.at(-1);
  if (newest === undefined) return 0;
  const recent = points.filter(({ cutAtMs }) => newest.cutAtMs - cutAtMs <= spanMs);
  const ms = newest.cutAtMs - (recent[0]?.cutAtMs ?? newest.cutAtMs);
  return ms <= 0 ? 0 : recent.slice(1).reduce((sum, { changedBytes }) => sum + changedBytes, 0) / ms;
}

/** For people, in one line: what the slider says and a screen reader reads. */
export function describePoint(point: RestorePoint, atMs: number, formatSpan: (ms: number) => string): string {
  const traits = [
    point.kind === 'crash' ? null : point.kind, point.label === undefined ? null : `“${point.label}”`, point.provenAtMs === undefined ? null : 'proven by a boot',
    point.lockedUntilMs !== undefined ? 'locked' : point.isHeld ? 'held' : null, point.isSuspect === true ? 'suspicious' : null,
  ].filter((trait) => trait !== null);
  return `point ${formatPoint(point)}, ${formatSpan(Math.max(0, atMs - point.cutAtMs))} ago${traits.length === 0 ? '' : `, ${traits.join(', ')}`}`;
}
