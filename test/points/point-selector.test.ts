/** Naming points: what each form means, what is refused and how, and that no choice by time is ever later than was asked. */
import fc from 'fast-check';
import t from 'tap';
import { isFault, type Fault } from '../../journal/fault.ts';
import { choosePoint, isFixed, pinSelector, readSelector } from '../../replica-target/points/point-selector.ts';
import type { StoredPoint } from '../../replica-target/store/store.ts';

// Node looks at TZ anew whenever it is set.
process.env['TZ'] = 'Europe/Berlin';

const minuteMs = 60_000;
/** 2026-11-23 11:42:07 in Berlin. */
const nowMs = Date.UTC(2026, 10, 23, 10, 42, 7);

function point(term: number, number: number, cutAtMs: number, label?: string): StoredPoint {
  return { term, point: number, kind: 'crash', cutAtMs, arrivedAtMs: cutAtMs + 100, changedBytes: 4096, isApplied: true, ...(label === undefined ? {} : { label }) };
}

/** One a minute up to now; the last ten in term 2; 30 and 20 minutes ago labelled alike. */
const points = Array.from({ length: 60 }, (_, i) => {
  const agoMinutes = 59 - i;
  const label = agoMinutes === 30 || agoMinutes === 20 ? 'before upgrade' : undefined;
  return agoMinutes < 10 ? point(2, 10 - agoMinutes, nowMs - agoMinutes * minuteMs, label) : point(1, i + 1, nowMs - agoMinutes * minuteMs, label);
});
const chosen = (text: string, list: readonly StoredPoint[] = points, atMs = nowMs): string => {
  const { term, point } = choosePoint(list, text, atMs, 'web');
  return `${term}.${point}`;
};
function unknown(act: () => unknown): Fault {
  try {
    act();
  } catch (error) {
    if (isFault(error, 'POINT_UNKNOWN')) return error;
    throw error;
  }
  throw new Error('was not refused');
}

t.test('each form', async (t) => {
  t.equal(chosen('newest'), '2.10');
  t.equal(chosen('1.7'), '1.7');
  t.equal(chosen('7'), '2.7', 'a bare number is of the newest term');
  t.equal(chosen('-0s'), '2.10');
  t.equal(chosen('-1s'), '2.9');
  t.equal(chosen('-15m'), '1.45');
  t.equal(chosen('-14m59s'), '1.45');
  t.equal(chosen('-0h45m'), '1.15');
  t.equal(chosen('11:42:07'), '2.10', 'a time of day is local');
  t.equal(chosen('11:42:06'), '2.9');
  t.equal(chosen('11:42'), '2.9');
  t.equal(chosen('11:30:07.000'), '1.48');
  t.equal(chosen('2026-11-23T11:30:07'), '1.48');
  t.equal(chosen('2026-11-23 11:30'), '1.47');
  t.equal(chosen('2026-11-23T10:30:07Z'), '1.48');
  t.equal(chosen('2026-11-23T10:30:07.999Z'), '1.48');
  t.equal(chosen('2026-11-23T12:30:07+02:00'), '1.48');
  t.equal(chosen('2026-11-23T05:30:07-0500'), '1.48');
  t.equal(chosen('before upgrade'), '1.40', 'the newer of two');
  t.equal(chosen('label:before upgrade'), '1.40');
  t.equal(chosen('label:newest', [point(1, 1, 0, 'newest'), point(1, 2, 1)]), '1.1');
  t.equal(chosen('newest', [point(1, 1, 0, 'newest'), point(1, 2, 1)]), '1.2', 'a form wins over a label');
});

t.test('a time of day is the last one that was', async (t) => {
  const midnight = Date.UTC(2026, 10, 22, 23, 10);
  t.strictSame(readSelector('23:50', midnight), { by: 'time', atMs: Date.UTC(2026, 10, 22, 22, 50) });
  t.strictSame(readSelector('00:10', midnight), { by: 'time', atMs: midnight });
  t.strictSame(readSelector('23:50', Date.UTC(2026, 11, 31, 23, 10)), { by: 'time', atMs: Date.UTC(2026, 11, 31, 22, 50) }, 'over the end of a year');
});

