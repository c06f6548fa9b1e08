/** The audit trail against those who would have it say something else, against crashes, and against a disk that fails; and that every act gets into it, with nothing secret. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { hashOf, noHead, readTrail, type AuditEntry } from '../../host/audit-format.ts';
import { AuditTrail, type NewEntry } from '../../host/audit-trail.ts';
import { ClockWatch } from '../../host/clock-watch.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { audited, sourceActs, targetActs } from '../../console/audited.ts';
import { Fault } from '../../journal/fault.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { waitFor } from '../support/wait.ts';

const folder = '/audit';
const entry = (on: string, more: Partial<NewEntry> = {}): NewEntry => ({ who: { kind: 'local', uid: 0 }, act: 'lock', on, what: { at: 'newest' }, outcome: 'done', ...more });

async function made(disk: SimulatedDisk, names: readonly string[], clock = new SimulatedClock()): Promise<AuditTrail> {
  await disk.makeFolder(folder).catch(() => undefined);
  await disk.syncFolder('/');
  const trail = await AuditTrail.open({ disk, clock, folder, log: null });
  for (const name of names) await trail.note(entry(name));
  return trail;
}

/** Five entries, then somebody is at the files. */
async function tampered(change: (lines: string[]) => readonly string[], more: { head?: string } = {}): Promise<Awaited<ReturnType<typeof readTrail>>> {
  const disk = new SimulatedDisk();
  await (await made(disk, ['a', 'b', 'c', 'd', 'e'])).close();
  const lines = change(disk.contentOf(`${folder}/trail`).toString().trimEnd().split('\n'));
  await replace(disk, `${folder}/trail`, lines.map((line) => `${line}\n`).join(''));
  if (more.head !== undefined) await replace(disk, `${folder}/head`, more.head);
  return readTrail(disk, folder);
}

async function replace(disk: SimulatedDisk, path: string, text: string): Promise<void> {
  const file = await disk.open(path, 'readWrite');
  await file.truncate(0);
  await file.write(Buffer.from(text), 0);
  await file.close();
}

t.test('what was noted is there, in order, and whole', async (t) => {
  const disk = new SimulatedDisk();
  const trail = await made(disk, ['a', 'b']);
  await trail.note(entry('c', { outcome: 'POINT_LOCKED', who: { kind: 'token', name: 'ops' } }));
  const seen: AuditEntry[] = [];
  const reading = await trail.read((one) => seen.push(one));
  t.match(reading, { entryCount: 3, broken: null, tornBytes: 0, last: trail.head });
  t.match(seen, [{ n: 1, on: 'a' }, { n: 2, on: 'b' }, { n: 3, on: 'c', outcome: 'POINT_LOCKED', who: { kind: 'token', name: 'ops' } }]);
  await trail.close();
  const again = await made(disk.afterKill(), ['d']);
  t.match(await again.read(), { entryCount: 4, broken: null });
  t.same(again.alarms(), []);
  await again.close();
});

t.test('an entry that was changed is found', async (t) => {
  const { broken } = await tampered((lines) => lines.map((line, at) => (at === 2 ? line.replace('"on":"c"', '"on":"x"') : line)));
  t.match(broken, { line: 3, why: /entry 3 was changed/ });
});

t.test('an entry that was changed with its hash is found by the next', async (t) => {
  const { broken } = await tampered((lines) => lines.map((line, at) => {
    if (at !== 2) return line;
    const text = line.slice(65).replace('"on":"c"', '"on":"x"');
    return `${hashOf(lines[1]!.slice(0, 64), text)} ${text}`;
  }));
  t.match(broken, { line: 4, why: /entry 4 was changed, or what stands before it/ });
});

t.test('an entry that was removed is found', async (t) => {
  t.match((await tampered((lines) => lines.filter((_line, at) => at !== 1))).broken, { line: 2, why: /entry 3 stands where entry 2 should/ });
});

t.test('an entry that was put in is found', async (t) => {
  t.match((await tampered((lines) => [...lines.slice(0, 2), lines[1]!, ...lines.slice(2)])).broken, { line: 3, why: /entry 2 stands where entry 3 should/ });
});

t.test('entries that were cut off at the end are found', async (t) => {
  t.match((await tampered((lines) => lines.slice(0, 3))).broken, { why: 'entries 4 to 5 are missing at the end' });
  t.match((await tampered(() => [])).broken, { why: 'entries 1 to 5 are missing at the end' });
});

