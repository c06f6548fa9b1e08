/**
 * The life cycle between two hosts with addresses of their own, and a cable between them: there and back by plan, a failover with the cable pulled in the middle of a delta, an old
 * source that comes back from the dead. At the end the guest's counter never went back but by the loss that was stated, and both sides hold the same, byte for byte.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import t from 'tap';
import { isLong } from '../support/extent.ts';
import { ourObjects, withQmp } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { makeNetworkHosts, whyNoNetworkHosts } from '../support/network-hosts.ts';
import { startSites } from '../support/sites.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';

const planned = { shutdownMs: 60_000, onLimit: 'give-up' } as const;
const counted = /^AF COUNTER-FOUND (\d+)/m;
const skip = await whyNoNetworkHosts() ?? false;

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

void t.test('a planned failover there and back under load', { timeout: 300_000, skip }, async (t) => {
  const path = await createLabDisk(join(t.testdir({}), 'a.raw'), 'raw', 128 * 1024 ** 2);
  const hosts = await makeNetworkHosts(t);
  const { alpha, bravo } = await startSites(t, hosts);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 512, timeLimitMs: 290_000, disks: [{ path, format: 'raw' }] });
  await guest.waitForLine(/^AF COUNTER 20 /, 60_000);
  await alpha.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  await alpha.newPoint('web1');

  const there = await bravo.target.client.failover({ group: 'web1', planned });
  t.match(there, { term: 2, lostMs: 0, point: { kind: 'final' } });
  await guest.exited;
  t.equal((await alpha.guest('web1')).phase, 'relinquished');
  const lastSaid = guest.serial.map(({ text }) => /^AF COUNTER (\d+) /.exec(text)).findLast((line) => line !== null);
  const [, found] = await watchFile(there.logPath, counted, 60_000);
  // The workload may be ended between the write and the word of it.
  t.ok([0, 1].includes(Number(found) - Number(lastSaid![1])), `nothing was lost: ${lastSaid![1]}, ${found}`);
  await waitFor(async () => (await bravo.group('web1')).state === 'committed', { limitMs: 60_000, what: 'the failover to be committed' });
  t.match(await bravo.newPoint('web1'), { newestPoint: { term: 2 }, fullPasses: 0 }, 'its changes were known from the first write on');
  const relay = async () => (await bravo.source.client.report()).relays[0]!;
  await waitFor(async () => (await relay())?.phase === 'protected', { limitMs: 60_000, what: 'points to be on their way home' });
  const sent = (await bravo.source.client.report()).targets.find(({ name }) => name === 'alpha')!.sentBytes;
  t.equal((await alpha.group('web1')).isReclaimed, true, 'they go onto the old disk');
  const before = (await alpha.group('web1')).newest!;
  await waitFor(async () => (await alpha.group('web1')).newest!.point > before.point, { limitMs: 30_000, what: 'more of them' });
  t.ok(sent < 40 * 1024 ** 2, `not all of the old disk was sent: ${sent} bytes`);

  const back = await alpha.target.client.failover({ group: 'web1', planned });
  // Blocks that changed at several points travelled as often; what a point is made of beside them is small.
  const moved = (await bravo.source.client.report()).targets.find(({ name }) => name === 'alpha')!.sentBytes;
  const differed = (await bravo.target.client.points('web1')).filter(({ term }) => term === 2).reduce((sum, { changedBytes }) => sum + changedBytes, 0);
  t.ok(moved <= 1.25 * differed + 1024 ** 2, `${moved} bytes were moved home, ${differed} differed`);
  t.equal(back.term, 3);
  t.equal(back.lostMs, 0);
  const [, again] = await watchFile(back.logPath, counted, 60_000);
  t.ok(Number(again) > Number(found), `it counts on: ${found}, ${again}`);
  await watchFile(back.logPath, /^AF FSCK vda clean/m, 60_000);
  await waitFor(async () => (await alpha.guest('web1')).phase === 'protected', { limitMs: 60_000, what: 'protection as it was' });
  const now = await alpha.newPoint('web1');
  t.equal(now.newestPoint!.term, 3);
  t.equal(now.fullPasses, 0, 'without comparing anything');
  t.equal((await bravo.group('web1')).state, 'protected');
  t.same([...new Set((await bravo.target.client.points('web1')).map(({ term }) => term))], [1, 2, 3], 'all its points are kept');
  t.same((await bravo.target.client.report()).failovers, [], 'nothing of it is left at the other side');
  t.same((await alpha.target.client.report()).groups, [], 'what brought it home is gone');

  // Both sides hold the same, byte for byte, at a point at which the guest stands still.
  const last = await bravo.target.client.failover({ group: 'web1', planned: { shutdownMs: 60_000, onLimit: 'give-up' } });
  t.equal(last.term, 4);
  const { disks } = await bravo.group('web1');
  t.equal(await hashOf(disks[0]!.replicaPath), await hashOf(path), 'the old disk and the replica are the same');
});

void t.test('the cable is pulled in the middle; the old source comes back while the guest runs on the other side', { timeout: 300_000, skip }, async (t) => {
  const path = await createLabDisk(join(t.testdir({}), 'a.raw'), 'raw', 96 * 1024 ** 2);
  const hosts = await makeNetworkHosts(t);
  const { alpha, bravo } = await startSites(t, hosts);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 2048, timeLimitMs: 290_000, disks: [{ path, format: 'raw', iothread: true }] });
  await guest.waitForLine(/^AF COUNTER 10 /, 60_000);
  await alpha.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  await alpha.newPoint('web1');
  await alpha.newPoint('web1');

  const offsetMs = Date.now() - performance.now();
  await hosts.pull();
  const before = guest.serial.length;
  await guest.waitForLine(/^AF COUNTER \d+ /, 60_000, before);
  const there = await bravo.target.client.failover({ group: 'web1' });
  const askedMs = Date.now();
  const [, found] = await watchFile(there.logPath, counted, 60_000);
  const said = guest.serial.flatMap(({ text, atMs }) => { const [, number] = /^AF COUNTER (\d+) /.exec(text) ?? []; return number === undefined ? [] : [{ number: Number(number), atMs: atMs + offsetMs }]; });
  const atCut = said.filter(({ atMs }) => atMs <= there.point.cutAtMs).at(-1)!.number;
  t.ok(Number(found) >= atCut, `what was durable at the cut is there: ${atCut}, ${found}`);
  const atFailover = said.filter(({ atMs }) => atMs <= askedMs).at(-1)!.number;
  t.ok(Number(found) < atFailover, 'what came after the last point is lost');
  t.ok(there.lostMs > 0 && there.lostMs <= askedMs - there.point.cutAtMs, `and how much is said: ${there.lostMs} ms`);

  // The old guest counts on, on the wrong side of the cable.
  await hosts.plug();
  await waitFor(async () => (await alpha.guest('web1')).phase === 'superseded', { limitMs: 90_000, what: 'the old source to be told' });
  await alpha.source.kill();
  await alpha.source.start();
  await waitFor(async () => (await alpha.guest('web1')).phase === 'superseded', { limitMs: 60_000, what: 'a restarted one to be told again' });
  t.ok((await ourObjects(guest.ownQmpPath)).some((line) => line.startsWith('bitmap ')), 'its bitmaps are kept');
  t.ok(await withQmp(guest.ownQmpPath, async (qmp) => (await qmp.execute<{ running: boolean }>('query-status')).running), 'nobody stops the old guest');
  t.match((await bravo.group('web1')).newest, { term: there.point.term, point: there.point.point }, 'no point of it landed');

  await bravo.target.client.commitFailover('web1');
  await waitFor(async () => (await bravo.group('web1')).state === 'committed', { limitMs: 60_000, what: 'the failover to be committed' });
  await bravo.newPoint('web1');
  t.equal((await alpha.target.client.report()).groups.length === 0 || !(await alpha.group('web1')).isReclaimed, true, 'the disks are not touched under the old guest');
  await guest.kill();
  await waitFor(async () => (await bravo.source.client.report()).relays[0]?.phase === 'protected' && (await alpha.group('web1')).isReclaimed, { limitMs: 90_000, what: 'points to be on their way onto the old disk' });
  const back = await alpha.target.client.failover({ group: 'web1', planned });
  t.match(back, { term: 3, lostMs: 0 });
  const [, again] = await watchFile(back.logPath, counted, 60_000);
  t.ok(Number(again) > Number(found), `the counter went on from the other side: ${found}, ${again}`);
  await waitFor(async () => (await alpha.guest('web1')).phase === 'protected', { limitMs: 60_000, what: 'protection as it was' });
  t.equal((await alpha.newPoint('web1')).fullPasses, 0);
  const last = await bravo.target.client.failover({ group: 'web1', planned });
  t.equal(last.term, 4);
  t.equal(await hashOf((await bravo.group('web1')).disks[0]!.replicaPath), await hashOf(path), 'both sides hold the same');
});

for (const killedIn of isLong ? ['protected', 'testing', 'failed-over', 'coming-home', 'committed'] as const : []) {
  void t.test(`the target is killed: ${killedIn}`, { timeout: 300_000, skip }, async (t) => {
    const path = await createLabDisk(join(t.testdir({}), 'a.raw'), 'raw', 96 * 1024 ** 2);
    const hosts = await makeNetworkHosts(t);
    const { alpha, bravo } = await startSites(t, hosts);
    const { client } = bravo.target;
    const guest = await startLabGuest(t, { mode: 'counter', churn: 256, timeLimitMs: 290_000, disks: [{ path, format: 'raw' }] });
    await guest.waitForLine(/^AF COUNTER 10 /, 60_000);
    await alpha.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
    for (let points = 0; points < 3; points += 1) await alpha.newPoint('web1');
    const restart = async (): Promise<void> => {
      await bravo.target.kill();
      await bravo.target.start();
    };
    if (killedIn === 'protected') {
      await restart();
      await alpha.newPoint('web1');
      return;
    }
    if (killedIn === 'testing') {
      const test = await client.testFailover({ group: 'web1' });
      await restart();
      t.match((await client.report()).tests, [{ pid: test.pid, isRunning: true }], 'the test goes on, and is seen');
      await alpha.newPoint('web1');
      await client.stopTest('web1');
      return;
    }
    const older = (await client.points('web1')).at(-2)!;
    const there = await client.failover({ group: 'web1', ...(killedIn === 'coming-home' ? { at: `${older.term}.${older.point}` } : {}), ...(killedIn === 'failed-over' ? {} : { decision: { act: 'commit', afterMs: 0 } as const }) });
    if (killedIn === 'committed') await waitFor(async () => (await bravo.group('web1')).state === 'committed', { limitMs: 60_000, what: 'the failover to be committed' });
    await restart();
    t.match((await client.report()).failovers, [{ pid: there.pid, isRunning: true }], 'the guest outlives the target, and is seen');
    await t.rejects(client.failover({ group: 'web1' }), { code: 'FAILOVER_STATE' }, 'and is not started twice');
    const [, found] = await watchFile(there.logPath, counted, 60_000);
    t.ok(Number(found) > 0);
    if (killedIn === 'failed-over') {
      t.equal((await bravo.group('web1')).state, 'failed-over');
      await client.stopFailover('web1', true);
      await alpha.newPoint('web1');
      t.equal((await bravo.group('web1')).state, 'protected');
      return;
    }
    await waitFor(async () => (await bravo.group('web1')).state === 'committed', { limitMs: 90_000, what: 'what was decided to be done' });
    await bravo.newPoint('web1');
  });
}

// As above with a host that comes back while its guest still runs, here with one that was lost whole.
if (isLong) void t.test('home again after its host was lost: what differs is found by hash', { timeout: 300_000 }, async (t) => {
  const path = await createLabDisk(join(t.testdir({}), 'a.raw'), 'raw', 128 * 1024 ** 2);
  const { alpha, bravo } = await startSites(t);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 512, timeLimitMs: 290_000, disks: [{ path, format: 'raw' }] });
  await guest.waitForLine(/^AF COUNTER 20 /, 60_000);
  await alpha.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  await alpha.newPoint('web1');
  await guest.kill();
  await alpha.source.kill();
  await alpha.target.kill();

  const there = await bravo.target.client.failover({ group: 'web1', decision: { act: 'commit', afterMs: 1000 } });
  const [, found] = await watchFile(there.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  await waitFor(async () => (await bravo.group('web1')).state === 'committed', { limitMs: 60_000, what: 'the failover to be committed by itself' });
  await bravo.newPoint('web1');

  await alpha.target.start();
  await alpha.source.start();
  await waitFor(async () => (await bravo.source.client.report()).relays[0]?.phase === 'protected', { limitMs: 60_000, what: 'points to be on their way home' });
  const group = await alpha.group('web1');
  t.equal(group.isReclaimed, true, 'they go onto the old disk');
  await t.rejects(promisify(execFile)('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', path]), { message: /Failed to get "write" lock/ }, 'which nobody starts a guest on by accident meanwhile');

  const back = await alpha.target.client.failover({ group: 'web1', planned });
  t.equal(back.term, 3);
  const [, again] = await watchFile(back.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  t.ok(Number(again) > Number(found));
  await waitFor(async () => (await alpha.guest('web1')).phase === 'protected', { limitMs: 60_000, what: 'protection as it was' });
  t.equal((await alpha.newPoint('web1')).fullPasses, 0);
  const last = await bravo.target.client.failover({ group: 'web1', planned });
  t.equal(last.term, 4);
  t.equal(await hashOf((await bravo.group('web1')).disks[0]!.replicaPath), await hashOf(path), 'both sides hold the same');
});