t.test('what cannot be had is refused with what can', async (t) => {
  const gone = unknown(() => chosen('1.70'));
  t.match(gone.message, 'web has no point 1.70, or has it no longer; there are 60, from 1.1 (cut 2026-11-23T09:43:07Z) to 2.10 (cut 2026-11-23T10:42:07Z), labelled among others "before upgrade"');
  t.match(gone.facts, { group: 'web', pointCount: 60, oldest: { point: '1.1' }, newest: { point: '2.10', cutAtMs: nowMs }, labels: ['before upgrade'] });
  t.match(unknown(() => chosen('11')).message, /no point 2\.11/);
  t.match(unknown(() => chosen('-2h')).message, /no point from 2026-11-23T08:42:07Z or before/);
  t.match(unknown(() => chosen('befor upgrade')).message, /no point labelled "befor upgrade"/);
  t.match(unknown(() => chosen('newest', [])).message, /no point yet/);
  t.match(unknown(() => chosen('1', [point(3, 9, nowMs)])).message, /there is 3\.9, cut/);
  t.match(unknown(() => chosen('2062-11-23T10:00')).message, /has not been yet/);
  for (const text of ['2026-02-30T10:00', '2026-13-01T10:00', '25:00', '10:61', '2026-02-30T10:00Z', '2026-11-23T24:00Z']) t.match(unknown(() => chosen(text)).message, /is no time of any day/, text);
  t.match(unknown(() => chosen('')).message, /no point was named/);
});

t.test('when the clocks change', async (t) => {
  const after = Date.UTC(2026, 9, 25, 12);
  const twice = unknown(() => readSelector('2026-10-25T02:30', after));
  t.strictSame(twice.facts['instants'], ['2026-10-25T00:30:00Z', '2026-10-25T01:30:00Z']);
  t.match(twice.message, 'showed 2026-10-25T02:30 twice: name 2026-10-25T00:30:00Z or 2026-10-25T01:30:00Z');
  t.throws(() => readSelector('02:30', after), { code: 'POINT_UNKNOWN' });
  t.match(unknown(() => readSelector('2026-03-29 02:30', after)).message, /it never was/);
  t.strictSame(readSelector('2026-10-25T01:59:59', after), { by: 'time', atMs: Date.UTC(2026, 9, 24, 23, 59, 59) });
  t.strictSame(readSelector('2026-10-25T03:00', after), { by: 'time', atMs: Date.UTC(2026, 9, 25, 2) });
  t.strictSame(readSelector('2026-03-29T01:59', after), { by: 'time', atMs: Date.UTC(2026, 2, 29, 0, 59) });
  t.strictSame(readSelector('2026-03-29T03:00', after), { by: 'time', atMs: Date.UTC(2026, 2, 29, 1) });
  t.strictSame(readSelector('-24h', after), { by: 'time', atMs: after - 86_400_000 }, 'a day ago is 24 hours ago');
  process.env['TZ'] = 'Australia/Lord_Howe';
  t.equal((unknown(() => readSelector('2026-04-05T01:45', after)).facts['instants'] as string[]).length, 2, 'a change by half an hour');
  process.env['TZ'] = 'Europe/Berlin';
});

t.test('pinned, a name means the same later and elsewhere', async (t) => {
  t.equal(pinSelector('-15m', nowMs), '2026-11-23T10:27:07Z');
  t.equal(pinSelector('11:30', nowMs), '2026-11-23T10:30:00Z');
  for (const text of ['newest', '1.7', '7', 'before upgrade', 'label:12']) t.equal(pinSelector(text, nowMs), text);
  t.ok(isFixed(readSelector('1.7', nowMs)));
  for (const text of ['newest', '7', '-15m', 'before upgrade']) t.notOk(isFixed(readSelector(text, nowMs)), text);
});

t.test('by time: never later than asked, and nothing newer would do', async () => {
  const cuts = fc.array(fc.integer({ min: 0, max: 5_000 }), { minLength: 1, maxLength: 40 }).map((gaps) => {
    let cutAtMs = Date.UTC(2026, 0, 1);
    return gaps.map((gapMs, i) => point(1, i + 1, cutAtMs += gapMs));
  });
  fc.assert(fc.property(cuts, fc.integer({ min: -2_000, max: 250_000 }), fc.constantFrom('UTC', 'America/New_York', 'Asia/Kathmandu'), (list, offsetMs, zone) => {
    process.env['TZ'] = zone;
    const askedMs = Date.UTC(2026, 0, 1) + offsetMs;
    const text = pinSelector(new Date(askedMs).toISOString(), nowMs);
    let found: StoredPoint | null = null;
    try {
      found = choosePoint(list, text, nowMs, 'web');
    } catch (error) {
      if (!isFault(error, 'POINT_UNKNOWN')) throw error;
    }
    if (found === null) return list.every(({ cutAtMs }) => cutAtMs > askedMs);
    return found.cutAtMs <= askedMs && list.every(({ cutAtMs, point }) => cutAtMs > askedMs || point <= found.point);
  }));
});

t.test('no text does anything but choose a point or be refused', async () => {
  const texts = fc.oneof(fc.string(), fc.stringMatching(/^[-+:.TZ0-9dhms ]{0,24}$/));
  fc.assert(fc.property(texts, (text) => {
    try {
      return points.includes(choosePoint(points, text, nowMs, 'web'));
    } catch (error) {
      return isFault(error, 'POINT_UNKNOWN');
    }
  }), { numRuns: 2000 });
});