t.test('a trail that was written anew from some entry on is found by the head', async (t) => {
  const forged = (lines: readonly string[]): string[] => {
    let hash = lines[2]!.slice(0, 64);
    return [...lines.slice(0, 3), ...lines.slice(3).map((line) => {
      const text = line.slice(65).replace('"act":"lock"', '"act":"view"');
      hash = hashOf(hash, text);
      return `${hash} ${text}`;
    })];
  };
  t.match((await tampered(forged)).broken, { line: 5, why: /not the one that was noted/ });
});

t.test('a trail that was written anew with its head is found by a head that was kept elsewhere', async (t) => {
  const disk = new SimulatedDisk();
  const trail = await made(disk, ['a', 'b', 'c']);
  const kept = trail.head;
  await trail.close();
  const other = new SimulatedDisk();
  await (await made(other, ['a', 'b', 'x', 'd'])).close();
  t.equal((await readTrail(other, folder)).broken, null);
  t.match((await readTrail(other, folder, undefined, kept)).broken, { line: 3, why: /not the one whose hash was kept/ });
  t.equal((await readTrail(disk, folder, undefined, kept)).broken, null);
});

t.test('a head that is gone, or is no head, is found', async (t) => {
  t.match((await tampered((lines) => lines, { head: 'nonsense' })).broken, { why: /is damaged/ });
  const disk = new SimulatedDisk();
  await (await made(disk, ['a', 'b'])).close();
  await disk.remove(`${folder}/head`);
  t.match((await readTrail(disk, folder)).broken, { why: /is gone/ });
});

t.test('a daemon that finds its trail broken says so, goes on behind it, and hides nothing', async (t) => {
  const disk = new SimulatedDisk();
  await (await made(disk, ['a', 'b', 'c'])).close();
  await replace(disk, `${folder}/trail`, `${disk.contentOf(`${folder}/trail`).toString().split('\n')[0]!}\n`);
  const trail = await made(disk, ['d']);
  t.match(trail.alarms(), [{ code: 'AUDIT_BROKEN', group: null, message: /entries 2 to 3 are missing/ }]);
  const seen: string[] = [];
  t.match((await trail.read((one) => seen.push(`${one.n} ${one.on ?? ''}`))).broken, { line: 2, why: /entry 4 stands where entry 2 should/ });
  t.same(seen, ['1 a', '4 d']);
  await trail.close();
});

t.test('whatever a crash leaves of an entry is cut off and noted; what was durable is never taken for that', async (t) => {
  for (let cutAt = 1, isOver = false; !isOver; cutAt++) {
    const disk = new SimulatedDisk();
    const before = await made(disk, ['a']);
    disk.cutAt = disk.operations + cutAt;
    let durable = 1;
    for (const name of ['b', 'c']) {
      // A disk that is off fails like any other: the trail goes on without it.
      await Promise.race([before.note(entry(name)), new Promise((resolve) => setImmediate(resolve))]).catch(() => undefined);
      if (!disk.isOff && before.head.n === durable + 1) durable += 1;
    }
    isOver = !disk.isOff;
    const after = disk.afterPowerCut(cutAt);
    const trail = await made(after, ['z']);
    const seen: string[] = [];
    const reading = await trail.read((one) => seen.push(one.on ?? one.act));
    t.equal(reading.broken, null, `cut at ${cutAt}: ${reading.broken?.why ?? ''}`);
    t.same(seen.slice(0, durable), ['a', 'b', 'c'].slice(0, durable));
    t.equal(seen.at(-1), 'z');
    await trail.close();
  }
});

t.test('while the disk is full acts go on, the alarm rises, and the entries follow', async (t) => {
  const disk = new SimulatedDisk();
  const trail = await made(disk, ['a']);
  disk.failing = (operation) => (operation === 'write' ? 'ENOSPC' : undefined);
  await trail.note(entry('b'));
  t.match(trail.alarms(), [{ code: 'AUDIT_UNWRITTEN' }]);
  disk.failing = () => undefined;
  await trail.note(entry('c'));
  t.same(trail.alarms(), []);
  t.match(await trail.read(), { entryCount: 3, broken: null });
  await trail.close();
});

