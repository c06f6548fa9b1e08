/** When it is looked whether groups could start, what is said of it, and that no failover ever waits for it. */
import { pino } from 'pino';
import t, { type Test } from 'tap';
import { Fault } from '../../journal/fault.ts';
import { StartWatch, type StartQuestion } from '../../replica-target/failover/start-check-watch.ts';
import { explained } from '../../replica-target/failover/start-explained.ts';
import type { StartFinding, StartReport, StartVerdict } from '../../replica-target/failover/start-finding.ts';
import type { GroupStore } from '../../replica-target/store/store.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { waitFor } from '../support/wait.ts';

const minuteMs = 60_000;
const everyMs = 60 * minuteMs;

interface Rig {
  readonly watch: StartWatch;
  readonly clock: SimulatedClock;
  readonly asked: StartQuestion[];
  readonly lines: { readonly level: number; readonly msg: string }[];
  readonly store: GroupStore;
  hardware: Readonly<Record<string, unknown>>;
  state: string;
  answer: () => Promise<StartVerdict>;
  /** Moves time in steps in which the watch gets its turns. */
  pass(ms: number): Promise<void>;
}

function startRig(t: Test): Rig {
  const clock = new SimulatedClock();
  const asked: StartQuestion[] = [];
  const lines: Rig['lines'] = [];
  const log = pino({ level: 'warn' }, { write: (line: string) => { lines.push(JSON.parse(line) as Rig['lines'][number]); } });
  const store = { groupId: 'ab', hardware: () => rig.hardware, report: () => ({ groupId: 'ab', name: 'web', state: rig.state, newest: {} }) } as unknown as GroupStore;
  const check = async (_store: GroupStore, question: StartQuestion): Promise<StartReport> => {
    asked.push(question);
    await question.qemu?.askAfter;
    const verdict = await rig.answer();
    const findings: StartFinding[] = [{ check: 'QEMU', verdict: 'fine', found: 'there', advice: '' }, { check: 'memory', verdict, found: 'so much', advice: 'Add memory.' }];
    return { group: 'web', atMs: clock.nowMs(), verdict, accel: 'tcg', network: question.network ?? 'none', findings };
  };
  const watch = new StartWatch({ everyMs, check, stores: () => [store], clock, log });
  t.teardown(() => watch.close());
  const rig: Rig = {
    watch, clock, asked, lines, store, hardware: { cpu: 1 }, state: 'protected', answer: async () => 'fine',
    async pass(ms) {
      for (let left = ms; left > 0; left -= 10_000) {
        clock.advance(Math.min(left, 10_000));
        await new Promise(setImmediate);
      }
    },
  };
  return rig;
}

t.test('on schedule, and when other hardware was announced', async (t) => {
  const rig = startRig(t);
  await rig.pass(10_000);
  t.equal(rig.asked.length, 1, 'soon after the start');
  t.match(rig.watch.report(), [{ group: 'web', verdict: 'fine', findings: [] }]);
  await rig.pass(everyMs - 10_000);
  t.equal(rig.asked.length, 1);
  await rig.pass(20_000);
  t.equal(rig.asked.length, 2);
  rig.hardware = { cpu: 1 };
  await rig.pass(minuteMs);
  t.equal(rig.asked.length, 2, 'the same was announced again');
  rig.hardware = { cpu: 2 };
  await rig.pass(10_000);
  t.equal(rig.asked.length, 3);
  rig.state = 'failed-over';
  await rig.pass(2 * everyMs);
  t.equal(rig.asked.length, 3, 'what runs here is not asked about');
});

t.test('a change to the worse is said once, what is refused is looked at sooner', async (t) => {
  const rig = startRig(t);
  rig.answer = async () => 'warning';
  await rig.pass(10_000);
  t.match(rig.lines, [{ level: 40, msg: /^web would start here with a difference: memory: so much/ }]);
  rig.answer = async () => 'refused';
  await rig.watch.check(rig.store);
  t.match(rig.lines.slice(1), [{ level: 50, msg: /^web could not start here: memory: so much/ }]);
  t.match(rig.watch.report(), [{ verdict: 'refused', findings: [{ check: 'memory' }] }], 'the report shows what is not fine');
  await rig.pass(6 * minuteMs);
  t.equal(rig.asked.length, 3);
  t.equal(rig.lines.length, 2, 'and is not said again');
  rig.answer = async () => 'fine';
  await rig.pass(6 * minuteMs);
  t.match(rig.watch.report(), [{ verdict: 'fine' }], 'the alarm has ended');
  rig.answer = async () => { throw new Error('a bug'); };
  await rig.pass(everyMs + minuteMs);
  t.ok(rig.lines.length > 2 && rig.lines.slice(2).every(({ level, msg }) => level === 50 && msg.includes('could not be checked')), 'the target goes on');
});

t.test('a failover takes what a young check found, and never waits for one', async (t) => {
  const rig = startRig(t);
  rig.answer = async () => 'refused';
  await rig.pass(10_000);
  const young = rig.watch.beside(rig.store, { accel: undefined, network: undefined });
  t.match(young.found(), { verdict: 'refused' });
  t.equal(rig.asked.length, 1, 'nothing was run');
  t.match(rig.lines.at(-1), { level: 40, msg: /^web is started here although it is refused: memory/ });

  let waiting: ((verdict: StartVerdict) => void) | null = null;
  rig.answer = () => new Promise((resolve) => { waiting = resolve; });
  const answerNow = async (verdict: StartVerdict): Promise<void> => {
    const answer = await waitFor(() => waiting, { limitMs: 5000, what: 'QEMU to be asked' });
    waiting = null;
    answer(verdict);
  };
  const other = rig.watch.beside(rig.store, { network: 'user' });
  t.equal(rig.asked.length, 2, 'another network was asked for');
  const during = async (): Promise<{ pid: number }> => {
    await new Promise(setImmediate);
    t.equal(waiting, null, 'what takes a processor is put off');
    return { pid: 7 };
  };
  t.strictSame(await explained(other, during), { pid: 7, startCheck: null }, 'the failover is done first');
  await answerNow('refused');
  t.match(await other.ended, { verdict: 'refused', network: 'user' });
  t.match(rig.watch.report(), [{ network: 'none' }], 'what was asked otherwise is not kept');

  rig.hardware = { cpu: 2 };
  const changed = rig.watch.beside(rig.store, {});
  t.equal(changed.found(), null, 'it was found of other hardware');
  const failing = explained(changed, async () => { throw new Fault('FAILOVER_BOOT', 'QEMU ended', { said: 'x' }); });
  t.equal(rig.asked.length, 3);
  await answerNow('refused');
  await t.rejects(failing, { code: 'FAILOVER_BOOT', message: 'QEMU ended\nWhat stands in its way here: memory: so much (Add memory.)', facts: { said: 'x', refused: [{ check: 'memory' }] } });
  rig.answer = async () => { throw new Error('a bug'); };
  await t.rejects(explained(rig.watch.beside(rig.store, { accel: 'kvm' }), async () => { throw new Fault('FAILOVER_BOOT', 'QEMU ended'); }), { message: 'QEMU ended' });
  await t.rejects(explained(rig.watch.beside(rig.store, { accel: 'kvm' }), async () => { throw new Fault('FAILOVER_STATE', 'runs already'); }), { code: 'FAILOVER_STATE', message: 'runs already' });
});
