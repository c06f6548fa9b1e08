/**
 * A group of two guests: one line of points that holds both at one instant, one failover of both, one way home. What one of them comes to on its own (its QEMU ends, it does
 * not shut down) stops neither the other nor the group for good.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import t from 'tap';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { startSites } from '../support/sites.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';

const planned = { shutdownMs: 60_000, onLimit: 'give-up' } as const;
const counted = /^AF COUNTER-FOUND (\d+)/m;

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

void t.test('two guests, there and home again', { timeout: 300_000 }, async (t) => {
  const folder = t.testdir({});
  const paths = await Promise.all(['web', 'db'].map((name) => createLabDisk(join(folder, `${name}.raw`), 'raw', 64 * 1024 ** 2)));
  const { alpha, bravo } = await startSites(t);
  const [web, db] = await Promise.all(paths.map((path, at) => startLabGuest(t, { mode: 'counter', churn: 128, append: 'af.pace=200', timeLimitMs: 290_000, disks: [{ path, format: 'raw', iothread: at === 0 }] })));
  await Promise.all([web!, db!].map((guest) => guest.waitForLine(/^AF COUNTER 10 /, 60_000)));
  const members = [{ name: 'web', qmpPath: web!.qmpPath }, { name: 'db', qmpPath: db!.qmpPath }];
  await t.rejects(alpha.source.client.protect({ name: 'shop', qmpPath: members[0]!.qmpPath, members: [members[0]!, members[0]!], rpoMs: 1000 }), { code: 'REQUEST_INVALID' });
  await t.rejects(alpha.source.client.protect({ name: 'shop', qmpPath: members[0]!.qmpPath, members, rpoMs: 1000, capture: 'writelog' }), { code: 'REQUEST_INVALID' });
  await alpha.source.client.protect({ name: 'shop', qmpPath: members[0]!.qmpPath, members, rpoMs: 1000 });
  await t.rejects(alpha.source.client.protect({ name: 'other', qmpPath: members[1]!.qmpPath, rpoMs: 1000 }), { code: 'GUEST_TAKEN' });
  await alpha.newPoint('shop');
  await alpha.newPoint('shop');
  t.same((await alpha.guest('shop')).disks.map(({ name }) => name), ['web/disk0', 'db/disk0']);
  const points = (await bravo.target.client.timeline('shop')).points;
  t.ok(points.at(-1)!.pausedMs! > 0, 'a point says how long both were paused for it');
  const check = await bravo.target.client.checkStart({ group: 'shop' });
  t.not(check.verdict, 'refused', JSON.stringify(check.findings.filter(({ verdict }) => verdict === 'refused')));
  t.ok(check.findings.some(({ check: what }) => what.startsWith('db: ')), 'each is looked at');

  const there = await bravo.target.client.failover({ group: 'shop', planned });
  t.match(there, { term: 2, lostMs: 0, point: { kind: 'final' }, guests: [{ name: 'web' }, { name: 'db' }] });
  await Promise.all([web!.exited, db!.exited]);
  t.equal((await alpha.guest('shop')).phase, 'relinquished');
  for (const [at, guest] of [web!, db!].entries()) {
    const last = guest.serial.map(({ text }) => /^AF COUNTER (\d+) /.exec(text)).findLast((line) => line !== null);
    const [, found] = await watchFile(there.guests[at]!.logPath, counted, 60_000);
    t.ok([0, 1].includes(Number(found) - Number(last![1])), `nothing of ${there.guests[at]!.name} was lost: ${last![1]}, ${found}`);
  }
  await waitFor(async () => (await bravo.group('shop')).state === 'committed', { limitMs: 60_000, what: 'the failover to be committed' });
  t.match(await bravo.newPoint('shop'), { newestPoint: { term: 2 }, fullPasses: 0, members: [{ name: 'web' }, { name: 'db' }] }, 'what both write there is followed from the first write on');
  await waitFor(async () => (await bravo.source.client.report()).relays[0]?.phase === 'protected', { limitMs: 60_000, what: 'points to be on their way home' });

  // A guest of the two that ends is started again, and the other goes on.
  const [first, second] = there.guests;
  process.kill(second!.pid, 'SIGKILL');
  await waitFor(async () => (await bravo.target.client.report()).failovers[0]?.guests[1]?.isRunning === false, { limitMs: 10_000, what: 'the end of one to be seen' });
  const again = await bravo.target.client.failover({ group: 'shop' });
  t.equal(again.guests[0]!.pid, first!.pid, 'the one that runs is left alone');
  t.not(again.guests[1]!.pid, second!.pid);
  await waitFor(async () => (await bravo.guest('shop')).phase === 'protected', { limitMs: 60_000, what: 'both to be followed again' });
  await bravo.newPoint('shop');

  const back = await alpha.target.client.failover({ group: 'shop', planned });
  t.match(back, { term: 3, lostMs: 0, guests: [{ name: 'web' }, { name: 'db' }] });
  for (const { logPath } of back.guests) await watchFile(logPath, /^AF FSCK vda clean/m, 60_000);
  await waitFor(async () => (await alpha.guest('shop')).phase === 'protected', { limitMs: 60_000, what: 'protection as it was' });
  t.equal((await alpha.newPoint('shop')).fullPasses, 0, 'without comparing anything');
  const last = await bravo.target.client.failover({ group: 'shop', planned });
  t.equal(last.term, 4);
  const { disks } = await bravo.group('shop');
  for (const [at, path] of paths.entries()) t.equal(await hashOf(disks[at]!.replicaPath), await hashOf(path), `${disks[at]!.name}: both sides hold the same`);
});
