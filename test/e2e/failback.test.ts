/**
 * There and back: a guest is handed over to the other host, works there, and comes home onto its old disk. Only what differs moves, both sides hold the
 * same at the end, and it is protected as it was, its points kept.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import t from 'tap';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { startSites } from '../support/sites.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';

const planned = { shutdownMs: 60_000, onLimit: 'give-up' } as const;

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

void t.test('home again, on its old disk', { timeout: 300_000 }, async (t) => {
  const path = await createLabDisk(join(t.testdir({}), 'a.raw'), 'raw', 128 * 1024 ** 2);
  const { alpha, bravo } = await startSites(t);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 512, timeLimitMs: 290_000, disks: [{ path, format: 'raw' }] });
  await guest.waitForLine(/^AF COUNTER 20 /, 60_000);
  await alpha.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  await alpha.newPoint('web1');

  const there = await bravo.target.client.failover({ group: 'web1', planned });
  t.match(there, { term: 2, lostMs: 0, point: { kind: 'final' } });
  await guest.exited;
  t.equal((await alpha.guest('web1')).phase, 'relinquished');
  const counted = guest.serial.map(({ text }) => /^AF COUNTER (\d+) /.exec(text)).findLast((line) => line !== null);
  const [, found] = await watchFile(there.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  // The workload may be ended between the write and the word of it.
  t.ok([0, 1].includes(Number(found) - Number(counted![1])), `nothing was lost: ${counted![1]}, ${found}`);
  await waitFor(async () => (await bravo.group('web1')).state === 'committed', { limitMs: 60_000, what: 'the failover to be committed' });
  t.match(await bravo.newPoint('web1'), { newestPoint: { term: 2 }, fullPasses: 0 }, 'its changes were known from the first write on');
  const relay = async () => (await bravo.source.client.report()).relays[0]!;
  await waitFor(async () => (await relay())?.phase === 'protected', { limitMs: 60_000, what: 'points to be on their way home' });
  const sent = (await bravo.source.client.report()).targets.find(({ name }) => name === 'alpha')!.sentBytes;
  t.comment(`${sent} bytes of the old disk were sent`);
  t.equal((await alpha.group('web1')).isReclaimed, true, 'they go onto the old disk');
  const before = (await alpha.group('web1')).newest!;
  await waitFor(async () => (await alpha.group('web1')).newest!.point > before.point, { limitMs: 30_000, what: 'more of them' });
  t.ok(sent < 40 * 1024 ** 2, 'not all of it was sent');

  const back = await alpha.target.client.failover({ group: 'web1', planned });
  t.equal(back.term, 3);
  t.equal(back.lostMs, 0);
  const [, again] = await watchFile(back.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
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

void t.test('home again after its host was lost: what differs is found by hash', { timeout: 300_000 }, async (t) => {
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
