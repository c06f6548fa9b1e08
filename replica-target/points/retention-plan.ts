/**
 * Which points are kept and which are given up: the policy of a group as a pure decision. All points of a window; before it one
 * for each of so many hours, days, weeks and months; more is given up, oldest first, only for space, and never anything of the
 * window or that is held. It changes no file and reads no clock: retention.ts does what is decided here.
 *
 * How old a point is, is measured in *protected time*: from point to point by the target's clock at arrival, a gap counting no more
 * than `gapMsMax`. So neither a clock that jumps ahead nor a source that is silent for days makes points leave the window, and
 * no time that a source claims is looked at. A clock that was set back ages nothing until it has caught up.
 */
import { comparePoints, type PointId, type PointKind } from '../../journal/point.ts';
import { startOf, type RangedFile } from './history-chain-plan.ts';

export interface RetentionPolicy {
  /** Every point of this much protected time is kept, ms. */
  readonly windowMs: number;
  /** Before the window: one point for each of the newest so many hours, days, weeks (from Monday), months, in UTC, that have points. */
  readonly hourly: number;
  readonly daily: number;
  readonly weekly: number;
  readonly monthly: number;
  /** For journal and history together; null: what the volume can spare. */
  readonly budgetBytes: number | null;
  /** Every point is locked for this long from its arrival, by witnessed time (lock-spans-plan.ts), ms; null or absent: none is by itself. */
  readonly lockMs?: number | null;
}

export const defaultRetention: RetentionPolicy = { windowMs: 4 * 3_600_000, hourly: 24, daily: 7, weekly: 4, monthly: 12, budgetBytes: null };

/** One that can be restored. */
export interface RetainedPoint extends PointId {
  readonly kind: PointKind;
  readonly label?: string | undefined;
  readonly arrivedAtMs: number;
  /** Held or being read. */
  readonly isPinned: boolean;
}

export interface RetainedFile extends RangedFile { readonly sizeBytes: number }

export interface RetentionState<F extends RetainedFile> {
  /** Oldest first. */
  readonly points: readonly RetainedPoint[];
  /** The line of history files up to the applied mark, oldest first. */
  readonly files: readonly F[];
  readonly applied: PointId | null;
  /** Journal and history. */
  readonly usedBytes: number;
  /** What they may take: the policy's budget or what the volume can spare, whichever is less; null: no bound. */
  readonly limitBytes: number | null;
  /** What could be merged was, or could not be: points may be given up for space now. */
  readonly isPressed: boolean;
  /** What is newer than this is locked by the policy, of now or of then, and stays as the window does; null: all; absent: nothing is. */
  readonly lockedAfter?: PointId | null | undefined;
}

export type KeptBy = 'all' | 'hourly' | 'daily' | 'weekly' | 'monthly' | 'held';

export type RetentionStep<F extends RetainedFile> =
  /** These neighbours become one file: the points between them go. */
  | { readonly step: 'merge'; readonly files: readonly F[] }
  /** The oldest: nothing before the last of them can be restored afterwards. */
  | { readonly step: 'drop'; readonly files: readonly F[] };

export interface RetentionPlan<F extends RetainedFile> {
  readonly steps: readonly RetentionStep<F>[];
  /** Why each point that stays does. */
  readonly keptBy: ReadonlyMap<string, KeptBy>;
  /** The journal is needed for what follows this boundary; null: all of it. */
  readonly journalFrom: PointId | null;
  /** Protected time that the kept window covers, ms; what is promised may be more when the group is young. */
  readonly windowHadMs: number;
  /** `tight`: over {@link warnShare} of the limit. `full`: over it, and nothing is left to give up: ingest stops. */
  readonly space: 'ample' | 'tight' | 'full';
}

