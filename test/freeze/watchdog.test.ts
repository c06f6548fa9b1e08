/**
 * The watchdog as the process that it is, against an agent that hangs, lies or goes away when a test wants it: whatever happens,
 * what was frozen is thawed, and the note goes exactly then. With the real agent it is in test/e2e/app-points.test.ts.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import pino from 'pino';
import t from 'tap';
import { AppHold } from '../../daemon/freeze/app-hold.ts';
import { armWatchdog, startThaw, type Watchdog } from '../../daemon/freeze/arm-watchdog.ts';
import { judgeDetachment, planDetachment } from '../../daemon/freeze/detachment-plan.ts';
import { FrozenNotes } from '../../daemon/freeze/frozen-notes.ts';
import { guardFreeze } from '../../daemon/freeze/guard.ts';
import type { GuardNews, GuardOrder } from '../../daemon/freeze/guard-messages.ts';
import { thawLeftovers } from '../../daemon/freeze/thaw-leftovers.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { waitFor } from '../support/wait.ts';
import { FakeAgent } from './fake-agent.ts';

/** Long: that a test ends well before it shows that something else made the thaw. */
const never = 600_000;
const log = pino({ level: 'silent' });

function orderFor(agent: FakeAgent, more: Partial<GuardOrder> = {}): GuardOrder {
  const notePath = join(agent.folder, 'web.json');
  writeFileSync(notePath, '{}');
  return { socketPath: agent.path, notePath, limitMs: never, answerMs: 5_000, task: 'guard', ...more };
}

async function armed(t: { teardown(end: () => void): unknown }, order: GuardOrder): Promise<Watchdog> {
  const watchdog = await armWatchdog(order);
  t.teardown(() => watchdog.leave());
  return watchdog;
}

const gone = (watchdog: Watchdog) => waitFor(() => readFile(`/proc/${watchdog.pid}/stat`, 'utf8').then((stat) => / [ZX] /.test(stat), () => true), { limitMs: 10_000, what: 'the watchdog to end' });

t.test('freeze, thaw, end; a session of its own', async (t) => {
  const agent = await FakeAgent.start(t);
  const order = orderFor(agent);
  const watchdog = await armed(t, order);
  const [, , , , , session] = (await readFile(`/proc/${watchdog.pid}/stat`, 'utf8')).split(' ');
  t.equal(Number(session), watchdog.pid, 'the daemon’s terminal and process group have no say in it');
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.kill(watchdog.pid!, signal);
  watchdog.say('freeze');
  t.match(await watchdog.next(10_000), { news: 'frozen', fileSystems: 2 });
  t.ok(agent.isFrozen);
  t.ok(existsSync(order.notePath));
  watchdog.say('thaw');
  t.match(await watchdog.next(10_000), { news: 'thawed', cause: 'word', fileSystems: 2 });
  t.notOk(agent.isFrozen);
  t.notOk(existsSync(order.notePath));
  await gone(watchdog);
});

t.test('a word that comes while the thaw at the limit is under way changes nothing', async (t) => {
  const agent = await FakeAgent.start(t);
  const news: GuardNews[] = [];
  let sayThaw: (word: 'thaw') => void = () => undefined;
  const words = [Promise.resolve('freeze' as const), new Promise<'thaw'>((resolve) => { sayThaw = resolve; })];
  agent.before = async ({ execute }) => {
    if (execute !== 'guest-fsfreeze-thaw') return;
    sayThaw('thaw');
    // All that hears of the word hears of it before the agent goes on.
    await new Promise((resolve) => { setImmediate(resolve); });
  };
  const io = { controlGroup: '', say: (one: GuardNews) => { news.push(one); }, next: () => words.shift()! };
  t.equal(await guardFreeze(orderFor(agent, { limitMs: 500 }), io), 0);
  t.match(news, [{ news: 'ready' }, { news: 'frozen' }, { news: 'thawed', cause: 'limit', fileSystems: 2 }]);
});

t.test('the daemon’s end of the pipe closes: thawed at once, and before a freeze nothing happens', async (t) => {
  const agent = await FakeAgent.start(t);
  const watchdog = await armed(t, orderFor(agent));
  watchdog.say('freeze');
  t.match(await watchdog.next(10_000), { news: 'frozen' });
  watchdog.leave();
  t.match(await watchdog.next(10_000), { news: 'thawed', cause: 'orphaned' });
  t.notOk(agent.isFrozen);
  const unused = await armed(t, orderFor(agent));
  unused.leave();
  await gone(unused);
  t.equal(agent.count('guest-fsfreeze-freeze'), 1);
});

t.test('the limit strikes by itself', async (t) => {
  const agent = await FakeAgent.start(t);
  const watchdog = await armed(t, orderFor(agent, { limitMs: 200 }));
  watchdog.say('freeze');
  t.match(await watchdog.next(10_000), { news: 'frozen' });
  t.match(await watchdog.next(10_000), { news: 'thawed', cause: 'limit' });
  t.notOk(agent.isFrozen);
});

