/** The failover state machine, a test's budget and end, and the steps that bring data home, as pure decisions. */
import t from 'tap';
import { phaseOf, refuseOtherPoint, rule, testBudget, testBudgetBytesMin, whyTestEnds, type FailoverStep, type GroupFacts, type TestLook } from '../../replica-target/failover/failover-plan.ts';
import { planLease, leaseEndMs } from '../../host/lease-plan.ts';
import type { WitnessView } from '../../host/witness.ts';
import { planAutomatic, type AutomaticFacts } from '../../replica-target/failover/automatic-plan.ts';
import { planNetwork } from '../../replica-target/failover/network-plan.ts';
import { homeProgress, nextHomeSteps } from '../../replica-target/failover/homecoming-plan.ts';

const resting: GroupFacts = { name: 'web', state: 'protected', isTesting: false, failedOverPid: null };

t.test('every step from every phase', (t) => {
  const phases: Record<string, GroupFacts> = {
    protected: resting,
    testing: { ...resting, isTesting: true },
    'failed over, running': { ...resting, state: 'failed-over', failedOverPid: 7 },
    'failed over, stopped': { ...resting, state: 'failed-over' },
    'failed over, a test not yet cleaned up': { ...resting, state: 'failed-over', isTesting: true },
  };
  const steps: readonly FailoverStep[] = ['fail-over', 'stop', 'roll-back', 'test', 'end-test'];
  const may: Record<string, readonly FailoverStep[]> = {
    protected: ['fail-over', 'test'],
    testing: ['fail-over', 'end-test'],
    'failed over, running': ['stop', 'roll-back'],
    'failed over, stopped': ['fail-over', 'stop', 'roll-back'],
    'failed over, a test not yet cleaned up': ['fail-over', 'stop', 'roll-back', 'end-test'],
  };
  for (const [phase, facts] of Object.entries(phases)) {
    t.strictSame(steps.filter((step) => rule(facts, step).may), may[phase], phase);
  }
  t.match(rule(phases['testing']!, 'fail-over'), { may: true, endsTest: true }, 'an emergency ends an exercise');
  t.match(rule(resting, 'fail-over'), { may: true, endsTest: false });
  t.match(rule(phases['failed over, running']!, 'fail-over'), { why: /pid 7/ });
  t.equal(phaseOf({ state: 'failed-over', isTesting: true }), 'failed-over');
  t.end();
});

t.test('a guest that ran before goes on at its point', (t) => {
  t.equal(refuseOtherPoint('web', { term: 1, point: 3 }, null), null);
  t.equal(refuseOtherPoint('web', { term: 1, point: 3 }, { term: 1, point: 3 }), null);
  t.match(refuseOtherPoint('web', { term: 1, point: 3 }, { term: 1, point: 4 }), /point 1\.3.*roll back/);
  t.end();
});

t.test('the budget of a test', (t) => {
  const gib = 1024 ** 3;
  const space = { askedBytes: null, freeBytes: 41 * gib, neededBytes: gib, disksBytes: 100 * gib };
  t.strictSame(testBudget(space), { budgetBytes: 10 * gib }, 'a quarter of what can be spared');
  t.ok('budgetBytes' in testBudget({ ...space, disksBytes: gib }) && (testBudget({ ...space, disksBytes: gib }) as { budgetBytes: number }).budgetBytes < 1.2 * gib, 'hardly more than the disks hold');
  t.strictSame(testBudget({ ...space, askedBytes: 40 * gib }), { budgetBytes: 40 * gib });
  t.strictSame(testBudget({ ...space, askedBytes: 40 * gib + 65_536 }), { sparedBytes: 40 * gib }, 'never what replication needs');
  t.strictSame(testBudget({ ...space, askedBytes: testBudgetBytesMin - 1 }), { sparedBytes: 40 * gib }, 'too little to boot');
  t.strictSame(testBudget({ ...space, freeBytes: gib }), { sparedBytes: 0 });
  t.strictSame(testBudget({ ...space, freeBytes: 0 }), { sparedBytes: 0 });
  t.end();
});

t.test('when a test ends', (t) => {
  const look: TestLook = { nowMs: 5, endsAtMs: 10, isRunning: true, runState: 'running', usedBytes: 0, budgetBytes: 100 << 20, freeBytes: 50, neededBytes: 20 };
  t.equal(whyTestEnds(look), null);
  t.equal(whyTestEnds({ ...look, isRunning: false }), 'guest-ended');
  t.equal(whyTestEnds({ ...look, nowMs: 10 }), 'limit');
  t.equal(whyTestEnds({ ...look, freeBytes: 19 }), 'space');
  t.equal(whyTestEnds({ ...look, usedBytes: (100 << 20) + 1 }), 'budget');
  t.equal(whyTestEnds({ ...look, runState: 'io-error', usedBytes: 99 << 20 }), 'budget', 'stopped at the end of its images');
  t.equal(whyTestEnds({ ...look, runState: 'io-error' }), null, 'stopped because the view was away: it goes on');
  t.equal(whyTestEnds({ ...look, runState: null }), null);
  t.end();
});

