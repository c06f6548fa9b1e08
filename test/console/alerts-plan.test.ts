/** The decisions behind alerts: what is wrong in a report, what is told of it and when, what is kept of what waits. */
import fc from 'fast-check';
import t from 'tap';
import { adviceFor } from '../../console/alerts/alert-codes.ts';
import { defaultThresholds, type Condition, type Notice, type QuietHours } from '../../console/alerts/alert-options.ts';
import { findConditions } from '../../console/alerts/alert-rules-plan.ts';
import { isQuietAt, planAlerts, type AlertClock, type KeptAlert } from '../../console/alerts/alert-state-plan.ts';
import { emailOf } from '../../console/alerts/email-channel.ts';
import { enqueue, nextDelivery, retryDelayMs, waitingMax } from '../../console/alerts/outbox-plan.ts';
import type { RehearsalReport } from '../../replica-target/failover/rehearsal-report.ts';
import type { TargetReport } from '../../replica-target/report.ts';
import { atMs, behindGuest, group, protectedGuest, sourceTargetDown, sourceUp, startChecked, targetUp } from './fixed-reports.ts';

const minute = 60_000;
const found = (report: Parameters<typeof findConditions>[0], thresholds = defaultThresholds): string[] => findConditions(report, thresholds).map(({ severity, key, forMs }) => `${severity} ${key}${forMs === 0 ? '' : ` for ${forMs / 1000}`}`).sort();
const quietTarget: TargetReport = { ...targetUp, groups: [group] };

t.test('rules: all is well', (t) => {
  t.strictSame(found(sourceUp), []);
  t.strictSame(found(quietTarget), []);
  t.end();
});

t.test('rules: at a source', (t) => {
  t.strictSame(found(sourceTargetDown), ['error RPO_LATE db bravo', 'error TARGET_ABSENT  bravo for 300']);
  const late = (newestPointMs: number, phase = protectedGuest.phase) => found({ ...sourceUp, guests: [{ ...protectedGuest, phase, clocks: { ...protectedGuest.clocks, newestPointMs } }] });
  t.strictSame([late(14_000), late(15_000), late(15_001), late(60_000), late(60_001)], [[], [], ['warning RPO_LATE web bravo'], ['warning RPO_LATE web bravo'], ['error RPO_LATE web bravo']]);
  t.strictSame(late(900_000, 'relinquished'), [], 'it runs elsewhere');
  t.strictSame(found({ ...sourceUp, guests: [{ ...behindGuest, phase: 'refused', clocks: protectedGuest.clocks }] }), ['error NOT_PROTECTED db bravo for 30']);
  t.strictSame(found({ ...sourceUp, guests: [{ ...protectedGuest, lease: { state: 'lost', why: 'the witness is silent', isStopped: true } }] }), ['error LEASE_LOST web']);
  t.strictSame(found({ ...sourceUp, alarms: [{ code: 'RANSOM_SUSPECTED', group: 'web', message: 'm', sinceMs: 1 }, { code: 'RANSOM_SUSPECTED', group: 'web', message: 'again', sinceMs: 2 }] }), ['error RANSOM_SUSPECTED web']);
  t.end();
});

