/**
 * What is left of the bitmaps when QEMU ends: on qcow2 they outlive a clean end, and the next delta is right; after a crash, on a
 * raw disk, or under an older copy of the image, they are gone or do not fit, and that is noticed. And a cut that QEMU blurred is.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { isFault } from '../../journal/fault.ts';
import type { PointId } from '../../journal/point.ts';
import { makeCapture, ownObjects, plantOn } from './support/captures.ts';
import { difference, Replica } from './support/replica.ts';
import { makeDisks, shortFolder, startStandIn, until, type StandIn } from './support/storage-daemon.ts';
import { WholeProxy } from './support/whole-proxy.ts';

const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });
const write = (standIn: StandIn, disk: number, pattern: number, range: string): void => {
  execFileSync('qemu-io', ['-f', 'raw', '-c', `write -P ${pattern} ${range}`, `nbd+unix:///d${disk}?socket=${standIn.nbdPath}`]);
};
const toRaw = (standIn: StandIn, disk: number): string => {
  const path = join(standIn.folder, `flat${disk}`);
  execFileSync('qemu-img', ['convert', '-U', '-O', 'raw', standIn.disks[disk]!.path, path]);
  return path;
};

t.test('qcow2: a clean end keeps the bitmaps, a crash and an older copy do not go unnoticed', async (t) => {
  const folder = shortFolder(t);
  const disks = makeDisks(folder, [{ sizeBytes: 16 * mib, format: 'qcow2' }, { sizeBytes: 8 * mib, format: 'qcow2' }]);
  const replica = new Replica(folder, 2);
  let standIn = await startStandIn(t, disks, folder);
  await plantOn(standIn);
  let capture = makeCapture(standIn);
  await capture.connect();
  await capture.reconcile(point(0));
  write(standIn, 0, 1, '1M 1M');
  const first = await capture.cut(point(0), point(1), 'crash');
  await replica.apply(first);
  await first.end('acknowledged');
  write(standIn, 0, 2, '3M 64k');
  write(standIn, 1, 2, '5M 64k');
  // In the middle of a cycle: the bitmap of the cut ends with QEMU.
  const second = await capture.cut(point(1), point(2), 'crash');
  await second.end('unknown');
  await capture.close();
  await standIn.quit();
  const older = disks.map(({ path }) => `${path}.older`);
  for (const [index, { path }] of disks.entries()) copyFileSync(path, older[index]!);

  standIn = await startStandIn(t, disks, folder);
  write(standIn, 1, 3, '6M 64k'); // before the daemon is back
  capture = makeCapture(standIn);
  await capture.connect();
  t.same(await capture.reconcile(point(1)), { standing: 'ready' }, 'the target has not got the second point');
  const again = await capture.cut(point(1), point(2), 'crash');
  t.equal(again.changedBytes, 3 * 65536);
  await replica.apply(again);
  await again.end('acknowledged');
  await capture.close();
  await standIn.quit();
  for (const disk of [0, 1]) t.equal(difference(toRaw(standIn, disk), replica.path(disk)), null);

  // An older copy of the images is put back, with the bitmaps of then inside.
  for (const [index, { path }] of disks.entries()) copyFileSync(older[index]!, path);
  standIn = await startStandIn(t, disks, folder);
  capture = makeCapture(standIn);
  await capture.connect();
  t.equal((await ownObjects(standIn.qmp)).length, 2, 'the old bitmaps are there');
  write(standIn, 0, 4, '7M 64k');
  // The cut that was given up had the number of the point that the target holds now; its bitmap would have left out what came between.
  t.match(await capture.reconcile(point(2)), { standing: 'resync' });
  t.same(await ownObjects(standIn.qmp), []);

  // A crash: what was saved at the last clean end is marked as not to be trusted, or gone.
  await plantOn(standIn, '1-3');
  await capture.close();
  await standIn.quit();
  standIn = await startStandIn(t, disks, folder);
  capture = makeCapture(standIn);
  await capture.connect();
  t.same(await capture.reconcile(point(3)), { standing: 'ready' }, 'saved by a clean end');
  write(standIn, 0, 5, '8M 64k');
  await capture.close();
  standIn.kill();
  await standIn.over;
  standIn = await startStandIn(t, disks, folder);
  capture = makeCapture(standIn);
  await capture.connect();
  t.match(await capture.reconcile(point(3)), { standing: 'resync' }, 'not saved by a crash');
  t.same(await ownObjects(standIn.qmp), []);
});

t.test('raw: bitmaps end with QEMU', async (t) => {
  const folder = shortFolder(t);
  const disks = makeDisks(folder, [{ sizeBytes: 8 * mib, format: 'raw' }]);
  let standIn = await startStandIn(t, disks, folder);
  await plantOn(standIn);
  await standIn.quit();
  standIn = await startStandIn(t, disks, folder);
  const capture = makeCapture(standIn);
  await capture.connect();
  t.equal(await capture.measureDirtyBytes(), 8 * mib, 'nothing is known to be at the target');
  t.match(await capture.reconcile(point(0)), { standing: 'resync' });
});

t.test('a job that counts more than its image holds blurred the cut', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 8 * mib, format: 'raw' }]), folder);
  const proxy = await WholeProxy.start(t, folder, standIn.qmpPath, standIn.qmp);
  const capture = makeCapture(standIn, { qmpPath: proxy.path });
  await capture.connect();
  await plantOn(standIn);
  await capture.reconcile(point(0));
  write(standIn, 0, 1, '1M 1M');
  // As QEMU answers when a block was copied twice.
  proxy.onAnswer = (line) => line.replace('"current-progress": 1048576', '"current-progress": 1114112');
  const blurred = await capture.cut(point(0), point(1), 'crash').then(() => null, (error: unknown) => error);
  t.ok(isFault(blurred, 'CUT_BLURRED'), String(blurred));
  proxy.onAnswer = (line) => line;
  t.same(await capture.reconcile(point(0)), { standing: 'ready' });
  const delta = await capture.cut(point(0), point(1), 'crash');
  t.equal(delta.changedBytes, mib);
  await delta.end('acknowledged');
  await capture.release();
  t.same(await ownObjects(standIn.qmp), []);
});

t.test('a death while a foreign backup is at work: our job waits for its end, and the next life ends it', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 8 * mib, format: 'raw' }, { sizeBytes: 8 * mib, format: 'raw' }]), folder);
  const proxy = await WholeProxy.start(t, folder, standIn.qmpPath, standIn.qmp);
  await plantOn(standIn);
  write(standIn, 0, 1, '1M 1M');
  await standIn.qmp.execute('blockdev-add', { driver: 'null-co', 'node-name': 'sink', size: 8 * mib });
  await standIn.qmp.execute('blockdev-backup', { 'job-id': 'nightly', device: 'disk0', target: 'sink', sync: 'full', speed: 65536 });
  const first = makeCapture(standIn, { qmpPath: proxy.path });
  await first.connect();
  await first.reconcile(point(0));
  proxy.onCommand = ({ execute }) => (execute === 'transaction' ? 'dieAfter' : 'pass');
  await t.rejects(first.cut(point(0), point(1), 'crash'), { code: 'QMP_CLOSED' });
  proxy.onCommand = () => 'pass';
  await until('our jobs wait', async () => {
    const jobs = await standIn.qmp.execute<{ id: string; status: string }[]>('query-jobs');
    return jobs.filter(({ id, status }) => id.startsWith('afterimage') && status === 'pending').length === 2 ? true : undefined;
  });
  const second = makeCapture(standIn, { qmpPath: proxy.path });
  await second.connect();
  t.same(await second.reconcile(point(0)), { standing: 'ready' });
  t.equal((await ownObjects(standIn.qmp)).length, 2);
  const delta = await second.cut(point(0), point(1), 'crash');
  t.equal(delta.changedBytes, mib);
  await delta.end('acknowledged');
  t.ok((await standIn.qmp.execute<{ id: string }[]>('query-jobs')).some(({ id }) => id === 'nightly'), 'the foreign one goes on');
  await second.release();
  t.same(await ownObjects(standIn.qmp), []);
});
