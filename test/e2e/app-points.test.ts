/**
 * Application-consistent and marked points of a real guest with QEMU's own agent: a frozen guest's file system needs no replay of
 * its journal, one that was only cut does; a guest whose agent is silent or not there gives a crash point that says so; and a
 * guest is thawed whatever happens to the daemon, and goes on writing.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import type { LabGuest } from '../../scripts/lab/lab-guest.ts';
import { startPair, type Pair } from '../support/daemons.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { StallingProxy } from '../support/stalling-proxy.ts';
import { waitFor } from '../support/wait.ts';

const run = promisify(execFile);
/** No cut comes by itself while a test looks: only those that are asked for. */
const rpoMs = 3_600_000;

interface Teardown { teardown(end: () => Promise<void> | void): unknown; testdir(): string }

async function startAgentGuest(t: Teardown, name: string, more: { readonly hasAgent?: boolean; readonly churn?: number } = {}): Promise<LabGuest> {
  const path = await createLabDisk(join(t.testdir(), `${name}.raw`), 'raw', 192 * 1024 ** 2);
  const guest = await startLabGuest(t, { mode: 'counter', churn: more.churn ?? 512, hasAgent: more.hasAgent ?? true, timeLimitMs: 240_000, disks: [{ path, format: 'raw' }] });
  await guest.waitForLine(/^AF COUNTER 3 /, 60_000);
  if (more.hasAgent ?? true) await guest.waitForLine(/^AF AGENT /, 30_000);
  return guest;
}

/** Counts on from now: what is frozen does not. */
async function goesOn(guest: LabGuest, limitMs = 30_000): Promise<void> {
  await guest.waitForLine(/^AF COUNTER /, limitMs, guest.serial.length);
}

/** The replica at exactly this point, which is the newest. */
async function features(pair: Pair, name: string, point: number): Promise<string> {
  await waitFor(async () => (await pair.group(name)).applied?.point === point, { limitMs: 30_000, what: `point ${point} of ${name} to be applied` });
  const { stdout } = await run('/sbin/dumpe2fs', ['-h', (await pair.group(name)).disks[0]!.replicaPath]);
  return /^Filesystem features:.*$/m.exec(stdout)![0];
}

/** The watchdogs of a source: processes of our program that name its data folder. */
async function watchdogs(folder: string): Promise<number[]> {
  const found: number[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (command.includes('watchdog.js') && command.includes(folder)) found.push(Number(pid));
  }
  return found;
}

void t.test('an app point needs no journal replay, a mark does; a silent or absent agent gives a crash point that says so', { timeout: 240_000 }, async (t) => {
  const pair = await startPair(t);
  const guest = await startAgentGuest(t, 'web');
  const plain = await startAgentGuest(t, 'plain', { hasAgent: false, churn: 0 });
  for (const [name, { qmpPath }] of [['web', guest], ['plain', plain]] as const) {
    await pair.protect(name, qmpPath, rpoMs);
    await pair.newPoint(name, 120_000);
  }
  const { client } = pair.source;

  const app = await client.mark({ name: 'web', isApp: true, label: 'before "upgrade"' });
  t.match(app, { kind: 'app', label: 'before "upgrade"', isAppWanted: true, reason: null });
  t.ok(app.frozenMs! >= app.freezeMs! + app.thawMs! - 2 && app.freezeMs! > 0 && app.thawMs! > 0, `frozen for ${app.frozenMs} ms: ${app.freezeMs} to freeze, ${app.thawMs} to thaw`);
  t.notMatch(await features(pair, 'web', app.point), /needs_recovery/, 'the app point needs no journal replay');
  await t.resolves(run('/sbin/e2fsck', ['-f', '-n', (await pair.group('web')).disks[0]!.replicaPath]), 'and its file system is sound');
  await goesOn(guest);

  const mark = await client.mark({ name: 'web', label: 'plain' });
  t.match(mark, { kind: 'mark', label: 'plain', frozenMs: undefined, reason: null, point: app.point + 1 });
  t.match(await features(pair, 'web', mark.point), /needs_recovery/, 'a point without the freeze does need it');
  t.match((await pair.target.client.points('web')).slice(-2), [
    { point: app.point, kind: 'app', label: 'before "upgrade"', frozenMs: app.frozenMs, freezeMs: app.freezeMs, thawMs: app.thawMs },
    { point: mark.point, kind: 'mark', label: 'plain' },
  ], 'the target knows as much');

  await guest.command('sh kill -STOP $(pidof qemu-ga)');
  const silent = await client.mark({ name: 'web', isApp: true });
  t.match(silent, { kind: 'crash', notApp: 'AGENT_SILENT', reason: { code: 'AGENT_SILENT' }, frozenMs: undefined });
  t.match((await pair.guest('web')).marked, silent, 'status says so');
  t.match((await pair.target.client.points('web')).at(-1), { kind: 'crash', notApp: 'AGENT_SILENT' });
  await goesOn(guest);
  await guest.command('sh kill -CONT $(pidof qemu-ga)');
  t.match(await client.mark({ name: 'web', isApp: true }), { kind: 'app' }, 'what was asked of the agent before is stale, and does no harm');

  const none = await client.mark({ name: 'plain', isApp: true, label: 'x' });
  t.match(none, { kind: 'crash', label: 'x', notApp: 'AGENT_NONE' });
  t.same(await watchdogs(pair.folder), [], 'no watchdog is left');
  t.same(await readdir(join(pair.folder, 'source', 'frozen')), [], 'nor a note');
});