t.test('rules: at a target', (t) => {
  const of = (change: Partial<TargetReport>, thresholds = defaultThresholds) => found({ ...quietTarget, ...change }, thresholds);
  t.strictSame(found(targetUp), ['error STORE_FULL full']);
  t.strictSame(of({ sources: [] }), ['error SOURCE_ABSENT web for 300']);
  t.strictSame(of({ sources: [], groups: [{ ...group, newest: null }] }), [], 'it was never protected');
  t.strictSame(of({ groups: [{ ...group, newest: { ...group.newest!, arrivedAtMs: atMs - 120_000 } }] }), ['error RPO_LATE web']);
  t.strictSame(of({ sources: [], groups: [{ ...group, state: 'failed-over' }] }), ['error FAILED_OVER web']);
  const retention = { windowMs: 4 * 3_600_000, hourly: 1, daily: 1, weekly: 1, monthly: 1, budgetBytes: null, windowHadMs: 4 * 3_600_000, usedBytes: 9, limitBytes: 10, space: 'tight' as const };
  t.strictSame(of({ groups: [{ ...group, retention }] }), ['warning SPACE_TIGHT web for 30']);
  t.strictSame(of({ groups: [{ ...group, retention: { ...retention, space: 'ample', windowHadMs: minute } }] }), ['warning HISTORY_SHORT web for 15840']);
  t.strictSame(of({ groups: [{ ...group, retention: { ...retention, space: 'ample', windowHadMs: retention.windowMs - group.rpoMs } }] }), [], 'short by the gap in which the window ends');
  t.strictSame(of({ volume: { freeBytes: 50, keptBytes: 50, fullInMs: 0 } }), ['error VOLUME_FILLS']);
  t.strictSame(of({ volume: { freeBytes: 500, keptBytes: 50, fullInMs: 3_600_000 } }), ['warning VOLUME_FILLS for 30']);
  t.strictSame(of({ volume: { freeBytes: 500, keptBytes: 50, fullInMs: null } }), []);
  t.strictSame(of({ certificateExpiresAtMs: atMs + 20 * 86_400_000 }), ['warning CERTIFICATE_EXPIRES']);
  t.strictSame(of({ certificateExpiresAtMs: atMs - 1 }), ['error CERTIFICATE_EXPIRES']);
  t.strictSame(of({ startChecks: [startChecked] }), ['error START_REFUSED web']);
  t.strictSame(of({ checks: [{ group: 'web', lastAtMs: atMs, findingCount: 2, findings: [], underWay: null }] }), ['error DATA_DAMAGED web']);
  const rehearsal = { group: 'web', isPassed: false, why: 'no login', endedAtMs: atMs, folder: '/f', lastPassedAtMs: atMs - 40 * 86_400_000 } as RehearsalReport & { folder: string; lastPassedAtMs: number };
  t.strictSame(of({ rehearsals: [rehearsal] }), ['error REHEARSAL_FAILED web']);
  const proven = { ...defaultThresholds, provenMs: 35 * 86_400_000 };
  t.strictSame(of({ rehearsals: [{ ...rehearsal, isPassed: true }] }, proven), ['warning BOOT_UNPROVEN web']);
  t.strictSame(of({ rehearsals: [{ ...rehearsal, isPassed: true, lastPassedAtMs: atMs - 86_400_000 }] }, proven), []);
  t.strictSame(of({}, proven), [`warning BOOT_UNPROVEN web for ${35 * 86_400}`], 'never rehearsed');
  t.strictSame(of({ automatic: [{ group: 'web', afterMs: 1, why: 'w', unheldMs: 5, lastFault: { code: 'X', message: 'm', atMs } }] }), ['error AUTOMATIC_FAILED web']);
  for (const code of ['RPO_LATE', 'STORE_FULL', 'RETENTION_FULL', 'TEST']) t.ok(adviceFor(code).length > 5, code);
  t.equal(adviceFor('OF_ANOTHER_RELEASE'), '');
  t.end();
});

const condition = (key: string, severity: Condition['severity'] = 'error', forMs = 0): Condition => ({ key, code: key, group: null, severity, message: key, forMs });

/** What is told over time: a line per look, `at` in ms. */
function play(looks: readonly (readonly [number, readonly Condition[]])[], clock: Partial<AlertClock> = {}): string[] {
  let kept: readonly KeptAlert[] = [];
  return looks.flatMap(([nowMs, conditions]) => {
    const planned = planAlerts(kept, conditions, { nowMs, settleMs: 10, repeatEveryMs: null, isQuiet: () => false, ...clock });
    // As over a restart.
    kept = JSON.parse(JSON.stringify(planned.kept)) as KeptAlert[];
    return planned.tell.map(({ event, alert }) => `${nowMs} ${event} ${alert.severity} ${alert.key}`);
  });
}

t.test('told once when raised, once when over', (t) => {
  const a = condition('a');
  t.strictSame(play([[0, [a]], [5, [a]], [10, [a]], [15, []], [20, []], [25, []], [30, []]]), ['0 raised error a', '25 recovered error a']);
  t.strictSame(play([[0, [a]], [5, []], [10, [a]], [30, [a]], [31, []], [50, []]]), ['0 raised error a', '50 recovered error a'], 'gone for a moment is not over');
  const slow = condition('a', 'error', 20);
  t.strictSame(play([[0, [slow]], [15, []], [16, [slow]], [30, [slow]], [36, [slow]], [40, []], [50, []]]), ['36 raised error a', '50 recovered error a'], 'only what has lasted');
  t.strictSame(play([[0, [slow]], [15, []], [60, []]]), [], 'what was never told is never over');
  t.strictSame(play([[0, [condition('a', 'warning')]], [5, [a]], [6, [condition('a', 'warning')]], [7, [a]], [20, []], [40, []]]), ['0 raised warning a', '5 raised error a', '40 recovered error a'], 'a warning that becomes an error');
  t.strictSame(play([[0, [a]], [50, [a]], [100, [a]], [150, [a]], [199, [a]], [200, [a]]], { repeatEveryMs: 100 }), ['0 raised error a', '100 repeated error a', '200 repeated error a']);
  t.end();
});

