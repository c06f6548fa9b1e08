/**
 * The whole sequence on real guests under load, in every shape that guests have: {main loop, one I/O thread per disk} × {raw,
 * qcow2} × {virtio-blk with id, virtio-blk without id on an unnamed node, virtio-scsi}. A full pass, cycles, each point the disks at one
 * instant; then everything out, the guest alive, and not a line on QEMU's own error output. Not a suite: two suites run it.
 */
import { rmSync } from 'node:fs';
import type { TAP } from 'tap';
import type { PointId } from '../../../journal/point.ts';
import { isFault } from '../../../journal/fault.ts';
import { connectQmp } from '../../../qemu/qmp-client.ts';
import { isLong, turns } from '../../support/extent.ts';
import { imageDifference } from '../../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../../support/lab-guest.ts';
import { ownObjects } from './captures.ts';
import { captureGuest, nodesOf, passWhole, stampFlaw } from './guests.ts';
import { difference, Replica } from './replica.ts';
import { shortFolder } from './storage-daemon.ts';
import { WholeProxy } from './whole-proxy.ts';

const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });
const cycles = turns('AFTERIMAGE_MATRIX_CYCLES', 4, 12);
const only = new RegExp(process.env['AFTERIMAGE_MATRIX_ONLY'] ?? '');

const devices = {
  'virtio-blk': { device: 'virtio-blk' },
  'virtio-blk without id': { device: 'virtio-blk', id: null, nodeName: null },
  'virtio-scsi': { device: 'virtio-scsi' },
} as const;

export function runCells(t: TAP, iothread: boolean, choice: 'cbt' | 'writelog' = 'cbt'): void {
  for (const format of ['raw', 'qcow2'] as const) {
    for (const [shape, device] of Object.entries(devices)) {
      // I/O threads are where QEMU has its faults; of the others half show each format and each shape.
      if ((choice === 'writelog' || !iothread) && !isLong && (format === 'qcow2') !== (shape === 'virtio-blk without id')) continue;
      const name = `${iothread ? 'I/O threads' : 'main loop'}, ${format}, ${shape}`;
      if (!only.test(name)) continue;
      // Cuts of logs with discards are copied: one shape has them, the others show the logs.
      const hasDiscards = choice === 'cbt' || shape === 'virtio-scsi';
      t.test(name, async (t) => {
        const folder = shortFolder(t);
        const sizes = [32 * mib, 24 * mib + 512 * 3 * (format === 'raw' ? 1 : 0)];
        const disks = await Promise.all(sizes.map(async (sizeBytes, index) => ({ path: await createLabDisk(`${folder}/disk${index}`, format, sizeBytes), format, iothread, ...device })));
        const guest = await startLabGuest(t, { disks, mode: 'raw', churn: 3000, memoryMiB: 128, ...(hasDiscards ? {} : { append: 'af.discards=0' }) });
        await guest.waitForLine(/^AF STAMP \d+/, 60_000);
        const own = await connectQmp(guest.ownQmpPath);
        t.teardown(() => own.close());
        const proxy = await WholeProxy.start(t, folder, guest.qmpPath, own);
        const capture = captureGuest(folder, proxy.path, { capture: choice });
        await capture.connect();
        t.equal(capture.disks().length, 2);
        t.match(await capture.reconcile(null), { standing: 'resync' });
        const replica = new Replica(folder, 2);
        await passWhole(capture, replica);
        let base = 0;
        let blurred = 0;
        for (let cycle = 0; cycle < cycles; cycle += 1) {
          // Every other cut goes without a backup beside it, as in real life.
          // A cut with discards comes to two transactions.
          const isWhole = cycle % 2 === 0 && (choice === 'cbt' || !hasDiscards);
          if (isWhole) await proxy.arm(await nodesOf(own));
          const delta = await capture.cut(point(base), point(base + 1), 'crash').catch((error: unknown) => {
            if (!isFault(error, 'CUT_BLURRED')) throw error;
            return null;
          });
          const whole = isWhole ? await proxy.collect() : [];
          if (delta === null) {
            blurred += 1;
            t.same(await capture.reconcile(point(base)), { standing: 'ready' });
            continue;
          }
          t.match(capture.figures(), { capture: choice }, capture.figures().captureWhy);
          await replica.apply(delta);
          for (const [index, path] of whole.entries()) {
            t.equal(difference(path, replica.path(index)), null, `cycle ${cycle}, disk ${index}`);
            rmSync(path);
          }
          t.equal(stampFlaw([replica.path(0), replica.path(1)]), null, `cycle ${cycle}: one instant`);
          await delta.end('acknowledged');
          base += 1;
        }
        if (blurred > 0) t.comment(`${blurred} cuts of ${cycles} were blurred`);
        t.ok(base > 0);
        await guest.command('stop');
        const last = await capture.cut(point(base), point(base + 1), 'final');
        await replica.apply(last);
        await last.end('acknowledged');
        if (!hasDiscards) t.equal(capture.figures().logCuts, capture.figures().cycles, 'all were read from the logs');
        await capture.release();
        t.same(await ownObjects(own), []);
        t.notOk(guest.serial.some(({ text }) => text.includes('FAILED')), 'no write of the guest failed');
        await guest.powerOff();
        t.same(await guest.exited, { code: 0, signal: null });
        for (const [index, { path }] of disks.entries()) t.equal(await imageDifference(path, format, replica.path(index)), null, `disk ${index} at the end`);
        t.same(guest.qemuLog.map(({ text }) => text), [], 'QEMU had nothing to say');
      });
    }
  }
}