t.test('a freeze that is not answered: told at the limit, or when the daemon is gone; thawed as soon as it ends', async (t) => {
  for (const isOrphaned of [false, true]) {
    const agent = await FakeAgent.start(t);
    const order = orderFor(agent, { limitMs: isOrphaned ? never : 200 });
    const watchdog = await armed(t, order);
    let goOn: (() => void) | undefined;
    agent.before = ({ execute }) => (execute === 'guest-fsfreeze-freeze' ? new Promise<void>((resolve) => { goOn = resolve; }) : undefined);
    watchdog.say('freeze');
    await waitFor(() => goOn !== undefined, { limitMs: 10_000, what: 'the freeze to arrive' });
    if (isOrphaned) watchdog.leave();
    t.match(await watchdog.next(10_000), { news: 'failed', code: 'FREEZE_LATE' });
    t.ok(existsSync(order.notePath), 'it may still freeze');
    goOn!();
    t.match(await watchdog.next(10_000), { news: 'thawed', cause: isOrphaned ? 'orphaned' : 'limit' });
    t.notOk(agent.isFrozen);
    t.notOk(existsSync(order.notePath));
  }
});

t.test('the agent’s connection breaks while frozen: it connects again and thaws', async (t) => {
  const agent = await FakeAgent.start(t);
  const order = orderFor(agent);
  const watchdog = await armed(t, order);
  watchdog.say('freeze');
  t.match(await watchdog.next(10_000), { news: 'frozen' });
  agent.hangUp();
  watchdog.say('thaw');
  t.match(await watchdog.next(10_000), { news: 'stuck' });
  t.match(await watchdog.next(10_000), { news: 'thawed' });
  t.notOk(agent.isFrozen);
  t.equal(agent.connections, 2);
});

t.test('its QEMU ends while frozen: so does the watchdog, and the note goes', async (t) => {
  const agent = await FakeAgent.start(t);
  const order = orderFor(agent);
  const watchdog = await armed(t, order);
  watchdog.say('freeze');
  t.match(await watchdog.next(10_000), { news: 'frozen' });
  agent.end();
  watchdog.leave();
  await waitFor(() => !existsSync(order.notePath), { limitMs: 20_000, what: 'the note to go' });
  await gone(watchdog);
});

t.test('no freeze where the agent is silent, or somebody else has frozen', async (t) => {
  const agent = await FakeAgent.start(t);
  agent.isFrozen = true;
  await t.rejects(armWatchdog(orderFor(agent)), { code: 'FREEZE_FOREIGN' });
  t.ok(agent.isFrozen, 'what others froze is theirs to thaw');
  agent.before = () => new Promise<void>(() => undefined);
  await t.rejects(armWatchdog(orderFor(agent, { answerMs: 200 })), { code: 'AGENT_SILENT' });
  await t.rejects(armWatchdog(orderFor(agent, { socketPath: join(agent.folder, 'none') })), { code: 'AGENT_UNREACHABLE' });
});

t.test('what an earlier life left frozen is thawed at the start, and nothing is frozen before', async (t) => {
  const agent = await FakeAgent.start(t);
  const notes = new FrozenNotes(join(agent.folder, 'frozen'));
  await notes.prepare();
  await notes.put({ guest: 'web', socketPath: agent.path, sinceMs: 1 });
  agent.isFrozen = true;
  let isMute = true;
  agent.reply = (_command, bytes) => (isMute ? null : bytes);
  const hold = new AppHold({ guest: 'web', agentPath: agent.path, findChannel: () => { throw new Error('not asked'); }, limitMs: never, notes, clock: nodeClock, log });
  await hold.begin();
  t.equal(await hold.release(true), 'crash');
  t.match(hold.outcome, { notApp: 'FREEZE_PENDING' });
  await thawLeftovers(notes, log);
  isMute = false;
  await waitFor(async () => !await notes.has('web'), { limitMs: 20_000, what: 'the note to go' });
  t.notOk(agent.isFrozen);
  t.equal(agent.count('guest-fsfreeze-freeze'), 0);
  const order = orderFor(agent);
  const watchdog = await startThaw({ ...order, notePath: join(agent.folder, 'gone.json') });
  t.match(await watchdog.next(10_000), { news: 'thawed' }, 'somebody else has done it: nothing to do');
});

