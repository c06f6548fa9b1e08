/**
 * Cuts of a guest whose I/O threads hardly get to run: whatever they were about to do when a transaction began, they do in the middle
 * of it or after it. QEMU lives, and each point is one instant. Without drain-handshake.ts QEMU 7.2 ends here within some ten cuts
 * (`!reqlist_find_conflict`). AFTERIMAGE_STARVED_CUTS for more of them.
 */
import { execFile, spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import type { PointId } from '../../journal/point.ts';
import { isFault } from '../../journal/fault.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import { isLong, limitMs, turns } from '../support/extent.ts';
import type { LabGuest } from '../../scripts/lab/lab-guest.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { ownObjects } from './support/captures.ts';
import { captureGuest, passWhole, stampFlaw } from './support/guests.ts';
import { Replica } from './support/replica.ts';
import { shortFolder } from './support/storage-daemon.ts';

const run = promisify(execFile);
const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });

/** The guest's I/O threads run only when nothing else would, and something else would at all times. */
async function starve(t: Test, guest: LabGuest): Promise<void> {
  const own = await connectQmp(guest.ownQmpPath);
  const threads = await own.execute<readonly { readonly 'thread-id': number }[]>('query-iothreads');
  own.close();
  for (const { 'thread-id': thread } of threads) await run('chrt', ['--idle', '--pid', '0', String(thread)]);
  for (let index = 0; index < availableParallelism(); index += 1) {
    // In this session: the kernel weighs sessions against each other.
    const busy = spawn(process.execPath, ['-e', `setTimeout(() => process.exit(), ${limitMs(140_000)}); setImmediate(function turn() { setImmediate(turn); })`], { stdio: 'ignore' });
    t.teardown(() => { busy.kill('SIGKILL'); });
  }
}

for (const [choice, usual] of isLong ? [['cbt', 6], ['writelog', 5]] as const : [['cbt', 6]] as const) {
  const cuts = turns('AFTERIMAGE_STARVED_CUTS', usual, 300);
  t.test(`${choice}: ${cuts} cuts while the I/O threads starve`, { timeout: limitMs(140_000) }, async (t) => {
    const folder = shortFolder(t);
    const disks = await Promise.all((['raw', 'qcow2'] as const).map(async (format, index) => ({ path: await createLabDisk(`${folder}/disk${index}`, format, 32 * mib), format, iothread: true })));
    const guest = await startLabGuest(t, { disks, mode: 'raw', churn: 8192, memoryMiB: 128, timeLimitMs: limitMs(130_000), append: 'af.discards=0' });
    await guest.waitForLine(/^AF STAMP \d+/, 60_000);
    const capture = captureGuest(folder, guest.qmpPath, { capture: choice });
    await capture.connect();
    await capture.reconcile(null);
    const replica = new Replica(folder, 2);
    await passWhole(capture, replica);
    await starve(t, guest);
    let base = 0;
    for (let turn = 0; turn < cuts; turn += 1) {
      const delta = await capture.cut(point(base), point(base + 1), 'crash').catch((error: unknown) => {
        if (!isFault(error, 'CUT_BLURRED')) throw error;
        return null;
      });
      if (delta === null) {
        t.fail(`cut ${turn} was blurred`);
        await capture.reconcile(point(base));
        continue;
      }
      await replica.apply(delta);
      t.equal(stampFlaw([replica.path(0), replica.path(1)]), null, `cut ${turn}: one instant`);
      await delta.end('acknowledged');
      base += 1;
      // A copy, and other logs.
      if (choice === 'writelog' && turn % 5 === 2) await capture.park();
    }
    await capture.release();
    const own = await connectQmp(guest.ownQmpPath);
    t.same(await ownObjects(own), []);
    own.close();
    t.notOk(guest.serial.some(({ text }) => text.includes('FAILED')), 'no write of the guest failed');
    await guest.kill();
    t.same(guest.qemuLog.map(({ text }) => text), [], 'QEMU had nothing to say');
  });
}
