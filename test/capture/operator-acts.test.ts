/**
 * An operator goes on as if we were not there: resizes, snapshots and commits back, runs backups of their own, pauses and resumes.
 * On a real guest with an I/O thread per disk, under load. No act is refused but for the moment of a cut, and no wrong point is made.
 */
import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { CbtCapture } from '../../daemon/capture/cbt-capture.ts';
import type { PointId } from '../../journal/point.ts';
import { isFault } from '../../journal/fault.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { ownObjects } from './support/captures.ts';
import { captureGuest, nodesOf, sinkInto } from './support/guests.ts';
import { ProtectedGuest } from './support/protected-guest.ts';
import { shortFolder, until } from './support/storage-daemon.ts';
import { WholeProxy } from './support/whole-proxy.ts';

const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });

t.test('acts of an operator', async (t) => {
  const folder = shortFolder(t);
  const formats = ['qcow2', 'raw'] as const;
  const disks = await Promise.all(formats.map(async (format, index) => ({ path: await createLabDisk(`${folder}/disk${index}`, format, 24 * mib), format, iothread: true })));
  const guest = await startLabGuest(t, { disks, mode: 'raw', churn: 2000, memoryMiB: 128 });
  await guest.waitForLine(/^AF STAMP \d+/, 60_000);
  const own = await connectQmp(guest.ownQmpPath);
  t.teardown(() => own.close());
  const proxy = await WholeProxy.start(t, folder, guest.qmpPath, own);
  const capture = captureGuest(folder, proxy.path);
  await capture.connect();
  await capture.reconcile(null);
  const one = new ProtectedGuest({ t, folder, capture, proxy, own });
  await one.pass();
  t.same(await one.advance('at first'), []);

  // Resize, between cycles.
  await own.execute('block_resize', { 'node-name': 'node0', size: 28 * mib });
  await own.execute('block_resize', { 'node-name': 'node1', size: 26 * mib + 512 });
  t.same(await one.advance('resized'), [], 'a larger disk takes no resync');
  t.same(capture.disks().map(({ sizeBytes }) => sizeBytes), [28 * mib, 26 * mib + 512]);

  // A stopped guest is cut all the same.
  await own.execute('stop');
  t.same(await one.advance('stopped'), []);
  await own.execute('cont');

  // An external snapshot of one disk, some cycles, and back.
  const overlay = await createLabDisk(`${folder}/overlay0`, 'qcow2', 28 * mib);
  await own.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'over0', backing: null, file: { driver: 'file', filename: overlay } });
  await own.execute('blockdev-snapshot', { node: 'node0', overlay: 'over0' });
  const passesBefore = one.passes;
  t.same(await one.advance('overlaid'), ['GUEST_CHANGED'], 'noticed before a point was made of it');
  t.equal(one.passes, passesBefore + 1, 'and resynced');
  t.same(await one.advance('on the overlay'), []);
  // QEMU removes no saved bitmap from a read-only node. Its name fits no newer point; it goes when the node is writable again.
  t.equal((await ownObjects(own)).length, 3);
  await commitBack(own, 'over0', 'node0');
  t.same(await one.advance('committed back'), ['GUEST_CHANGED']);
  t.same(await one.advance('as before'), []);
  t.equal((await ownObjects(own)).length, 2, 'one bitmap for each disk, nothing else');

  // There and back between two cuts: the base's bitmap has recorded the commit.
  await createLabDisk(`${folder}/overlay1`, 'qcow2', 26 * mib + 512);
  await own.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'over1', backing: null, file: { driver: 'file', filename: `${folder}/overlay1` } });
  await own.execute('blockdev-snapshot', { node: 'node1', overlay: 'over1' });
  const from = guest.serial.length;
  await guest.waitForLine(/^AF STAMP \d+/, 60_000, from);
  await commitBack(own, 'over1', 'node1');
  t.same(await one.advance('there and back'), []);

  // Backups of the operator's own, whose ends fall anywhere in our cycles.
  let backups = 0;
  let isOver = false;
  const operator = (async (): Promise<void> => {
    for (const path of ['backup0', 'backup1']) {
      writeFileSync(`${folder}/${path}`, '');
      truncateSync(`${folder}/${path}`, path === 'backup0' ? 28 * mib : 26 * mib + 512);
      await own.execute('blockdev-add', { driver: 'raw', 'node-name': path, file: { driver: 'file', filename: `${folder}/${path}` } });
    }
    while (!isOver) {
      const disk = backups % 2;
      await own.execute('blockdev-backup', { 'job-id': 'nightly', device: `node${disk}`, target: `backup${disk}`, sync: 'full', speed: 120 * mib });
      await until('the backup ends', async () => ((await own.execute<{ id: string }[]>('query-jobs')).some(({ id }) => id === 'nightly') ? undefined : true));
      backups += 1;
    }
    for (const path of ['backup0', 'backup1']) await own.execute('blockdev-del', { 'node-name': path });
  })();
  for (let cycle = 0; backups < 6; cycle += 1) {
    const delta = await capture.cut(point(one.held), point(one.held + 1), 'crash');
    await one.replica.apply(delta);
    await delta.end('acknowledged');
    one.held += 1;
  }
  isOver = true;
  await operator;
  t.ok(backups >= 6);
  t.same(await one.advance('after backups'), []);

  await capture.release();
  t.same(await ownObjects(own), []);
  await guest.command('stop');
  t.notOk(guest.serial.some(({ text }) => text.includes('FAILED')), 'no write of the guest failed');
  await guest.powerOff();
  t.same(guest.qemuLog.map(({ text }) => text), [], 'QEMU had nothing to say');
});

async function commitBack(own: QmpConnection, top: string, base: string): Promise<void> {
  await own.execute('block-commit', { 'job-id': 'commit', device: top, 'top-node': top, 'base-node': base, 'auto-dismiss': false });
  const status = (): Promise<string | undefined> => own.execute<{ id: string; status: string }[]>('query-jobs').then((jobs) => jobs.find(({ id }) => id === 'commit')?.status);
  await until('the commit is ready', async () => (await status() === 'ready' ? true : undefined));
  await own.execute('job-complete', { id: 'commit' });
  await until('the commit is over', async () => (await status() === 'concluded' ? true : undefined));
  await own.execute('job-dismiss', { id: 'commit' });
  await own.execute('blockdev-del', { 'node-name': top });
}
