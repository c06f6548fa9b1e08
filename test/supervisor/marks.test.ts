import t from 'tap';
import { isAppDue } from '../../daemon/supervisor/app-schedule-plan.ts';
import { Marks } from '../../daemon/supervisor/marks.ts';
import type { MarkedPoint } from '../../daemon/report.ts';
import { Fault } from '../../journal/fault.ts';
import type { Clock } from '../../host/clock.ts';

const hourMs = 3_600_000;

function clockAt(nowMs: number): Clock & { nowAt: number } {
  const clock = { nowAt: nowMs, nowMs: () => clock.nowAt, monotonicMs: () => clock.nowAt, delay: () => new Promise<void>(() => undefined) };
  return clock;
}

function pointOf(point: number, more: Partial<MarkedPoint> = {}): MarkedPoint {
  return { term: 1, point, kind: 'mark', cutAtMs: 1000 * point, isAppWanted: false, reason: null, ...more };
}

t.test('the schedule', async (t) => {
  t.equal(isAppDue(null, null, 0), false);
  t.equal(isAppDue(hourMs, null, 0), true, 'none yet');
  t.equal(isAppDue(hourMs, 1000, hourMs + 999), false);
  t.equal(isAppDue(hourMs, 1000, hourMs + 1000), true);
  t.equal(isAppDue(hourMs, 5000, 4000), true, 'the clock was set back');
});

t.test('requests are answered in order, each by its own point', async (t) => {
  const marks = new Marks(clockAt(0), 'web', null, null);
  t.equal(marks.next(), null);
  const first = marks.request({ isApp: false, label: 'a' }, hourMs, () => '');
  const second = marks.request({ isApp: true, label: 'b' }, hourMs, () => '');
  await marks.orRequest(new Promise(() => undefined));
  const order = marks.next()!;
  t.match(order, { wish: { isApp: false, label: 'a' }, isFrozenFor: false });
  order.cut(pointOf(1));
  t.equal(marks.held({ term: 1, point: 1 })?.point, 1);
  t.equal((await first).point, 1);
  t.match(marks.next(), { wish: { label: 'b' }, isFrozenFor: true });
  marks.next()!.cut(pointOf(2, { isAppWanted: true }));
  t.equal(marks.held({ term: 1, point: 1 }), null, 'the session ended, and the target does not have it');
  marks.next()!.cut(pointOf(2, { isAppWanted: true, label: 'again' }));
  t.equal(marks.held({ term: 1, point: 2 })?.label, 'again');
  t.equal((await second).label, 'again');
  t.equal(marks.lastAppAtMs, 2000);
  t.equal(marks.next(), null);
});

t.test('freezes that came to nothing are not repeated without end', async (t) => {
  const marks = new Marks(clockAt(0), 'web', null, null);
  const asked = marks.request({ isApp: true }, hourMs, () => '');
  for (let freeze = 1; freeze <= 3; freeze++) {
    t.ok(marks.next()!.isFrozenFor);
    marks.next()!.froze(new Fault('FREEZE_LATE', `number ${freeze}`));
  }
  const order = marks.next()!;
  t.match(order, { isFrozenFor: false, fault: { message: 'number 3' } });
  order.cut(pointOf(1, { kind: 'crash' }));
  marks.held({ term: 1, point: 1 });
  t.equal((await asked).kind, 'crash');
});

t.test('a request that is not answered in time is withdrawn, also while its point is on its way', async (t) => {
  const marks = new Marks(clockAt(0), 'web', null, null);
  const asked = marks.request({ isApp: false, label: 'a' }, 20, () => 'the guest is behind');
  const order = marks.next()!;
  order.cut(pointOf(7));
  await t.rejects(asked, { code: 'MARK_NOT_TAKEN', message: /the guest is behind.*it was cut as 1\.7, and may still arrive/ });
  const other = marks.request({ isApp: false, label: 'b' }, hourMs, () => '');
  order.cut(pointOf(7));
  t.equal(marks.held({ term: 1, point: 7 }), null, 'the next request is not answered with another’s point');
  marks.close();
  await t.rejects(other, { code: 'MARK_NOT_TAKEN' });
});

t.test('a bound on requests, and the end of supervision', async (t) => {
  const marks = new Marks(clockAt(0), 'web', null, null);
  const asked = Array.from({ length: 16 }, () => marks.request({ isApp: false }, hourMs, () => ''));
  await t.rejects(marks.request({ isApp: false }, hourMs, () => ''), { code: 'MARK_NOT_TAKEN' });
  marks.close();
  for (const one of await Promise.allSettled(asked)) t.equal(one.status, 'rejected');
});

t.test('by schedule: one at a time, and an asked one counts', async (t) => {
  const clock = clockAt(10 * hourMs);
  const marks = new Marks(clock, 'web', hourMs, null);
  t.match(marks.next(), { wish: { isApp: true } });
  marks.next()!.cut(pointOf(1, { cutAtMs: clock.nowAt, isAppWanted: true }));
  marks.held({ term: 1, point: 1 });
  t.equal(marks.next(), null);
  clock.nowAt += hourMs - 1;
  const asked = marks.request({ isApp: true }, hourMs, () => '');
  marks.next()!.cut(pointOf(2, { cutAtMs: clock.nowAt, isAppWanted: true }));
  marks.held({ term: 1, point: 2 });
  await asked;
  clock.nowAt += 1;
  t.equal(marks.next(), null);
});
