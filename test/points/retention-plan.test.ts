/** What retention promises, of any timeline and any policy. */
import fc from 'fast-check';
import t from 'tap';
import { comparePoints, type PointId } from '../../journal/point.ts';
import { defaultRetention, gapMsMax, planRetention, pointKey, type RetainedFile, type RetainedPoint, type RetentionPlan, type RetentionPolicy, type RetentionState } from '../../replica-target/points/retention-plan.ts';
import { isWindowShort } from '../../replica-target/points/window-promise-plan.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
/** A Monday, 00:00 UTC. */
const mondayMs = Date.UTC(2026, 10, 16);

interface File extends RetainedFile { readonly from: PointId | null; readonly to: PointId }
type State = RetentionState<File>;

const policy = (change: Partial<RetentionPolicy> = {}): RetentionPolicy => ({ windowMs: 4 * hourMs, hourly: 0, daily: 0, weekly: 0, monthly: 0, budgetBytes: null, ...change });
const id = (point: number): PointId => ({ term: 1, point });

/** Points 1, 2, … at these times; each is a batch of its own but for those in `inner`. */
function timeline(times: readonly number[], change: Partial<Record<number, Partial<RetainedPoint>>> = {}, inner: ReadonlySet<number> = new Set()): State {
  const points = times.map((arrivedAtMs, index): RetainedPoint => ({ ...id(index + 1), kind: 'crash', arrivedAtMs, isPinned: false, ...change[index + 1] }));
  const files: File[] = [];
  let from: PointId | null = null;
  for (const { term, point } of points) {
    if (inner.has(point)) continue;
    files.push({ name: `${point}`, from, to: { term, point }, sizeBytes: 100 });
    from = { term, point };
  }
  return { points, files, applied: from, usedBytes: files.length * 100, limitBytes: null, isPressed: false };
}

/** What is there after the plan's steps. */
function after(state: State, plan: RetentionPlan<File>): State {
  let files = [...state.files];
  for (const { step, files: some } of plan.steps) {
    const at = files.indexOf(some[0]!);
    const merged: File[] = step === 'drop' ? [] : [{ name: 'm', from: some[0]!.from, to: some.at(-1)!.to, sizeBytes: 90 * some.length }];
    files = [...files.slice(0, at), ...merged, ...files.slice(at + some.length)];
  }
  const boundaries = new Set([files[0]?.from ?? null, ...files.map(({ to }) => to), state.applied].filter((one) => one !== null).map(pointKey));
  const { journalFrom } = plan;
  const points = state.points.filter((point) => boundaries.has(pointKey(point)) || ((journalFrom === null || comparePoints(point, journalFrom) > 0) && (files[0]?.from == null || comparePoints(point, files[0].from) > 0)));
  return { ...state, files, points, usedBytes: files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) };
}

function settled(of: RetentionPolicy, start: State): { readonly state: State; readonly plan: RetentionPlan<File> } {
  let state = start;
  for (let turn = 0; turn < 50; turn++) {
    let plan = planRetention(of, { ...state, isPressed: false });
    // As retention.ts does: merging first.
    if (plan.steps.length === 0) plan = planRetention(of, { ...state, isPressed: true });
    if (plan.steps.length === 0) return { state, plan };
    state = after(state, plan);
  }
  throw new Error('it never ends');
}

const numbersOf = (state: State): number[] => state.points.map(({ point }) => point);

t.test('every point of the window, then one an hour, a day, a week, a month', async (t) => {
  // Five weeks, every ten minutes.
  const times = Array.from({ length: 5 * 7 * 144 }, (_, index) => mondayMs + index * 10 * minuteMs);
  const { state } = settled(policy({ hourly: 6, daily: 3, weekly: 2, monthly: 2 }), timeline(times));
  const kept = state.points.map(({ arrivedAtMs }) => (arrivedAtMs - mondayMs) / hourMs);
  const end = 5 * 7 * 24;
  const inWindow = kept.filter((hour) => hour >= end - 5);
  t.same(inWindow, times.map((ms) => (ms - mondayMs) / hourMs).filter((hour) => hour >= end - 5), 'the window, with the whole of its first hour');
  const older = kept.filter((hour) => hour < end - 5);
  const lastDay = end - 24;
  t.same(older.filter((hour) => hour >= lastDay), Array.from({ length: 19 }, (_, index) => lastDay + index), 'hours, down to where their day begins');
  const days = older.filter((hour) => hour < lastDay);
  t.ok(days.every((hour) => hour % 24 === 0), 'then days, from their first point');
  t.same(days.filter((hour) => hour >= end - 7 * 24).map((hour) => hour / 24), [28, 29, 30, 31, 32, 33], 'down to where their week begins');
  t.same(days.filter((hour) => hour < end - 7 * 24).map((hour) => hour / 24), [0, 15, 21], 'a week before, and the first of each month');
});

