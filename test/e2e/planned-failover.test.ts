/**
 * A planned failover between two hosts with both roles: the guest is shut down where it runs, its final point is booted at the other side, nothing is
 * lost, and what it writes there goes into the same line of points. Whatever dies in between, the guest runs on exactly one side.
 */
import { join } from 'node:path';
import t from 'tap';
import { isLong } from '../support/extent.ts';
import { withQmp } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { startSites } from '../support/sites.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';

const planned = { shutdownMs: 60_000, onLimit: 'give-up' } as const;

// What failback.test.ts looks at on its way, and what lies beside that way.
if (isLong) void t.test('nothing is lost, and the line of points goes on', { timeout: 240_000 }, async (t) => {
  const path = await createLabDisk(join(t.testdir({}), 'a.raw'), 'raw', 96 * 1024 ** 2);
  const { alpha, bravo } = await startSites(t);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 512, timeLimitMs: 230_000, disks: [{ path, format: 'raw' }] });
  await guest.waitForLine(/^AF COUNTER 20 /, 60_000);
  await alpha.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  await alpha.newPoint('web1');

  const failover = await bravo.target.client.failover({ group: 'web1', planned });
  t.equal(failover.term, 2);
  t.equal(failover.point.kind, 'final');
  t.equal(failover.lostMs, 0);
  t.ok(failover.downtimeMs! > 0);
  await guest.exited;
  t.equal((await alpha.guest('web1')).phase, 'relinquished');
  const last = guest.serial.map(({ text }) => /^AF COUNTER (\d+) /.exec(text)).findLast((found) => found !== null);
  const [, found] = await watchFile(failover.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  const counted = Number(found) - Number(last![1]);
  // The workload may be ended between the write and the word of it.
  t.ok(counted === 0 || counted === 1, `the counter is what it was when the guest went down: ${last![1]}, ${found}`);

  await waitFor(async () => (await bravo.group('web1')).state === 'committed', { limitMs: 60_000, what: 'the failover to be committed by itself' });
  await waitFor(async () => (await bravo.guest('web1')).phase === 'protected', { limitMs: 60_000, what: 'the guest to be followed at bravo' });
  const now = await bravo.newPoint('web1');
  t.equal(now.newestPoint!.term, 2);
  t.equal(now.fullPasses, 0, 'its changes were known from the first write on');
  const points = await bravo.target.client.points('web1');
  t.same(points.map(({ term }) => term).filter((term, at, all) => term !== all[at - 1]), [1, 2], 'one line of points');
  t.equal(points.findLast(({ term }) => term === 1)?.kind, 'final');

  const test = await bravo.target.client.testFailover({ group: 'web1' });
  const [, later] = await watchFile(test.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  t.ok(Number(later) > Number(found), `a point of the new term boots: ${later}`);
  await bravo.target.client.stopTest('web1');
  await t.rejects(bravo.target.client.stopFailover('web1', true), { code: 'FAILOVER_STATE' }, 'there is nothing to go back to');
});

void t.test('a guest that does not shut down keeps running', { timeout: 120_000 }, async (t) => {
  const path = await createLabDisk(join(t.testdir({}), 'a.raw'), 'raw', 64 * 1024 ** 2);
  const { alpha, bravo } = await startSites(t);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 0, timeLimitMs: 110_000, disks: [{ path, format: 'raw' }] });
  await guest.waitForLine(/^AF COUNTER 5 /, 60_000);
  await guest.command('sh killall acpid');
  await alpha.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  await alpha.newPoint('web1');
  await t.rejects(bravo.target.client.failover({ group: 'web1', planned: { ...planned, shutdownMs: 1000 } }), { code: 'GUEST_KEEPS_RUNNING' });
  await alpha.newPoint('web1');
  t.equal((await bravo.group('web1')).state, 'protected');
  t.equal((await bravo.group('web1')).term, 1, 'no term was raised for it');

  // Stopped where it stands instead: as if the power had failed.
  const failover = await bravo.target.client.failover({ group: 'web1', planned: { shutdownMs: 1000, onLimit: 'stop' } });
  await guest.exited;
  const last = guest.serial.map(({ text }) => /^AF COUNTER (\d+) /.exec(text)).findLast((found) => found !== null);
  const [, found] = await watchFile(failover.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  t.ok(Number(found) >= Number(last![1]), 'nothing that was durable is lost');
});

void t.test('what fails before the guest runs at the target starts it again where it was', { timeout: 240_000 }, async (t) => {
  const path = await createLabDisk(join(t.testdir({}), 'a.raw'), 'raw', 64 * 1024 ** 2);
  const { alpha, bravo } = await startSites(t);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 0, timeLimitMs: 230_000, disks: [{ path, format: 'raw' }] });
  await guest.waitForLine(/^AF COUNTER 5 /, 60_000);
  await alpha.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  await alpha.newPoint('web1');
  const runs = (): Promise<boolean> => withQmp(guest.ownQmpPath, async (qmp) => (await qmp.execute<{ running: boolean }>('query-status')).running);

  // The target dies when the guest has just gone down.
  const failing = t.rejects(bravo.target.client.failover({ group: 'web1', planned }));
  await guest.waitForLine(/^AF POWEROFF$/, 60_000);
  await bravo.target.kill();
  await failing;
  const booted = guest.serial.length;
  await guest.waitForLine(/^AF COUNTER-FOUND /, 60_000, booted - 1);
  t.ok(await runs(), 'the guest runs again where it was');
  await bravo.target.start();
  await alpha.newPoint('web1');
  t.equal((await bravo.group('web1')).state, 'protected');
  t.same((await bravo.target.client.report()).failovers, []);

  if (!isLong) return;
  // The source dies while it waits for the target.
  const second = t.rejects(bravo.target.client.failover({ group: 'web1', planned }));
  await guest.waitForLine(/^AF POWEROFF$/, 60_000, booted);
  await alpha.source.kill();
  await second;
  const again = guest.serial.length;
  await alpha.source.start();
  await guest.waitForLine(/^AF COUNTER-FOUND /, 60_000, again - 1);
  await alpha.newPoint('web1');
  t.equal((await bravo.group('web1')).state, 'protected');
});
