/**
 * Write logs go in and out of a guest whose I/O threads are busy, again and again: each time is a chance for QEMU 7.2 to abort, when
 * a node is opened upon one with requests under way (see `addLog` in log-nodes.ts). AFTERIMAGE_ATTACHMENTS for more of them.
 */
import t from 'tap';
import type { PointId } from '../../journal/point.ts';
import { isFault } from '../../journal/fault.ts';
import { limitMs, turns } from '../support/extent.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { captureGuest, passWhole } from './support/guests.ts';
import { Replica } from './support/replica.ts';
import { shortFolder } from './support/storage-daemon.ts';

const attachments = turns('AFTERIMAGE_ATTACHMENTS', 25, 60);
const point = (number: number): PointId => ({ term: 1, point: number });

for (const device of ['virtio-blk', 'virtio-scsi'] as const) {
  void t.test(`${device}: ${attachments} times in and out under load`, { timeout: limitMs(240_000) }, async (t) => {
    const folder = shortFolder(t);
    const path = await createLabDisk(`${folder}/disk`, 'qcow2', 64 * 1024 ** 2);
    const guest = await startLabGuest(t, { disks: [{ path, format: 'qcow2', iothread: true, device }], mode: 'raw', churn: 8192, memoryMiB: 128, timeLimitMs: limitMs(230_000), append: 'af.discards=0' });
    await guest.waitForLine(/^AF STAMP \d+/, 60_000);
    const capture = captureGuest(folder, guest.qmpPath, { capture: 'writelog' });
    await capture.connect();
    await capture.reconcile(null);
    await passWhole(capture, new Replica(folder, 1));
    let base = 0;
    for (let turn = 0; turn < attachments; turn += 1) {
      await capture.park();
      const delta = await capture.cut(point(base), point(base + 1), 'crash').catch((error: unknown) => {
        if (!isFault(error, 'CUT_BLURRED')) throw error;
        return null;
      });
      if (delta === null) {
        await capture.reconcile(point(base));
        continue;
      }
      t.equal(capture.figures().capture, 'writelog');
      await delta.end('acknowledged');
      base += 1;
    }
    await capture.release();
    t.notOk(guest.serial.some(({ text }) => text.includes('FAILED')), 'no write of the guest failed');
    await guest.powerOff();
    t.same(await guest.exited, { code: 0, signal: null }, 'QEMU lived to its end');
    t.same(guest.qemuLog.map(({ text }) => text), [], 'and had nothing to say');
  });
}
