/** Cycles on a storage daemon under load: at every cut, base plus deltas is the content that QEMU itself copies whole at that instant. */
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import t from 'tap';
import type { PointId } from '../../journal/point.ts';
import { isFault } from '../../journal/fault.ts';
import { groupId, makeCapture, ownObjects, plantOn } from './support/captures.ts';
import { startLoad } from './support/load.ts';
import { difference, Replica } from './support/replica.ts';
import { makeDisks, shortFolder, startStandIn, until } from './support/storage-daemon.ts';
import { WholeProxy } from './support/whole-proxy.ts';

const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });

t.test('at every cut the replica is the disks, deltas dropped or not', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 48 * mib, format: 'raw' }, { sizeBytes: 24 * mib + 512 * 3, format: 'qcow2' }, { sizeBytes: 8 * mib, format: 'raw' }]), folder);
  const proxy = await WholeProxy.start(t, folder, standIn.qmpPath, standIn.qmp);
  const capture = makeCapture(standIn, { qmpPath: proxy.path });
  await capture.connect();
  await plantOn(standIn);
  t.same(await capture.reconcile(point(0)), { standing: 'ready' });
  const load = startLoad(t, standIn);
  const replica = new Replica(folder, 3);
  let base = 0;
  for (let cycle = 0; cycle < 12; cycle += 1) {
    // The disk's end, which is no whole cluster: written in every other cycle.
    if (cycle % 2 === 0) execFileSync('qemu-io', ['-f', 'raw', '-c', `write -P ${cycle + 1} ${24 * mib} 1536`, `nbd+unix:///d1?socket=${standIn.nbdPath}`]);
    await proxy.arm(standIn.disks);
    const delta = await capture.cut(point(base), point(base + 1), 'crash');
    t.notOk(delta.isRound);
    const whole = await proxy.collect();
    const isDropped = cycle % 4 === 2;
    if (isDropped) {
      await delta.end('dropped');
    } else {
      await replica.apply(delta);
      for (const [index, path] of whole.entries()) t.equal(difference(path, replica.path(index)), null, `cycle ${cycle}, disk ${index}`);
      await delta.end('acknowledged');
      base += 1;
    }
    for (const path of whole) rmSync(path);
  }
  await load.stop();
  t.equal(load.failed(), '');
  const bitmaps = (await ownObjects(standIn.qmp));
  t.same(bitmaps.sort(), [0, 1, 2].map((disk) => `afterimage-${groupId.slice(0, 16)}-${disk}-1-${base}`));
  t.equal(capture.figures().cycles, 12);
  t.equal(capture.figures().spoolBytes, 0);
  await capture.release();
  t.same(await ownObjects(standIn.qmp), []);
  t.equal(standIn.said(), '');
});

t.test('more than the spool holds comes in rounds, then the point is right', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 96 * mib, format: 'raw' }, { sizeBytes: 64 * mib, format: 'raw' }]), folder);
  const proxy = await WholeProxy.start(t, folder, standIn.qmpPath, standIn.qmp);
  const capture = makeCapture(standIn, { qmpPath: proxy.path, budgetBytes: 40 * mib });
  await capture.connect();
  await plantOn(standIn);
  await capture.reconcile(point(0));
  const heavy = startLoad(t, standIn, 800);
  await until('more is dirty than the spool holds', async () => (await capture.measureDirtyBytes() > 120 * mib ? true : undefined));
  await heavy.stop();
  const light = startLoad(t, standIn, 20);
  const replica = new Replica(folder, 2);
  let rounds = 0;
  let dropped = 0;
  for (let step = 0; ; step += 1) {
    t.ok(step < 60, 'the rounds come to an end');
    await proxy.arm(standIn.disks);
    const delta = await capture.cut(point(0), point(1), 'crash').catch((error: unknown) => {
      if (isFault(error, 'DELTA_BROKEN')) return null;
      throw error;
    });
    const whole = await proxy.collect();
    if (delta === null) {
      await capture.reconcile(point(0), rounds);
      continue;
    }
    if (delta.isRound && (step === 0 || step === 3)) {
      await delta.end('dropped');
      dropped += 1;
      continue;
    }
    await replica.apply(delta);
    if (delta.isRound) {
      rounds += 1;
      await delta.end('acknowledged');
      continue;
    }
    for (const [index, path] of whole.entries()) t.equal(difference(path, replica.path(index)), null, `disk ${index}`);
    await delta.end('acknowledged');
    break;
  }
  t.comment(`${rounds} rounds, ${dropped} dropped`);
  t.ok(rounds > 2);
  await light.stop();
  const bitmaps = await ownObjects(standIn.qmp);
  t.same(bitmaps.sort(), [0, 1].map((disk) => `afterimage-${groupId.slice(0, 16)}-${disk}-1-1`));
  await capture.release();
  t.same(await ownObjects(standIn.qmp), []);
});

t.test('an image that overflows breaks the delta, not the disk; the next one is right', async (t) => {
  const folder = shortFolder(t);
  const standIn = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 64 * mib, format: 'raw' }, { sizeBytes: 8 * mib, format: 'raw' }]), folder);
  const proxy = await WholeProxy.start(t, folder, standIn.qmpPath, standIn.qmp);
  const capture = makeCapture(standIn, { qmpPath: proxy.path });
  await capture.connect();
  await plantOn(standIn);
  await capture.reconcile(point(0));
  const load = startLoad(t, standIn);
  await until('more is dirty than will fit', async () => (await capture.measureDirtyBytes() > 8 * mib ? true : undefined));
  const replica = new Replica(folder, 2);
  // The bound of the image is made smaller behind the capture's back: as if far more had been written than it counted.
  proxy.onCommand = (command) => {
    const json = JSON.stringify(command.arguments ?? {}).replace(/"driver":"raw","node-name":"(afterimage-[^"]*)","size":\d+/g, '"driver":"raw","node-name":"$1","size":1048576');
    if (command.execute === 'blockdev-add') command.arguments = JSON.parse(json) as Record<string, unknown>;
    return 'pass';
  };
  const broken = await capture.cut(point(0), point(1), 'crash').then(() => null, (error: unknown) => error);
  t.ok(isFault(broken, 'DELTA_BROKEN'), String(broken));
  t.equal((await ownObjects(standIn.qmp)).filter((name) => !name.startsWith(`afterimage-${groupId.slice(0, 16)}`)).length, 0, 'nothing but bitmaps is left');
  t.equal(capture.figures().spoolBytes, 0);
  proxy.onCommand = () => 'pass';
  t.same(await capture.reconcile(point(0)), { standing: 'ready' });
  await proxy.arm(standIn.disks);
  const delta = await capture.cut(point(0), point(1), 'crash');
  const whole = await proxy.collect();
  await replica.apply(delta);
  for (const [index, path] of whole.entries()) t.equal(difference(path, replica.path(index)), null, `disk ${index}`);
  await delta.end('acknowledged');
  await load.stop();
  t.equal(load.failed(), '', 'no write of the guest failed');
  await capture.release();
});