/** A longer gap between two points counts as this: the source was away, or a clock was set. */
export const gapMsMax = 15 * 60_000;
const warnShare = 0.8;

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** 1970-01-01 was a Thursday: three days after its Monday. */
const weekOf = (ms: number): number => Math.floor((ms / dayMs + 3) / 7);
const dayOf = (ms: number): number => Math.floor(ms / dayMs);
const hourOf = (ms: number): number => Math.floor(ms / hourMs);
const monthOf = (ms: number): number => { const date = new Date(ms); return date.getUTCFullYear() * 12 + date.getUTCMonth(); };

export function pointKey({ term, point }: PointId): string {
  return `${term}.${point}`;
}

export function planRetention<F extends RetainedFile>(policy: RetentionPolicy, state: RetentionState<F>): RetentionPlan<F> {
  const { points, files, applied } = state;
  const boundaries: (PointId | null)[] = files.length === 0 ? [applied] : [files[0]!.from, ...files.map(({ to }) => to)];
  const isBoundary = new Set(boundaries.map((boundary) => pointKey(startOf(boundary))));
  const window = withLocked(points, findWindow(points, policy.windowMs), state.lockedAfter);
  const keptBy = new Map<string, KeptBy>();
  for (const point of points.slice(window.first)) keptBy.set(pointKey(point), 'all');
  const older = points.slice(0, window.first).filter((point) => isBoundary.has(pointKey(point)));
  keepGenerations(policy, older, keptBy);
  for (const point of older) if (point.isPinned && !keptBy.has(pointKey(point))) keptBy.set(pointKey(point), 'held');

  const floor = oldestNeeded(points[window.first], boundaries);
  const mayGo = older.filter((point) => keptBy.has(pointKey(point)) && !point.isPinned);
  let steps = stepsFor(files, boundaries, keptBy, floor);
  if (state.limitBytes !== null && state.isPressed) {
    // Oldest first, as long as it is too much: what merging frees is not known before, so that only what is dropped counts.
    while (mayGo.length > 0 && state.usedBytes - droppedBytes(steps) > state.limitBytes) {
      keptBy.delete(pointKey(mayGo.shift()!));
      steps = stepsFor(files, boundaries, keptBy, floor);
    }
  }
  return { steps, keptBy, journalFrom: journalFrom(points, window.first, boundaries, isBoundary, applied), windowHadMs: window.hadMs, space: spaceOf(state, steps) };
}

/** The oldest point of the window, with all of its hour: so that an hour is thinned once, when it is over. */
function findWindow(points: readonly RetainedPoint[], windowMs: number): { readonly first: number; readonly hadMs: number } {
  let first = Math.max(0, points.length - 1);
  let ageMs = 0;
  for (; first > 0; first--) {
    const gapMs = Math.min(gapMsMax, Math.max(0, points[first]!.arrivedAtMs - points[first - 1]!.arrivedAtMs));
    if (ageMs + gapMs > windowMs) break;
    ageMs += gapMs;
  }
  const hadMs = ageMs;
  while (first > 0 && hourOf(points[first - 1]!.arrivedAtMs) === hourOf(points[first]!.arrivedAtMs)) first--;
  return { first, hadMs };
}

/** The window, and everything from the oldest point on that is locked. */
function withLocked(points: readonly RetainedPoint[], window: ReturnType<typeof findWindow>, lockedAfter: PointId | null | undefined): ReturnType<typeof findWindow> {
  if (lockedAfter === undefined) return window;
  const first = lockedAfter === null ? 0 : points.findIndex((point) => comparePoints(point, lockedAfter) > 0);
  return first < 0 || first >= window.first ? window : { ...window, first };
}

/**
 * Each generation keeps the best point of each of its newest periods, and, so that a period of the next one is thinned once and
 * not bit by bit, all its periods down to where a period of the next one begins.
 */
function keepGenerations({ hourly, daily, weekly, monthly }: RetentionPolicy, older: readonly RetainedPoint[], keptBy: Map<string, KeptBy>): void {
  keepPeriods('hourly', hourly, hourOf, dayOf, older, keptBy);
  keepPeriods('daily', daily, dayOf, weekOf, older, keptBy);
  keepPeriods('weekly', weekly, weekOf, null, older, keptBy);
  keepPeriods('monthly', monthly, monthOf, null, older, keptBy);
}