t.test('a point of the guest’s own choice is preferred in its period', async (t) => {
  const times = Array.from({ length: 600 }, (_, index) => mondayMs + index * 2 * minuteMs);
  const app = { 50: { kind: 'app' as const }, 70: { label: 'before the upgrade' }, 71: { kind: 'mark' as const }, 110: { label: 'x' }, 100: { kind: 'app' as const } };
  const { state } = settled(policy({ windowMs: hourMs, hourly: 30 }), timeline(times, app));
  t.same(numbersOf(state).filter((point) => point < 130), [1, 50, 70, 100, 121], 'app before mark before the first of the hour');
});

t.test('time is what passed from point to point, by the target, and no gap counts more than it may', async (t) => {
  const many = Array.from({ length: 60 }, (_, index) => mondayMs + index * minuteMs);
  const silent = [...many, mondayMs + 400 * dayMs, mondayMs + 400 * dayMs + minuteMs];
  t.same(numbersOf(settled(policy({ windowMs: 2 * hourMs }), timeline(silent)).state).length, 62, 'a source that comes back after a year, or a clock that jumped ahead, ages nothing by more than a gap');
  const setBack = [...many, ...Array.from({ length: 500 }, () => many.at(-1)!)];
  t.equal(numbersOf(settled(policy({ windowMs: 2 * hourMs }), timeline(setBack)).state).length, 560, 'a clock that was set back ages nothing');
  t.equal(planRetention(policy(), timeline(silent)).windowHadMs, 59 * minuteMs + gapMsMax + minuteMs);
});

t.test('what fills the space is given up from the oldest on, and never of the window', async (t) => {
  const times = Array.from({ length: 400 }, (_, index) => mondayMs + index * 10 * minuteMs);
  const of = policy({ windowMs: 10 * hourMs, hourly: 100 });
  const ample = settled(of, { ...timeline(times), limitBytes: 100_000_000 });
  t.equal(ample.plan.space, 'ample');
  const tight = settled(of, { ...timeline(times), limitBytes: 10_000 });
  t.equal(tight.plan.space, 'tight');
  t.ok(tight.state.usedBytes <= 10_000);
  t.same(numbersOf(tight.state), numbersOf(ample.state).slice(-tight.state.points.length), 'from the oldest on');
  const full = settled(of, { ...timeline(times), limitBytes: 3_000 });
  t.equal(full.plan.space, 'full');
  t.ok(full.state.points.length >= 61 && full.state.points.length <= 67, 'the window stays');
  const pinned = settled(of, { ...timeline(times, { 7: { isPinned: true } }), limitBytes: 3_000 });
  t.equal(numbersOf(pinned.state)[0], 7, 'what is held stays');
  t.equal(pinned.plan.space, 'full');
});

t.test('the journal is kept for points inside batches, as far as the window goes', async (t) => {
  const times = Array.from({ length: 100 }, (_, index) => mondayMs + index * 10 * minuteMs);
  const inner = new Set([...Array.from({ length: 18 }, (_, index) => 2 + index), 90, 91]);
  t.same(planRetention(policy(), timeline(times, {}, inner)).journalFrom, id(89));
  t.same(planRetention(policy({ windowMs: 100 * hourMs }), timeline(times, {}, inner)).journalFrom, id(1));
  t.same(planRetention(policy(), timeline(times)).journalFrom, id(100), 'none is needed');
  t.same(planRetention(policy(), timeline(times, {}, new Set([1]))).journalFrom, id(100), 'one before the window does not count');
});