void t.test('a guest is never left frozen: daemon killed, daemon hung, daemon and watchdog killed; the schedule holds over it', { timeout: 240_000 }, async (t) => {
  const limitMs = 8_000;
  const pair = await startPair(t, { sourceConfig: `guests: { web: { freezeLimit: ${limitMs}ms, app: { every: 1h } } }\n` });
  const guest = await startAgentGuest(t, 'web');
  const proxy = await StallingProxy.start(t, join(pair.folder, 'proxy'), guest.qmpPath);
  await pair.protect('web', proxy.path, rpoMs);
  // By schedule, as there is none yet.
  await waitFor(async () => (await pair.guest('web')).marked?.kind === 'app', { limitMs: 90_000, what: 'an app point by itself' });
  const notePath = join(pair.folder, 'source', 'frozen', 'web.json');
  const { client } = pair.source;

  /** The daemon waits for its cut, and the guest stands still. */
  const freeze = async (): Promise<{ readonly marking: Promise<unknown> }> => {
    proxy.stalled = 'transaction';
    const marking = client.mark({ name: 'web', isApp: true, label: 'asked' }).catch((error: unknown) => error);
    await proxy.untilStalled();
    t.ok(existsSync(notePath), 'a note says that it may be frozen');
    return { marking };
  };

  // Killed: the end of the pipe is the word to thaw.
  let frozen = await freeze();
  await pair.source.kill();
  await goesOn(guest);
  await waitFor(() => !existsSync(notePath), { limitMs: 10_000, what: 'the note to go' });
  proxy.forget();
  await pair.source.start();
  await frozen.marking;
  t.match(await client.mark({ name: 'web', isApp: true, label: 'asked' }), { kind: 'app' }, 'and can be frozen again');

  // Hung: the limit strikes. The cut that comes after it is no app point.
  frozen = await freeze();
  process.kill(pair.source.pid, 'SIGSTOP');
  await goesOn(guest);
  process.kill(pair.source.pid, 'SIGCONT');
  proxy.letGo();
  t.match(await frozen.marking, { kind: 'crash', notApp: 'FREEZE_LATE' });

  // Both killed: nobody is there to thaw, until the daemon starts again and finds the note.
  frozen = await freeze();
  const [watchdog] = await watchdogs(pair.folder);
  process.kill(watchdog!, 'SIGKILL');
  await pair.source.kill();
  proxy.forget();
  await t.rejects(goesOn(guest, 1000), 'it does stand still');
  await pair.source.start();
  await goesOn(guest);
  await waitFor(() => !existsSync(notePath), { limitMs: 10_000, what: 'the note to go' });
  t.match(await client.mark({ name: 'web', isApp: true, label: 'asked' }), { kind: 'app' });
  t.equal((await pair.target.client.points('web')).filter(({ kind, label }) => kind === 'app' && label === undefined).length, 1, 'the schedule’s hour holds over restarts');
  t.notOk(guest.serial.some((line) => line.text.includes('FAILED')), 'no guest write failed');
});