t.test('a peer that does the same over and over fills nothing', async (t) => {
  const disk = new SimulatedDisk();
  const clock = new SimulatedClock();
  const trail = await made(disk, [], clock);
  const refused = entry('web', { who: { kind: 'source', sourceId: 'ab' }, act: 'forget', outcome: 'FORGET_REFUSED' });
  for (let count = 0; count < 1000; count++) await trail.note(refused);
  clock.advance(11 * 60_000);
  await trail.note(refused);
  const seen: AuditEntry[] = [];
  await trail.read((one) => seen.push(one));
  t.match(seen, [{ what: { at: 'newest' } }, { what: { repeats: 999 } }]);
  await trail.close();
});

t.test('one process writes a trail', async (t) => {
  const disk = new SimulatedDisk();
  const trail = await made(disk, ['a']);
  await t.rejects(made(disk, []), { code: 'STORE_LOCKED' });
  await trail.close();
});

t.test('a wall clock that is set is noted', async (t) => {
  const clock = new SimulatedClock();
  const noted: NewEntry[] = [];
  const watch = new ClockWatch(clock, { note: (one) => { noted.push(one); return Promise.resolve(); }, alarms: () => [] });
  watch.start();
  clock.advance(10_000);
  await new Promise((resolve) => setImmediate(resolve));
  clock.set(-3_600_000);
  clock.advance(10_000);
  await waitFor(() => noted.length === 1, { limitMs: 5_000, what: 'the note' });
  t.match(noted, [{ who: { kind: 'itself' }, act: 'clock-jump', what: { byMs: -3_600_000 } }]);
  await watch.close();
});

t.test('acts get in with who asked and how they ended, readings do not, and no secret does', async (t) => {
  const noted: NewEntry[] = [];
  const audit = { note: (one: NewEntry) => { noted.push(one); return Promise.resolve(); }, alarms: () => [] };
  const operations = {
    isOpen: true,
    report: () => 'report', pair: (token: string) => Promise.resolve(token.length),
    unprotect: (name: string) => Promise.reject(new Fault('GROUP_UNKNOWN', `no ${name}`)),
  };
  const acts = { pair: sourceActs.pair, unprotect: sourceActs.unprotect } as never;
  const seen = audited(operations, acts, audit, () => ({ kind: 'token', name: 'ops' }));
  t.equal(seen.report(), 'report');
  t.equal(seen.isOpen, true);
  t.equal(await seen.pair('SECRET'), 6);
  await t.rejects(seen.unprotect('web'), { code: 'GROUP_UNKNOWN' });
  t.match(noted, [
    { who: { kind: 'token', name: 'ops' }, act: 'pair', outcome: 'done' },
    { act: 'unprotect', on: 'web', outcome: 'begun' }, { act: 'unprotect', on: 'web', outcome: 'GROUP_UNKNOWN' },
  ]);
  t.notMatch(JSON.stringify(noted), /SECRET/);
});

t.test('no operation that changes something is left out', (t) => {
  // Whoever adds an operation says here, or in console/audited.ts, what it is.
  const readings = { target: ['report', 'points', 'timeline', 'describePoint', 'changedSince', 'verify', 'checkStart', 'plan', 'showGuests', 'showRehearsal', 'pairings'], source: ['report', 'pairings'] };
  t.same(Object.keys(targetActs).filter((key) => readings.target.includes(key)), []);
  t.same(Object.keys(sourceActs).filter((key) => readings.source.includes(key)), []);
  for (const key of ['lockPoint', 'releasePoint', 'forget', 'failover', 'stopFailover', 'commitFailover', 'testFailover', 'rehearse', 'seedFrom', 'invite', 'revoke', 'revokeOldSecrets', 'rotate', 'dismiss', 'holdPoint']) t.ok(Object.hasOwn(targetActs, key), key);
  t.end();
});

t.test('on the machine’s own disk', async (t) => {
  const real = await mkdtemp(join(tmpdir(), 'audit-'));
  t.teardown(() => rm(real, { recursive: true }));
  const trail = await AuditTrail.open({ disk: nodeDisk, clock: nodeClock, folder: real, log: null });
  t.match(await readTrail(nodeDisk, real), { last: noHead, broken: null, entryCount: 0 });
  for (const name of ['a', 'b']) await trail.note(entry(name));
  await trail.close();
  t.match(await readTrail(nodeDisk, real), { entryCount: 2, broken: null, last: trail.head });
});
