/** Scripts of an operator's: told the facts, limited in time, and never able to hold up whoever runs them. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pino } from 'pino';
import t from 'tap';
import { runHook, runHookAfter } from '../../replica-target/failover/hooks.ts';
import { runCommand } from '../../host/node/run-command.ts';
import { waitFor } from '../support/wait.ts';

const limitMs = 20_000;
const sh = (script: string): readonly string[] => ['sh', '-c', script];

t.test('how a command ends', async (t) => {
  const path = join(t.testdir({}), 'facts');
  t.equal(await runCommand(sh(`cat > ${path}`), { facts: { group: 'web', term: 2 }, limitMs }), null);
  t.same(JSON.parse(await readFile(path, 'utf8')), { group: 'web', term: 2 });
  t.equal(await runCommand(sh('echo no power >&2; exit 3'), { facts: {}, limitMs }), 'it ended with 3: no power');
  t.match(await runCommand(['/nowhere/at/all'], { facts: {}, limitMs }), /ENOENT/);
  t.equal(await runCommand(sh('kill -TERM $$'), { facts: {}, limitMs }), 'it ended with SIGTERM');
  t.match(await runCommand(sh('cat >/dev/null; echo waiting >&2; while :; do sleep 1; done'), { facts: {}, limitMs: 300 }), /^it took longer than 300 ms: waiting/);
  t.equal(await runCommand(sh('true'), { facts: {}, limitMs, signal: AbortSignal.abort() }) === undefined, false);
  const over = new AbortController();
  const running = runCommand(sh('while :; do sleep 1; done'), { facts: {}, limitMs, signal: over.signal });
  over.abort();
  t.equal(await running, 'it was not waited for');
  t.equal(await runCommand(sh('exec 0<&-; exit 0'), { facts: { long: 'x'.repeat(1 << 20) }, limitMs }), null, 'one that reads nothing');
});

t.test('what a command leaves behind holds nobody up', { timeout: 15_000 }, async (t) => {
  const path = join(t.testdir({}), 'pid');
  t.equal(await runCommand(sh(`setsid sleep 600 & echo $! > ${path}; exit 0`), { facts: {}, limitMs }), null, 'a child of its own session keeps standard error open');
  process.kill(Number(await readFile(path, 'utf8')), 'SIGKILL');
  // Its whole group ends with it.
  await runCommand(sh(`sleep 600 & echo $! > ${path}; wait`), { facts: {}, limitMs: 300 });
  const pid = Number(await readFile(path, 'utf8'));
  // Whoever adopts it may leave its entry for a while.
  await waitFor(async () => /^State:\tZ/m.test(await readFile(`/proc/${pid}/status`, 'utf8').catch(() => 'State:\tZ')), { limitMs: 10_000, what: 'it to be ended' });
});

t.test('hooks by group and step', async (t) => {
  const log = pino({ level: 'silent' });
  const hooks = { web: { fence: { command: sh('exit 1'), withinMs: limitMs } } };
  const facts = { for: 'failover', group: 'web', groupId: 'ab', point: { term: 1, point: 7 }, guests: [] } as const;
  await t.rejects(runHook(hooks, 'fence', facts, log), { code: 'HOOK_FAILED', facts: { group: 'web', step: 'fence' } });
  await t.resolves(runHookAfter(hooks, 'fence', facts, log), 'one that comes after a step is told, and no more');
  await t.resolves(runHook(hooks, 'beforeStart', facts, log));
  await t.resolves(runHook(hooks, 'fence', { ...facts, group: 'db' }, log));
  await t.resolves(runHook(undefined, 'fence', facts, log));
});