t.test('the watchdog itself is killed while the guest is frozen: another takes over', async (t) => {
  const agent = await FakeAgent.start(t);
  const notes = new FrozenNotes(join(agent.folder, 'frozen'));
  await notes.prepare();
  const hold = new AppHold({ guest: 'web', agentPath: agent.path, findChannel: () => { throw new Error('not asked'); }, limitMs: never, notes, clock: nodeClock, log });
  await hold.begin();
  t.ok(agent.isFrozen);
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (command.includes('watchdog') && command.includes(agent.path)) process.kill(Number(pid), 'SIGKILL');
  }
  await waitFor(() => !agent.isFrozen, { limitMs: 20_000, what: 'the guest to be thawed' });
  await waitFor(async () => !await notes.has('web'), { limitMs: 10_000, what: 'the note to go' });
  t.equal(await hold.release(true), 'crash');
  t.match(hold.outcome, { notApp: 'FREEZE_LATE' });
});

t.test('a hold: app only when all that was frozen was still frozen after the cut', async (t) => {
  const agent = await FakeAgent.start(t);
  const notes = new FrozenNotes(join(agent.folder, 'frozen'));
  await notes.prepare();
  const holdFor = (limitMs = never): AppHold => new AppHold({ guest: 'web', agentPath: agent.path, findChannel: () => { throw new Error('not asked'); }, limitMs, notes, clock: nodeClock, log });

  const good = holdFor();
  t.notOk(good.isUsed);
  await good.begin();
  t.ok(agent.isFrozen);
  const released = good.release(true);
  t.equal(good.release(false), released, 'the first word counts');
  t.equal(await released, 'app');
  t.match(good.outcome, { fault: null, frozenMs: Number, freezeMs: Number, thawMs: Number, notApp: undefined });
  t.notOk(await notes.has('web'));

  const early = holdFor();
  await early.begin();
  agent.isFrozen = false; // somebody in the guest
  t.equal(await early.release(true), 'crash');
  t.match(early.outcome, { notApp: 'FREEZE_LATE', fault: { message: /only 0 were still frozen/ } });

  const uncut = holdFor();
  await uncut.begin();
  t.equal(await uncut.release(false), 'crash');

  const late = holdFor(200);
  await late.begin();
  await waitFor(() => !agent.isFrozen, { limitMs: 10_000, what: 'the watchdog to thaw' });
  t.equal(await late.release(true), 'crash');
  t.match(late.outcome, { notApp: 'FREEZE_LATE' });
  await waitFor(async () => !await notes.has('web'), { limitMs: 10_000, what: 'the note to go' });

  agent.fileSystems = 0;
  const nothing = holdFor();
  await nothing.begin();
  t.equal(await nothing.release(true), 'crash');
  t.match(nothing.outcome, { notApp: 'FREEZE_NOTHING', frozenMs: undefined });
  await waitFor(async () => !await notes.has('web'), { limitMs: 10_000, what: 'the note to go' });

  const none = new AppHold({ guest: 'web', agentPath: null, findChannel: async () => ({ kind: 'taken', path: '/x' }), limitMs: never, notes, clock: nodeClock, log });
  await none.begin();
  t.equal(await none.release(true), 'crash');
  t.match(none.outcome, { notApp: 'AGENT_TAKEN' });
});

t.test('a systemd that cannot make a scope: a session of its own is taken, but not for a service', async (t) => {
  const agent = await FakeAgent.start(t);
  const order = orderFor(agent);
  const watchdog = await armed(t, order);
  watchdog.leave();
  await gone(watchdog);
  // Whether systemd-run is missing, fails or succeeds on the machine that this runs on: it is armed.
  const other = await armWatchdog(order, { hasSystemd: true });
  other.say('freeze');
  t.match(await other.next(10_000), { news: 'frozen' });
  other.leave();
  t.match(await other.next(10_000), { news: 'thawed' });
  await gone(other);
});

t.test('the watchdog is started out of the daemon’s control group where systemd could kill that', async (t) => {
  const service = '0::/system.slice/afterimage-source.service\n';
  const facts = { hasSystemd: true, isRoot: true, controlGroup: service };
  t.strictSame(planDetachment(facts), [['systemd-run', '--scope', '--quiet', '--collect', '--'], []]);
  t.match(planDetachment({ ...facts, isRoot: false })[0], ['systemd-run', '--user', '--scope']);
  t.strictSame(planDetachment({ ...facts, hasSystemd: false }), [[]]);
  t.match(judgeDetachment(facts, service), /systemd/, 'no freeze with a watchdog that dies with the daemon');
  t.equal(judgeDetachment(facts, '0::/system.slice/run-r1.scope\n'), null);
  t.equal(judgeDetachment({ ...facts, controlGroup: '0::/user.slice/user-0.slice/session-3.scope\n' }, '0::/user.slice/user-0.slice/session-3.scope\n'), null, 'a daemon that a person started');
  t.equal(judgeDetachment({ ...facts, hasSystemd: false, controlGroup: '0::/\n' }, '0::/\n'), null);
  t.equal(judgeDetachment({ ...facts, isDaemonKilledAlone: true }, service), null, 'a unit with KillMode=process');
  t.same(planDetachment({ ...facts, isDaemonKilledAlone: true }), [[]], 'which needs no scope');
});
