/**
 * Cuts of two real guests at one instant. The first guest writes a number to its disk, then the second writes the same, then the first the next one: so at any instant the
 * second's is the first's, or one less. Whatever the points hold, and whatever becomes of daemon or guest around a cut, both guests run on.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { JointCapture, movedGuests, type Consistency, type JointLayout } from '../../daemon/joint/joint-capture.ts';
import { PauseGuard, PauseWatchdog } from '../../daemon/joint/pause-guard.ts';
import { PausedNotes } from '../../daemon/joint/paused-notes.ts';
import type { Capture, GuestPower } from '../../daemon/capture/capture.ts';
import { nodeClock } from '../../host/node/clock.ts';
import type { LabGuest } from '../../scripts/lab/lab-guest.ts';
import { captureGuest, sinkInto } from '../capture/support/guests.ts';
import { makeCapture, ownObjects } from '../capture/support/captures.ts';
import { difference, Replica } from '../capture/support/replica.ts';
import { makeDisks, shortFolder, startStandIn, type StandIn } from '../capture/support/storage-daemon.ts';
import { isLong } from '../support/extent.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { withQmp } from '../support/guest-look.ts';
import { waitFor } from '../support/wait.ts';

const mib = 1024 * 1024;
/** QEMU 7.2 with an I/O thread died of one in thirty when its guest went on too early. */
const cuts = isLong ? 600 : 40;
const point = (number: number): { term: number; point: number } => ({ term: 1, point: number });

interface Pair { readonly folder: string; readonly guests: readonly LabGuest[]; readonly paths: readonly string[]; readonly notes: PausedNotes; readonly watchdog: PauseWatchdog; layout: JointLayout | null }

async function startPair(t: Test): Promise<Pair> {
  const folder = shortFolder(t);
  const paths = [await createLabDisk(join(folder, 'a.raw'), 'raw', 16 * mib), await createLabDisk(join(folder, 'b.raw'), 'raw', 24 * mib)];
  const guests = await Promise.all(paths.map((path, at) => startLabGuest(t, { mode: 'idle', timeLimitMs: isLong ? 380_000 : 100_000, disks: [{ path, format: 'raw', iothread: at === 1 }] })));
  await Promise.all(guests.map((guest) => guest.waitForLine(/^AF READY/, 60_000)));
  const notes = new PausedNotes(join(folder, 'paused'));
  await notes.prepare();
  const watchdog = new PauseWatchdog(notes.folder);
  t.teardown(() => watchdog.leave());
  return { folder, guests, paths, notes, watchdog, layout: null };
}

function jointOf(pair: Pair, { consistency = 'strict' as Consistency, pauseMsMax = 20_000, around = (capture: Capture): Capture => capture } = {}): JointCapture {
  const { folder, guests, notes, watchdog, layout } = pair;
  return new JointCapture({
    layout, noteLayout: (now) => { pair.layout = now; return Promise.resolve(); },
    members: guests.map(({ qmpPath }, at) => ({ name: `g${at}`, qmpPath, capture: around(captureGuest(folder, qmpPath, { spoolFolder: join(folder, `spool${at}`) })) })),
    consistency, pauseMsMax, guard: new PauseGuard('pair', notes, watchdog), clock: nodeClock,
  });
}

/** Numbers until it is told to stop. Resolves with the last. */
function writeInTurn(guests: readonly LabGuest[]): { stop(): Promise<number> } {
  let isOver = false;
  const written = (async () => {
    for (let number = 1; ; number += 1) {
      for (const guest of guests) await guest.command(`sh printf '%012d%500s' ${number} '' | dd of=/dev/vda bs=512 conv=notrunc oflag=direct 2>/dev/null`, 20_000);
      if (isOver) return number;
    }
  })();
  written.catch(() => undefined);
  return { stop: () => { isOver = true; return written; } };
}

function numberOn(path: string): number {
  const bytes = Buffer.alloc(12);
  const file = openSync(path, 'r');
  readSync(file, bytes, 0, 12, 0);
  closeSync(file);
  return Number(bytes.toString('latin1').replace(/[^0-9]/g, '') || 0);
}

async function firstPoint(capture: JointCapture, replica: Replica): Promise<void> {
  await capture.connect();
  t.equal((await capture.reconcile(null)).standing, 'resync');
  await capture.fullPass(sinkInto(replica), { rateBytesPerSecond: 0, signal: new AbortController().signal, onProgress: () => undefined });
  await capture.settlePass(point(0));
}

const statesOf = (guests: readonly LabGuest[]): Promise<string[]> => Promise.all(guests.map(({ ownQmpPath }) => withQmp(ownQmpPath, async (qmp) => (await qmp.execute<{ status: string }>('query-status')).status)));

