/** A failover while the source still lives: it is told by the term that it lost, sends nothing more, keeps its bitmaps, and its guest runs on. */
import { join } from 'node:path';
import t from 'tap';
import { startPair } from '../support/daemons.ts';
import { ourObjects, withQmp } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';

void t.test('the old source is fenced out by the term', { timeout: 200_000 }, async (t) => {
  const folder = t.testdir({});
  const path = await createLabDisk(join(folder, 'a.qcow2'), 'qcow2', 96 * 1024 ** 2);
  const pair = await startPair(t);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 256, timeLimitMs: 180_000, disks: [{ path, format: 'qcow2', iothread: true }] });
  await guest.waitForLine(/^AF COUNTER 3 /, 60_000);
  await pair.protect('web1', guest.qmpPath);
  await pair.newPoint('web1');

  const failover = await pair.target.client.failover({ group: 'web1' });
  t.equal(failover.term, 2);
  await watchFile(failover.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  await waitFor(async () => (await pair.guest('web1')).phase === 'superseded', { limitMs: 60_000, what: 'the source to be told' });
  const group = await pair.group('web1');
  t.equal(group.state, 'failed-over');
  t.same({ term: group.newest!.term, point: group.newest!.point }, { term: failover.point.term, point: failover.point.point }, 'no point was sealed after the one that was booted');

  await pair.source.kill();
  await pair.source.start();
  await waitFor(async () => (await pair.guest('web1')).phase === 'superseded', { limitMs: 60_000, what: 'a restarted source to be told again' });
  t.ok((await ourObjects(guest.ownQmpPath)).some((line) => line.startsWith('bitmap ')), 'the bitmaps are kept: failback needs them');
  t.ok(await withQmp(guest.ownQmpPath, async (qmp) => (await qmp.execute<{ running: boolean }>('query-status')).running), 'the old guest runs on');
  t.notOk(guest.serial.some((line) => line.text.includes('FAILED')), 'no write of the old guest failed');

  await pair.target.kill();
  await pair.target.start();
  const again = (await pair.target.client.report()).failovers[0]!;
  t.ok(again.isRunning, 'the guest that failed over outlives the target daemon');
  t.equal(again.pid, failover.pid);
  await t.rejects(pair.target.client.failover({ group: 'web1' }), { code: 'FAILOVER_STATE' }, 'it is not started twice');
  await pair.target.client.stopFailover('web1', false);
  t.notOk((await pair.target.client.report()).failovers[0]!.isRunning, 'stopped');
});
