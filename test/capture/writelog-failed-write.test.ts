/**
 * A write of the guest that its disk refuses: the log has it all the same, so that the next point is copied from the disk instead.
 * The disk is a real one behind QEMU's own fault injection.
 */
import t from 'tap';
import type { PointId } from '../../journal/point.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import { imageDifference } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { ownObjects } from './support/captures.ts';
import { captureGuest, passWhole } from './support/guests.ts';
import { Replica } from './support/replica.ts';
import { shortFolder, until } from './support/storage-daemon.ts';

const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });
/** The guest's load stays below, in sectors. */
const badSector = (20 * mib) / 512;

void t.test('a write that failed is not taken from the log', { timeout: 110_000 }, async (t) => {
  const folder = shortFolder(t);
  const path = await createLabDisk(`${folder}/disk`, 'raw', 32 * mib);
  const guest = await startLabGuest(t, { disks: [{ path, format: 'raw' }], mode: 'raw', churn: 0, memoryMiB: 128, append: 'af.discards=0' });
  await guest.waitForLine(/^AF STAMP \d+/, 60_000);
  const own = await connectQmp(guest.ownQmpPath);
  t.teardown(() => own.close());
  await own.execute('blockdev-add', { driver: 'blkdebug', 'node-name': 'faulty', image: 'node0', 'inject-error': [{ event: 'none', iotype: 'write', sector: badSector, errno: 5, once: true }] });
  await own.execute('qom-set', { path: '/machine/peripheral/disk0', property: 'drive', value: 'faulty' });
  const errors: unknown[] = [];
  own.onEvent(({ event, data }) => { if (event === 'BLOCK_IO_ERROR') errors.push(data['operation']); });

  const capture = captureGuest(folder, guest.qmpPath, { capture: 'writelog' });
  await capture.connect();
  await capture.reconcile(null);
  const replica = new Replica(folder, 1);
  await passWhole(capture, replica);
  let held = 0;
  const advance = async (): Promise<void> => {
    const delta = await capture.cut(point(held), point(held + 1), 'crash');
    await replica.apply(delta);
    await delta.end('acknowledged');
    held += 1;
  };
  await advance();
  t.equal(capture.figures().logCuts, 1, 'from the log');

  await guest.command(`sh dd if=/run/pool of=/dev/vda bs=4k count=1 seek=${badSector / 8} oflag=direct conv=notrunc; true`, 60_000);
  await until('QEMU to tell of it', () => (errors.length > 0 ? true : undefined));
  t.same([...new Set(errors)], ['write']);
  await capture.cut(point(held), point(held + 1), 'crash').then((delta) => delta.end('dropped'), (error: { code: string }) => { t.equal(error.code, 'LOG_BROKEN'); });
  t.same(await capture.reconcile(point(held)), { standing: 'ready' });
  await advance();
  t.match(capture.figures(), { capture: 'cbt', captureWhy: /a write of the guest failed/, logCuts: 1 });

  await guest.command('stop');
  await advance();
  await capture.release();
  t.same(await ownObjects(own), []);
  await guest.powerOff();
  await guest.exited;
  t.equal(await imageDifference(path, 'raw', replica.path(0)), null, 'the point has what the disk has, not what the guest tried to write');
});