t.test('a strict point is one instant of both guests', { timeout: isLong ? 400_000 : 110_000 }, async (t) => {
  const pair = await startPair(t);
  const { guests, paths } = pair;
  const capture = jointOf(pair);
  const replica = new Replica(pair.folder, 2);
  await firstPoint(capture, replica);
  t.same(capture.disks().map(({ disk, name, sizeBytes }) => [disk, name, sizeBytes]), [[0, 'g0/disk0', 16 * mib], [1, 'g1/disk0', 24 * mib]]);
  const writer = writeInTurn(guests);
  const seen = new Set<number>();
  for (let number = 1; number <= cuts; number += 1) {
    const delta = await capture.cut(point(number - 1), point(number), 'crash');
    t.notOk(delta.isRound);
    t.ok(delta.about!.pausedMs! > 0, 'how long they were paused is said');
    t.equal(delta.about!.spreadMs, undefined);
    await replica.apply(delta);
    await delta.end(number % 4 === 0 ? 'dropped' : 'acknowledged');
    const [first, second] = [0, 1].map((disk) => numberOn(replica.path(disk)));
    seen.add(first!);
    t.ok(second === first || second === first! - 1, `one instant: ${first}, ${second}`);
    if (number % 4 === 0) {
      // What was dropped is in the next one.
      const again = await capture.cut(point(number - 1), point(number), 'crash');
      await replica.apply(again);
      await again.end('acknowledged');
    }
  }
  t.ok(seen.size > 2, `the guests wrote meanwhile: ${[...seen].join(', ')}`);
  await writer.stop();
  const last = await capture.cut(point(cuts), point(cuts + 1), 'crash');
  await replica.apply(last);
  await last.end('acknowledged');
  t.same(paths.map((path, disk) => difference(path, replica.path(disk))), [null, null], 'both disks are equal at the end');
  t.same(readdirSync(pair.notes.folder), [], 'no guest is noted as paused');
  await capture.release();
  for (const { ownQmpPath } of guests) t.same(await withQmp(ownQmpPath, ownObjects), []);
  t.same(await statesOf(guests), ['running', 'running']);
});

/** Holds up what `when` says, until it is let go. */
function slowed(capture: Capture, until: Promise<void>): Capture {
  return new Proxy(capture, {
    get: (target, name) => {
      if (name === 'power') return (): GuestPower => ({ ...target.power(), pause: async () => { await target.power().pause(); await until; } });
      const found = Reflect.get(target, name, target) as unknown;
      return typeof found === 'function' ? found.bind(target) as unknown : found;
    },
  });
}