t.test('coming home', (t) => {
  const job = { doneBytes: 50, totalBytes: 100, isStopped: false };
  const backed = { isBacked: true, job: null };
  t.strictSame(nextHomeSteps({ runState: 'running', disks: [{ disk: 0, ...backed }, { disk: 1, ...backed }] }), [{ act: 'stream', disk: 0 }], 'one after the other');
  t.strictSame(nextHomeSteps({ runState: 'running', disks: [{ disk: 0, isBacked: true, job }, { disk: 1, ...backed }] }), []);
  t.strictSame(nextHomeSteps({ runState: 'running', disks: [{ disk: 0, isBacked: false, job: null }, { disk: 1, ...backed }] }), [{ act: 'stream', disk: 1 }]);
  t.strictSame(nextHomeSteps({ runState: 'io-error', disks: [{ disk: 0, isBacked: true, job: { ...job, isStopped: true } }] }), [{ act: 'resume', disk: 0 }, { act: 'continue' }]);
  t.strictSame(nextHomeSteps({ runState: 'paused', disks: [{ disk: 0, isBacked: true, job }] }), [], 'who was stopped by a person stays so');
  t.strictSame(nextHomeSteps({ runState: 'running', disks: [{ disk: 0, isBacked: false, job: null }] }), [{ act: 'arrived' }]);
  t.strictSame(nextHomeSteps({ runState: 'io-error', disks: [{ disk: 0, isBacked: false, job: null }] }), [{ act: 'continue' }, { act: 'arrived' }]);
  const sizes = new Map([[0, 1000], [1, 3000]]);
  t.strictSame(homeProgress([{ disk: 0, isBacked: false, job: null }, { disk: 1, isBacked: true, job }], sizes), { doneBytes: 2500, totalBytes: 4000 });
  t.strictSame(homeProgress([{ disk: 0, isBacked: true, job: { ...job, totalBytes: 0 } }, { disk: 1, ...backed }], sizes), { doneBytes: 0, totalBytes: 4000 });
  t.end();
});

t.test('what a holder makes of what the witness says', (t) => {
  const view = (term: number | null): WitnessView => ({ record: term === null ? null : { term, byId: 'b', by: 'bravo' }, revision: '7', holders: [] });
  t.same(planLease(view(null), 1), { step: 'hold' });
  t.same(planLease(view(1), 2), { step: 'hold' }, 'an older failover’s');
  t.same(planLease(view(2), 2), { step: 'hold' });
  t.same(planLease(view(3), 2), { step: 'stay-away', term: 3, by: 'bravo' });
  t.ok(leaseEndMs(1000, 30_000) < 31_000, 'there is time to stop before anybody else may go on');
  t.end();
});

t.test('only a group that nobody runs, as far as can be known, fails over by itself', (t) => {
  const view: WitnessView = { record: { term: 2, byId: 'a', by: 'alpha' }, revision: '7', holders: [] };
  const lost: AutomaticFacts = { view, state: 'protected', term: 2, hasPoint: true, isConnected: false };
  t.same(planAutomatic(lost), { step: 'count' });
  t.same(planAutomatic({ ...lost, term: 3 }), { step: 'count' }, 'a record of an older term is no obstacle');
  for (const [why, facts] of Object.entries<Partial<AutomaticFacts>>({
    'the witness cannot be asked': { view: null }, 'it was never told': { view: { ...view, record: null } }, 'it is held': { view: { ...view, holders: [{ holder: 's', by: 'alpha', term: 2 }] } },
    'it is live elsewhere': { view: { ...view, record: { term: 3, byId: 'c', by: 'carol' } } }, 'its source is there': { isConnected: true }, 'there is no point': { hasPoint: false }, 'it runs here': { state: 'failed-over' }, 'it is committed here': { state: 'committed' },
  })) t.equal(planAutomatic({ ...lost, ...facts }).step, 'watch', why);
  t.end();
});

t.test('where NICs lead: asked for, by MAC, by group, by default', (t) => {
  const configured = { web: { failover: { default: 'bridge:br0', '52:54:00:00:00:01': 'none' } } } as const;
  const plan = { group: 'web', kind: 'failover', asked: undefined, fallback: 'user', configured } as const;
  t.same(planNetwork(plan), { network: 'bridge:br0', networks: { '52:54:00:00:00:01': 'none' } });
  t.same(planNetwork({ ...plan, asked: 'none' }), { network: 'none', networks: {} }, 'for every NIC');
  t.same(planNetwork({ ...plan, kind: 'test', fallback: 'none' }), { network: 'none', networks: {} });
  t.same(planNetwork({ ...plan, group: 'db' }), { network: 'user', networks: {} });
  t.end();
});