t.test('of any timeline', async (t) => {
  const policies = fc.record({
    windowMs: fc.integer({ min: 0, max: 12 * hourMs }), hourly: fc.integer({ min: 0, max: 30 }), daily: fc.integer({ min: 0, max: 9 }),
    weekly: fc.integer({ min: 0, max: 6 }), monthly: fc.integer({ min: 0, max: 14 }), budgetBytes: fc.constant(null),
  });
  const gap = fc.oneof({ weight: 8, arbitrary: fc.integer({ min: 0, max: 20 * minuteMs }) }, { weight: 2, arbitrary: fc.integer({ min: 0, max: 30 * hourMs }) }, fc.integer({ min: 0, max: 40 * dayMs }));
  const point = fc.record({ gap, isInner: fc.boolean(), pin: fc.integer({ min: 0, max: 30 }), kind: fc.constantFrom('crash' as const, 'crash' as const, 'crash' as const, 'app' as const, 'mark' as const) });
  const lives = fc.record({ of: policies, points: fc.array(point, { minLength: 1, maxLength: 120 }), limitBytes: fc.option(fc.integer({ min: 0, max: 9_000 })) });
  fc.assert(fc.property(lives, ({ of, points, limitBytes }) => {
    let ms = mondayMs;
    const change: Partial<Record<number, Partial<RetainedPoint>>> = {};
    const inner = new Set<number>();
    const times = points.map((one, index) => {
      change[index + 1] = { kind: one.kind, isPinned: one.pin === 0 };
      if (one.isInner && index < points.length - 1) inner.add(index + 1);
      return ms += one.gap;
    });
    // What is pinned starts from its boundary: a pin of an inner point pins that.
    for (const number of inner) change[number] = { ...change[number], isPinned: false };
    const start = { ...timeline(times, change, inner), limitBytes };
    const { state, plan } = settled(of, start);
    const kept = new Set(numbersOf(state));
    const newest = start.points.at(-1)!;
    if (!kept.has(newest.point)) throw new Error('the newest went');
    for (const { point: number, isPinned } of start.points) if (isPinned && !kept.has(number)) throw new Error(`${number} was held`);
    let ageMs = 0;
    for (let index = start.points.length - 1; index >= 0; index--) {
      if (index < start.points.length - 1) ageMs += Math.min(gapMsMax, start.points[index + 1]!.arrivedAtMs - start.points[index]!.arrivedAtMs);
      if (ageMs <= of.windowMs && !kept.has(index + 1)) throw new Error(`${index + 1} was promised`);
    }
    for (const [index, file] of state.files.entries()) if (index > 0 && pointKey(state.files[index - 1]!.to) !== pointKey(file.from!)) throw new Error('the line is broken');
    if (limitBytes !== null && state.usedBytes > limitBytes && plan.space !== 'full') throw new Error('too much, and nobody is told');
    const again = planRetention(of, { ...state, isPressed: true });
    if (again.steps.length > 0) throw new Error('not at rest');
  }), { numRuns: 1500 });
});

t.test('the window of a group that has all of its points is never short, whenever they come', async (t) => {
  fc.assert(fc.property(fc.array(fc.integer({ min: 1000, max: 5 * minuteMs }), { minLength: 900, maxLength: 1000 }), fc.integer({ min: 30 * minuteMs, max: 60 * minuteMs }), (gaps, windowMs) => {
    let arrivedAtMs = 0;
    const points = gaps.map((gapMs, index) => ({ term: 1, point: index + 1, kind: 'crash' as const, arrivedAtMs: (arrivedAtMs += gapMs), isPinned: false }));
    const { windowHadMs } = planRetention({ ...defaultRetention, windowMs }, { points, files: [], applied: points.at(-1)!, usedBytes: 0, limitBytes: null, isPressed: false });
    return windowHadMs <= windowMs && (arrivedAtMs - points[0]!.arrivedAtMs < windowMs || !isWindowShort({ windowMs, windowHadMs }, 5000));
  }), { numRuns: 50 });
  t.ok(isWindowShort({ windowMs: 4 * 3_600_000, windowHadMs: 3 * 3_600_000 }, 5000), 'what was given up is missed');
  t.ok(isWindowShort({ windowMs: 10 * 60_000, windowHadMs: 5 * 60_000 }, 5000), 'also of a short window');
});
