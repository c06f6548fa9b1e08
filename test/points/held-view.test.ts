import t from 'tap';
import { formatPoint } from '../../journal/point.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { folder } from '../store/store-rig.ts';
import { applied, checkAllPoints, openGroup, RandomGuest, seed, sendPoint, viewFault } from './history-oracle.ts';

const KiB = 1024;

t.test('readers hold their points while the applier overwrites them hundreds of times', async (t) => {
  const guest = new RandomGuest(11);
  const { registry, store } = await openGroup(new SimulatedDisk(), guest.model, { segmentBytes: 32 * KiB, journalKeepBytes: 0, batchBytes: 1 });
  await seed(store, guest.model);
  for (let point = 0; point < 5; point++) await sendPoint(store, registry, guest);
  const views = [];
  for (const point of (await store.restorePoints.list()).slice(-3)) views.push(await store.restorePoints.open(point));
  let isOver = false;
  let rounds = 0;
  const dice = guest.dice;
  const readers = views.map(async (view) => {
    while (!isOver) {
      const fault = await viewFault(view, guest.model, dice);
      if (fault !== null) throw new Error(fault);
      rounds++;
    }
  });
  const writing = (async () => {
    try {
      for (let point = 0; point < 500; point++) await sendPoint(store, registry, guest);
      await store.drain();
    } finally {
      isOver = true;
    }
  })();
  await Promise.all([writing, ...readers]);
  t.ok(rounds > 30, `${rounds} full reads meanwhile`);
  await store.restorePoints.digests.idle();
  t.ok(store.restorePoints.digests.count > 25, `${store.restorePoints.digests.count} digests were made meanwhile`);
  for (const view of views) t.equal(await viewFault(view, guest.model, dice), null);
  for (const view of views) await view.release();
  await t.rejects(views[0]!.read(0, 0, Buffer.alloc(512)), { code: 'POINT_GONE' });
  await registry.close();
});

t.test('a view keeps its boundary and its journal; what is free is given up', async (t) => {
  const guest = new RandomGuest(12);
  let disk = new SimulatedDisk();
  const options = { segmentBytes: 24 * KiB, journalKeepBytes: 96 * KiB, batchBytes: 16 * KiB };
  // Sealed while nothing is applied, so that there are batches of several points.
  let { registry, store } = await openGroup(disk, guest.model, { ...options, isApplierStalled: true });
  await seed(store, guest.model);
  for (let point = 0; point < 60; point++) await sendPoint(store, registry, guest);
  await registry.close();
  disk = disk.afterKill();
  ({ registry, store } = await openGroup(disk, guest.model, options));
  await applied(store);
  const points = await store.restorePoints.list();
  const { history, restorePoints: { pins } } = store;
  const held = points.filter((point) => history.indexOf(point) === null).at(-1)!;
  t.ok(held, 'a point inside a batch');
  const view = await store.restorePoints.open(held);
  const boundary = history.boundaryAtOrBefore(held)!;
  t.same(pins.trimLimit({ term: 9, point: 9 }), { ...boundary }, 'the journal behind the boundary is kept');
  for (let point = 0; point < 60; point++) await sendPoint(store, registry, guest);
  await store.drain();

  const at = history.indexOf(boundary)!;
  t.ok(at > 0, 'there is history before the boundary');
  t.notOk(await history.replace(history.files.slice(0, at + 1), null), 'nothing that the view needs can be dropped');
  t.notOk(history.mayReplace(history.files.slice(at - 1, at + 1), false), 'nor its boundary be merged away');
  t.ok(history.mayReplace(history.files.slice(at, at + 2), false), 'what is newer may be merged');
  const before = history.totalBytes;
  t.ok(await history.replace(history.files.slice(0, at), null), 'what is older may be dropped');
  await history.removed();
  t.ok(history.totalBytes < before);
  t.equal((await disk.list(folder.history)).filter((name) => name.endsWith('.undo')).length, history.count);
  t.equal(await viewFault(view, guest.model, guest.dice), null, 'the view reads on');
  t.ok(await checkAllPoints(store, guest) > 0, 'and so does every other point');
  await t.rejects(store.restorePoints.open(points[0]!), { code: 'POINT_UNKNOWN' });
  t.notOk((await store.restorePoints.list()).some((point) => formatPoint(point) === formatPoint(points[0]!)));
  await view.release();
  await registry.close();

  const again = await openGroup(disk.afterKill(), guest.model, { journalKeepBytes: 0 });
  t.equal(again.store.history.count, history.count, 'dropped files stay dropped');
  await checkAllPoints(again.store, guest);
  await again.registry.close();
});

t.test('a durable hold outlives the process, and ends', async (t) => {
  const guest = new RandomGuest(13);
  let disk = new SimulatedDisk();
  let { registry, store } = await openGroup(disk, guest.model, { segmentBytes: 24 * KiB, journalKeepBytes: 0, batchBytes: 8 * KiB });
  await seed(store, guest.model);
  for (let point = 0; point < 20; point++) await sendPoint(store, registry, guest);
  const newest = store.holding().newest!;
  const hold = await store.restorePoints.hold(newest, 'failover of vm1, streaming', null);
  t.match(store.restorePoints.holds(), [{ holdId: hold.holdId, point: newest, untilMs: null, reason: 'failover of vm1, streaming' }]);
  disk = disk.afterKill();
  ({ registry, store } = await openGroup(disk, guest.model, { segmentBytes: 24 * KiB, journalKeepBytes: 0, batchBytes: 8 * KiB }));
  for (let point = 0; point < 60; point++) await sendPoint(store, registry, guest);
  await store.drain();
  t.match(await store.restorePoints.list(), (await store.restorePoints.list()).map((point) => ({ isHeld: formatPoint(point) === formatPoint(newest) })));
  const view = await store.restorePoints.open(newest);
  t.equal(await viewFault(view, guest.model, guest.dice), null);
  await view.release();
  const { history } = store;
  const at = history.indexOf(history.boundaryAtOrBefore(newest)!)!;
  t.notOk(history.mayReplace(history.files.slice(0, at + 1), true), 'what it needs is kept');
  await store.restorePoints.release(hold.holdId);
  await store.restorePoints.release(hold.holdId);
  t.same(store.restorePoints.holds(), []);
  t.ok(history.mayReplace(history.files.slice(0, at + 1), true), 'and is free once it is released');
  await t.rejects(store.restorePoints.hold({ term: 1, point: 9999 }, 'x', null), { code: 'POINT_UNKNOWN' });

  await store.restorePoints.hold(store.holding().newest!, 'short', 1);
  t.same(store.restorePoints.holds(), [], 'one whose time is over is none');
  await registry.close();
  ({ registry, store } = await openGroup(disk.afterKill(), guest.model, {}));
  t.same(store.restorePoints.holds(), []);
  await registry.close();
});

t.test('a hold that cannot be written is none', async (t) => {
  const guest = new RandomGuest(14);
  const disk = new SimulatedDisk();
  const { registry, store } = await openGroup(disk, guest.model, {});
  await seed(store, guest.model);
  await sendPoint(store, registry, guest);
  await store.drain();
  disk.failing = (_, path) => (path.includes('holds.json') ? 'EIO' : undefined);
  await t.rejects(store.restorePoints.hold(store.holding().newest!, 'x', null), { code: 'STORE_SYNC' });
  t.same(store.restorePoints.holds(), []);
  disk.failing = () => undefined;
  await registry.close();
});