function keepPeriods(
  by: KeptBy, count: number, periodOf: (ms: number) => number, nextOf: ((ms: number) => number) | null, older: readonly RetainedPoint[], keptBy: Map<string, KeptBy>,
): void {
  let seen = 0;
  let last: number | null = null;
  let untilNext: number | null = null;
  for (let end = older.length; end > 0 && count > 0;) {
    const period = periodOf(older[end - 1]!.arrivedAtMs);
    let start = end;
    while (start > 0 && periodOf(older[start - 1]!.arrivedAtMs) === period) start--;
    if (period !== last) {
      last = period;
      seen += 1;
    }
    const next = nextOf === null ? null : nextOf(older[start]!.arrivedAtMs);
    if (seen === count) untilNext = next;
    if (seen > count && (next === null || next !== untilNext)) return;
    const best = bestOf(older.slice(start, end));
    if (!keptBy.has(pointKey(best))) keptBy.set(pointKey(best), by);
    end = start;
  }
}

/** Application-consistent ones first, then what a person marked, then the oldest: it stays the best when its period goes on. */
function bestOf(points: readonly RetainedPoint[]): RetainedPoint {
  return points.reduce((best, point) => (rankOf(point) > rankOf(best) ? point : best));
}

function rankOf({ kind, label }: RetainedPoint): number {
  if (kind === 'app') return 2;
  return kind === 'crash' && label === undefined ? 0 : 1;
}

/** The newest boundary at or before the window's first point: without it, that point is gone. */
function oldestNeeded(first: RetainedPoint | undefined, boundaries: readonly (PointId | null)[]): number {
  if (first === undefined) return boundaries.length - 1;
  let index = boundaries.length - 1;
  while (index > 0 && comparePoints(startOf(boundaries[index]!), first) > 0) index--;
  return index;
}

function stepsFor<F extends RetainedFile>(files: readonly F[], boundaries: readonly (PointId | null)[], keptBy: ReadonlyMap<string, KeptBy>, floor: number): RetentionStep<F>[] {
  const steps: RetentionStep<F>[] = [];
  const kept: number[] = [];
  // From `floor` on all boundaries stay: they are the window's, and what is newer.
  for (let index = 0; index <= Math.min(floor, files.length); index++) if (index === floor || keptBy.has(pointKey(startOf(boundaries[index]!)))) kept.push(index);
  const [oldest = 0] = kept;
  if (oldest > 0) steps.push({ step: 'drop', files: files.slice(0, oldest) });
  for (const [at, index] of kept.entries()) {
    const next = kept[at + 1];
    if (next !== undefined && next - index > 1) steps.push({ step: 'merge', files: files.slice(index, next) });
  }
  return steps;
}

function droppedBytes(steps: readonly RetentionStep<RetainedFile>[]): number {
  return steps.reduce((sum, { step, files }) => sum + (step === 'drop' ? files.reduce((all, { sizeBytes }) => all + sizeBytes, 0) : 0), 0);
}

/** Points of the window that lie inside a batch need the journal, from the boundary before them. */
function journalFrom(
  points: readonly RetainedPoint[], first: number, boundaries: readonly (PointId | null)[], isBoundary: ReadonlySet<string>, applied: PointId | null,
): PointId | null {
  for (const point of points.slice(first)) {
    if (isBoundary.has(pointKey(point)) || (applied !== null && comparePoints(point, applied) > 0)) continue;
    let before: PointId | null = null;
    for (const boundary of boundaries) if (boundary !== null && comparePoints(boundary, point) < 0) before = boundary;
    return before;
  }
  return applied;
}

function spaceOf(state: RetentionState<RetainedFile>, steps: readonly unknown[]): RetentionPlan<RetainedFile>['space'] {
  if (state.limitBytes === null || state.usedBytes <= state.limitBytes * warnShare) return 'ample';
  return state.usedBytes > state.limitBytes && steps.length === 0 ? 'full' : 'tight';
}

