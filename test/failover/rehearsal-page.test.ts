/** The page of a rehearsal: what guests and configs say in it is text, whatever it looks like. And what a rehearsal is judged by. */
import t from 'tap';
import { startStages, startAtOnce } from '../../replica-target/failover/readiness-plan.ts';
import { rehearsalPage } from '../../replica-target/failover/rehearsal-page.ts';
import { judgeRehearsal, type RehearsalReport } from '../../replica-target/failover/rehearsal-report.ts';

const hostile = '</pre><script>alert(1)</script>"\'&\u0000\u001b[31m';
const report: RehearsalReport = {
  group: 'web', groupId: 'ab', point: { term: 1, point: 2, kind: 'app', cutAtMs: 1_700_000_000_000 }, startedAtMs: 1_700_000_060_000, endedAtMs: 1_700_000_090_000, by: 'person', version: '0.1', isPassed: false,
  why: hostile, rtoMs: 300, readyMs: null, accel: 'tcg', network: 'none',
  guests: [{ name: 'web', state: 'late', readyMs: null, checks: [{ check: 'command', what: hostile, isReady: false, tookMs: 5, why: hostile }], screen: null, screenWhy: hostile, serial: 'web.log' }],
};

t.test('nothing that is said in it becomes markup', async (t) => {
  const page = rehearsalPage(report, [{ guest: 'web', screen: null, serial: hostile }]);
  t.notMatch(page, /<script|[\u0000\u001b]/);
  t.equal(page.split('alert(1)').length - 1, 5, 'it is there as text');
  t.match(page, /1\.2 \(app\), cut 2023-11-14 22:13:20 UTC/);
  t.match(page, /default-src 'none'/, 'and nothing is loaded from elsewhere');
});

t.test('a rehearsal passes when every guest was ready', async (t) => {
  const ready = { name: 'db', state: 'ready', checks: [], readyMs: 10 } as const;
  t.same(judgeRehearsal([ready, { ...ready, name: 'web', readyMs: 20 }], null), { isPassed: true, why: '', readyMs: 20 });
  t.match(judgeRehearsal([ready, { ...ready, name: 'web', state: 'late', readyMs: null, checks: [{ check: 'agent', what: 'its agent answers', isReady: false, tookMs: 1, why: 'silent' }] }], null), { isPassed: false, why: 'web was not ready in time (its agent answers: silent)' });
  t.match(judgeRehearsal([{ ...ready, state: 'waiting', readyMs: null }], null), { isPassed: false, why: 'db was not started' });
  t.match(judgeRehearsal([ready], 'budget'), { isPassed: false, why: /budget/ });
  t.equal(judgeRehearsal([], null).isPassed, false, 'nothing proves nothing');
});

t.test('places of the start', async (t) => {
  const at = (order: number) => ({ ...startAtOnce, order });
  t.same(startStages(['web', 'db', 'cache'], { db: at(1), web: at(2) }), [['cache'], ['db'], ['web']]);
  t.same(startStages(['a', 'b'], {}), [['a', 'b']]);
});