t.test('quiet hours', (t) => {
  const a = condition('a', 'warning');
  const quietUntil = (untilMs: number) => (looks: readonly (readonly [number, readonly Condition[]])[]) => {
    let kept: readonly KeptAlert[] = [];
    return looks.flatMap(([nowMs, conditions]) => {
      const planned = planAlerts(kept, conditions, { nowMs, settleMs: 10, repeatEveryMs: null, isQuiet: (severity) => severity === 'warning' && nowMs < untilMs });
      kept = planned.kept;
      return planned.tell.map(({ event, alert }) => `${nowMs} ${event} ${alert.key}`);
    });
  };
  t.strictSame(quietUntil(100)([[0, [a]], [50, [a]], [100, [a]], [110, []], [130, []]]), ['100 raised a', '130 recovered a'], 'what lasts is told afterwards');
  t.strictSame(quietUntil(100)([[0, [a]], [50, []], [90, []], [100, []]]), [], 'what is over is not');
  t.strictSame(quietUntil(100)([[0, [condition('e')]]]), ['0 raised e'], 'errors pass');

  const night: QuietHours = { fromMinute: 22 * 60, toMinute: 7 * 60, days: [5], errors: 'pass' };
  const at = (day: number, hours: number, minutes = 0) => new Date(2030, 0, 6 + day, hours, minutes);
  const isQuiet = (date: Date, hours = night, severity: Condition['severity'] = 'warning') => isQuietAt(hours, date, severity);
  t.equal(at(5, 12).getDay(), 5, 'a Friday');
  t.same([at(5, 21, 59), at(5, 22), at(6, 6, 59), at(6, 7), at(4, 23), at(5, 3)].map((date) => isQuiet(date)), [false, true, true, false, false, false]);
  t.equal(isQuiet(at(5, 23), night, 'error'), false);
  t.equal(isQuiet(at(5, 23), { ...night, errors: 'hold' }, 'error'), true);
  t.same([at(0, 0), at(0, 23, 59), at(1, 0)].map((date) => isQuiet(date, { ...night, fromMinute: 0, toMinute: 0, days: [0] })), [true, true, false]);
  t.equal(isQuietAt(null, at(5, 23), 'warning'), false);
  t.end();
});

t.test('property: per alert, tellings alternate between raised and recovered, however it comes and goes', (t) => {
  const looks = fc.array(fc.record({ stepMs: fc.integer({ min: 0, max: 30 }), on: fc.boolean(), isError: fc.boolean(), isQuiet: fc.boolean() }), { maxLength: 60 });
  t.doesNotThrow(() => fc.assert(fc.property(looks, fc.integer({ min: 0, max: 30 }), (steps, forMs) => {
    let kept: readonly KeptAlert[] = [];
    let nowMs = 0;
    const told: string[] = [];
    for (const { stepMs, on, isError, isQuiet } of steps) {
      nowMs += stepMs;
      const planned = planAlerts(kept, on ? [condition('a', isError ? 'error' : 'warning', forMs)] : [], { nowMs, settleMs: 10, repeatEveryMs: null, isQuiet: () => isQuiet });
      kept = planned.kept;
      for (const { event, alert } of planned.tell) told.push(`${event} ${alert.severity}`);
    }
    // Raised at most twice before it is over: as a warning, then as an error.
    return /^(raised (warning|error),(raised error,)?recovered (warning|error),)*(raised (warning|error),(raised error,)?)?$/.test(told.map((one) => `${one},`).join(''));
  }), { numRuns: 300 }));
  t.end();
});

const notice = (id: number, event: Notice['event'] = 'raised', at = 0): Notice => ({ id: String(id), event, code: 'RPO_LATE', group: 'web', severity: 'error', message: 'm', advice: 'a', sinceMs: 0, atMs: at });

t.test('what waits is bounded, and not kept for ever', (t) => {
  const many = Array.from({ length: waitingMax }, (_, at) => notice(at, at === 7 ? 'repeated' : 'raised'));
  const { waiting, dropped } = enqueue(many, [notice(1000), notice(1001)]);
  t.equal(waiting.length, waitingMax);
  t.equal(dropped, 2);
  t.notOk(waiting.some(({ id }) => id === '7'), 'reminders first');
  t.notOk(waiting.some(({ id }) => id === '0'), 'then the oldest');
  t.equal(nextDelivery(waiting, 0).send.length, 100);
  t.strictSame(nextDelivery([notice(1), notice(2, 'raised', 90_000_000)], 100_000_000), { send: [notice(2, 'raised', 90_000_000)], stale: [notice(1)] });
  t.same([1, 2, 3, 20, 5000].map(retryDelayMs), [5_000, 10_000, 20_000, 300_000, 300_000]);
  t.end();
});

t.test('an e-mail', (t) => {
  const from = { role: 'target' as const, name: 'bravo', version: '1' };
  const one = emailOf({ version: 1, id: 'i', sentAtMs: 0, from, notices: [{ ...notice(1), message: 'two\nlines\u001b[31m' }] });
  t.equal(one.subject, '[afterimage bravo] ERROR: RPO_LATE web');
  t.notMatch(one.text, '\u001b');
  t.match(one.text, /What you can do: a/);
  t.equal(emailOf({ version: 1, id: 'i', sentAtMs: 0, from, notices: [notice(1, 'recovered'), notice(2, 'recovered')] }).subject, '[afterimage bravo] recovered: 2 alerts');
  const lots = emailOf({ version: 1, id: 'i', sentAtMs: 0, from, notices: Array.from({ length: 80 }, (_, at) => notice(at)) });
  t.match(lots.text, /… and 30 more/);
  t.end();
});
