/**
 * Somebody else's node comes between a guest's device and its write log, or the device is taken off the log: what that node holds
 * is never taken from the guest, and no point is made of a log that the device no longer writes to. On a real guest under load.
 */
import t from 'tap';
import type { CbtCapture } from '../../daemon/capture/cbt-capture.ts';
import { isFault } from '../../journal/fault.ts';
import { listGuestDisks } from '../../qemu/guest-disks.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { captureGuest, passWhole } from './support/guests.ts';
import { Replica } from './support/replica.ts';
import { shortFolder } from './support/storage-daemon.ts';

const mib = 1024 * 1024;
const zero = { term: 1, point: 0 };

async function pass(capture: CbtCapture, folder: string): Promise<void> {
  await capture.reconcile(null);
  await passWhole(capture, new Replica(folder, 1));
}

async function topOf(own: QmpConnection): Promise<string> {
  return (await listGuestDisks(own))[0]!.topNode;
}

t.test('somebody else’s nodes and a write log', async (t) => {
  const folder = shortFolder(t);
  const guest = await startLabGuest(t, { disks: [{ path: await createLabDisk(`${folder}/disk0`, 'raw', 24 * mib), format: 'raw' }], mode: 'raw', churn: 2000, memoryMiB: 128 });
  await guest.waitForLine(/^AF STAMP \d+/, 60_000);
  const own = await connectQmp(guest.ownQmpPath);
  t.teardown(() => own.close());
  const capture = captureGuest(folder, guest.qmpPath, { capture: 'writelog' });
  t.teardown(() => capture.close());
  await capture.connect();
  await pass(capture, folder);
  t.equal(capture.figures().capture, 'writelog');
  const log = await topOf(own);

  // The device is taken off its log, to the same disk: by name nothing has changed.
  const { qdev, trackNode } = (await listGuestDisks(own))[0]!;
  await own.execute('qom-set', { path: qdev, property: 'drive', value: trackNode });
  await t.rejects(capture.cut(zero, { term: 1, point: 1 }, 'crash'), { code: 'LOG_BROKEN' }, 'no point lacks what was written beside the log');
  t.equal(capture.figures().capture, 'cbt');
  t.same(await capture.reconcile(zero), { standing: 'ready' });

  // An overlay upon the log. Another life of the daemon puts a log in, too.
  capture.choose('writelog');
  await pass(capture, folder);
  t.not(await topOf(own), log);
  await createLabDisk(`${folder}/over`, 'qcow2', 24 * mib);
  await own.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'over', backing: null, file: { driver: 'file', filename: `${folder}/over` } });
  await own.execute('blockdev-snapshot', { node: await topOf(own), overlay: 'over' });
  await capture.close();
  const second = captureGuest(folder, guest.qmpPath, { capture: 'writelog' });
  t.teardown(() => second.close());
  await second.connect();
  await pass(second, folder);
  const [disk] = await listGuestDisks(own);
  t.ok([disk!.topNode, ...disk!.chain].includes('over'), 'the guest keeps its overlay');
  t.equal(second.figures().capture, 'cbt', 'the old log is beneath the overlay: no other until it is gone');
  const from = guest.serial.length;
  await guest.waitForLine(/^AF STAMP \d+/, 60_000, from);
  const fault = await second.release().catch((error: unknown) => error);
  t.ok(isFault(fault, 'GUEST_CHANGED'), 'and what could not be taken out is told');
});