t.test('what goes wrong around a cut leaves both guests running', { timeout: 110_000 }, async (t) => {
  const pair = await startPair(t);
  const { guests } = pair;
  const replica = new Replica(pair.folder, 2);

  await t.test('a pause over the limit is given up, and the next cut holds what was dropped', async (t) => {
    let letGo = (): void => undefined;
    const held = new Promise<void>((resolve) => { letGo = resolve; });
    const capture = jointOf(pair, { pauseMsMax: 200, around: (one) => slowed(one, held) });
    await firstPoint(capture, replica);
    const cut = capture.cut(point(0), point(1), 'crash');
    cut.catch(() => undefined);
    await waitFor(async () => (await statesOf(guests)).every((state) => state === 'paused'), { limitMs: 20_000, what: 'both guests to be paused' });
    await waitFor(async () => (await statesOf(guests)).every((state) => state === 'running'), { limitMs: 20_000, what: 'both guests to go on, with the cut still held up' });
    letGo();
    await t.rejects(cut, { code: 'CUT_PAUSED' });
    t.same(readdirSync(pair.notes.folder), []);
    await capture.close();
    const next = jointOf(pair);
    await next.connect();
    t.equal((await next.reconcile(point(0))).standing, 'ready', 'nothing has to be compared for it');
    const delta = await next.cut(point(0), point(1), 'crash');
    await replica.apply(delta);
    await delta.end('acknowledged');
    t.same(pair.paths.map((path, disk) => difference(path, replica.path(disk))), [null, null]);
    await next.close();
  });

  await t.test('guest by guest, without a pause', async (t) => {
    const capture = jointOf(pair, { consistency: 'per-guest' });
    await capture.connect();
    t.equal((await capture.reconcile(point(1))).standing, 'ready');
    const delta = await capture.cut(point(1), point(2), 'crash');
    t.ok(delta.about!.spreadMs! >= 0);
    t.equal(delta.about!.pausedMs, undefined);
    await delta.end('acknowledged');
    await capture.close();
  });

  await t.test('a guest that its owner paused stays so', async (t) => {
    await withQmp(guests[0]!.ownQmpPath, (qmp) => qmp.execute('stop'));
    const capture = jointOf(pair);
    await capture.connect();
    await capture.reconcile(point(2));
    const delta = await capture.cut(point(2), point(3), 'crash');
    await delta.end('acknowledged');
    t.same(await statesOf(guests), ['paused', 'running']);
    await capture.close();
    await withQmp(guests[0]!.ownQmpPath, (qmp) => qmp.execute('cont'));
  });

  await t.test('a daemon that dies while they are paused', async (t) => {
    const program = new URL('./dying-daemon.ts', import.meta.url).pathname;
    const child = spawn(process.execPath, [...process.execArgv, program, pair.notes.folder, ...guests.map(({ qmpPath }) => qmpPath)], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.teardown(() => child.kill('SIGKILL'));
    let said = '';
    child.stdout.on('data', (chunk: Buffer) => { said += chunk.toString(); });
    await waitFor(() => said.includes('paused'), { limitMs: 30_000, what: 'the daemon to have paused them' });
    t.same(await statesOf(guests), ['paused', 'paused']);
    child.kill('SIGKILL');
    await waitFor(async () => (await statesOf(guests)).every((state) => state === 'running'), { limitMs: 30_000, what: 'both guests to go on' });
    await waitFor(() => readdirSync(pair.notes.folder).length === 0, { limitMs: 10_000, what: 'the note to go' });
  });

  await t.test('a guest that is killed in the middle fails the cut, and the other goes on', async (t) => {
    const capture = jointOf(pair);
    await capture.connect();
    await capture.reconcile(point(3));
    const cut = capture.cut(point(3), point(4), 'crash');
    process.kill(guests[1]!.pid, 'SIGKILL');
    await t.rejects(cut);
    t.equal((await statesOf(guests.slice(0, 1)))[0], 'running');
    t.same(readdirSync(pair.notes.folder), []);
    await capture.close();
  });
});

t.test('whose disks have other numbers than they had', async (t) => {
  const was = [{ guest: 'web', disks: ['a'] }, { guest: 'db', disks: ['a', 'b'] }];
  t.same([...movedGuests(null, was)], ['web', 'db']);
  t.same([...movedGuests(was, was)], []);
  t.same([...movedGuests(was, [{ guest: 'web', disks: ['a', 'b'] }, was[1]!])], ['web', 'db'], 'those behind a new disk move with it');
  t.same([...movedGuests(was, [was[0]!, { guest: 'db', disks: ['b', 'a'] }])], ['db']);
  t.same([...movedGuests(was, [was[1]!, was[0]!])], ['db', 'web']);
});

t.test('a disk that comes in front of another guest’s moves that one, whose bitmaps know nothing of it', { timeout: 60_000 }, async (t) => {
  const folder = shortFolder(t);
  const sizes = [{ sizeBytes: 4 * mib, format: 'raw' as const }];
  const [first, wider, second] = [join(folder, '1'), join(folder, '2'), join(folder, '3')];
  for (const one of [first, wider, second]) mkdirSync(one);
  const web = await startStandIn(t, makeDisks(first, sizes), first);
  const webLater = await startStandIn(t, makeDisks(wider, [...sizes, ...sizes]), wider);
  const db = await startStandIn(t, makeDisks(second, sizes), second);
  const notes = new PausedNotes(join(folder, 'paused'));
  let layout: JointLayout | null = null;
  const joint = (standIns: readonly StandIn[]): JointCapture => new JointCapture({
    layout, noteLayout: (now) => { layout = now; return Promise.resolve(); }, consistency: 'per-guest', pauseMsMax: 1000, clock: nodeClock,
    members: standIns.map((standIn, at) => ({ name: ['web', 'db'][at]!, qmpPath: standIn.qmpPath, capture: makeCapture(standIn) })), guard: new PauseGuard('pair', notes, new PauseWatchdog(notes.folder)),
  });
  const before = joint([web, db]);
  const replica = new Replica(folder, 3);
  await firstPoint(before, replica);
  await before.close();
  const again = joint([web, db]);
  await again.connect();
  t.equal((await again.reconcile(point(0))).standing, 'ready');
  await again.close();
  const after = joint([webLater, db]);
  await after.connect();
  t.same(after.disks().map(({ name }) => name), ['web/d0', 'web/d1', 'db/d0']);
  const standing = await after.reconcile(point(0));
  t.match(standing, { standing: 'resync', why: /web: .*; db: its disks have other numbers in the group than they had/ });
  const seen = new Set<number>();
  const sink = sinkInto(replica);
  await after.fullPass({ write: (disk, ...rest) => { seen.add(disk); return sink.write(disk, ...rest); }, zero: (disk, ...rest) => { seen.add(disk); return sink.zero(disk, ...rest); } }, { rateBytesPerSecond: 0, signal: new AbortController().signal, onProgress: () => undefined });
  t.same([...seen].sort(), [0, 1, 2], 'all of it is passed over');
  await after.settlePass(point(0));
  t.equal((await after.reconcile(point(0))).standing, 'ready', 'and is known from then on');
  await after.release();
});
