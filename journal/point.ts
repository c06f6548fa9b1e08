/** Identity and kinds of points: what both roles, the journal and the wire mean by "point". */

/** A point's identity: numbered from 1 in its term. Point 0 of a term stands for "nothing yet". */
export interface PointId {
  readonly term: number;
  readonly point: number;
}

/** `crash`: as if the power had failed. `app`: file systems frozen. `mark`: asked for by a person. `final`: the guest had stopped. */
export type PointKind = 'crash' | 'app' | 'mark' | 'final';

export const pointKinds = ['crash', 'app', 'mark', 'final'] as const satisfies readonly PointKind[];

/** Negative, zero or positive as `a` is before, equal to or after `b`. */
export function comparePoints(a: PointId, b: PointId): number {
  return a.term - b.term || a.point - b.point;
}

export function isSamePoint(a: PointId | null, b: PointId | null): boolean {
  return a === null || b === null ? a === b : comparePoints(a, b) === 0;
}

/** `term.point`, as people and logs see it. */
export function formatPoint(id: PointId): string {
  return `${id.term}.${id.point}`;
}
