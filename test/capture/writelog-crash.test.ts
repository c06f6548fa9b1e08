/**
 * The daemon dies before or after each command that it sends while it takes over logs, puts them in, cuts, settles and takes them out, with
 * the target holding the new point or not. A new life goes on from what the target holds, without a resync; its first point is the
 * disks exactly as they were at its cut. A real guest under load, its disks on I/O threads.
 */
import { rmSync } from 'node:fs';
import t from 'tap';
import type { CbtCapture } from '../../daemon/capture/cbt-capture.ts';
import type { CapturedDelta } from '../../daemon/capture/capture.ts';
import type { PointId } from '../../journal/point.ts';
import { isLong } from '../support/extent.ts';
import { isFault } from '../../journal/fault.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { ownObjects } from './support/captures.ts';
import { captureGuest, nodesOf, passWhole } from './support/guests.ts';
import { difference, Replica } from './support/replica.ts';
import { shortFolder } from './support/storage-daemon.ts';
import { WholeProxy } from './support/whole-proxy.ts';

const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });
/** Asked again and again, whenever: not what this counts. */
const uncounted = new Set(['query-jobs', 'query-named-block-nodes', 'query-block', 'x-debug-query-block-graph', 'qom-get']);

async function cutOnce(capture: CbtCapture, held: number): Promise<CapturedDelta> {
  for (;;) {
    try {
      return await capture.cut(point(held), point(held + 1), 'crash');
    } catch (error) {
      if (!isFault(error, 'CUT_BLURRED')) throw error;
      await capture.reconcile(point(held));
    }
  }
}

void t.test('the daemon dies at each command', { timeout: 280_000 }, async (t) => {
  const folder = shortFolder(t);
  const disks = await Promise.all(['raw' as const, 'qcow2' as const].map(async (format, index) => ({ path: await createLabDisk(`${folder}/disk${index}`, format, 8 * mib), format, iothread: true })));
  const guest = await startLabGuest(t, { disks, mode: 'raw', churn: 1024, memoryMiB: 128, timeLimitMs: 270_000, append: 'af.discards=0' });
  await guest.waitForLine(/^AF STAMP \d+/, 60_000);
  const own = await connectQmp(guest.ownQmpPath);
  t.teardown(() => own.close());
  const proxy = await WholeProxy.start(t, folder, guest.qmpPath, own);
  const open = (): CbtCapture => captureGuest(folder, proxy.path, { capture: 'writelog' });
  const first = open();
  await first.connect();
  await first.reconcile(null);
  const replica = new Replica(folder, 2);
  await passWhole(first, replica);
  await (await first.cut(point(0), point(1), 'crash').then(async (delta) => { await replica.apply(delta); return delta; })).end('acknowledged');
  await first.close();

  let held = 1;
  let [moments, adopted, attached] = [0, 0, 0];
  // Every second moment; each way of dying meets the half of them.
  for (let k = 1, isOver = false; !isOver; k += isLong ? 1 : 2) {
    isOver = true;
    const [fate, isReceived, isParked] = [(isLong ? k : k >> 1) % 2 === 0 ? 'die' as const : 'dieAfter' as const, (isLong ? k : k >> 1) % 4 < 2, k % 3 === 0];
    let count = 0;
    const dying = open();
    await dying.connect();
    proxy.onCommand = ({ execute }) => {
      if (uncounted.has(execute ?? '')) return 'pass';
      count += 1;
      return count === k ? fate : 'pass';
    };
    try {
      await dying.reconcile(point(held));
      for (let turn = 0; turn < 2; turn += 1) {
        const delta = await cutOnce(dying, held);
        if (isReceived) {
          await replica.apply(delta);
          held += 1;
        }
        await delta.end(isReceived ? 'acknowledged' : 'dropped');
        if (turn === 0 && isParked) await dying.park();
      }
    } catch (error) {
      if (!isFault(error, 'QMP_CLOSED')) throw error;
    }
    if (count >= k) isOver = false;
    proxy.onCommand = () => 'pass';
    await dying.close();
    moments += 1;

    const next = open();
    await next.connect();
    t.same(await next.reconcile(point(held)), { standing: 'ready' }, `moment ${k} ${fate}, ${isReceived ? 'received' : 'not received'}`);
    const isAdopted = next.figures().capture === 'writelog';
    await proxy.arm(await nodesOf(own));
    const delta = await next.cut(point(held), point(held + 1), 'crash').catch((error: unknown) => {
      if (!isFault(error, 'CUT_BLURRED')) throw error;
      return null;
    });
    const whole = await proxy.collect();
    if (delta !== null) {
      await replica.apply(delta);
      for (const [index, path] of whole.entries()) t.equal(difference(path, replica.path(index)), null, `moment ${k} ${fate}, disk ${index}`);
      await delta.end('acknowledged');
      held += 1;
    }
    for (const path of whole) rmSync(path);
    if (isAdopted) adopted += 1;
    else attached += 1;
    await next.close();
  }
  t.comment(`${moments} moments; after ${adopted} the logs were gone on with, after ${attached} not`);
  t.ok(moments > 15 && adopted > 0 && attached > 0);
  const last = open();
  await last.connect();
  await last.release();
  t.same(await ownObjects(own), []);
  t.notOk(guest.serial.some(({ text }) => text.includes('FAILED')), 'no write of the guest failed');
  await guest.powerOff();
  t.same(await guest.exited, { code: 0, signal: null });
});
