import t from 'tap';
import { digestFanout, planDigests } from '../../replica-target/points/digest-plan.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { folder } from '../store/store-rig.ts';
import { checkAllPoints, openGroup, RandomGuest, seed, sendPoint } from './history-oracle.ts';

const options = { segmentBytes: 32 * 1024, journalKeepBytes: 0, batchBytes: 1 };

t.test('digests', async (t) => {
  const guest = new RandomGuest(21);
  let disk = new SimulatedDisk();
  let { registry, store } = await openGroup(disk, guest.model, options);
  await seed(store, guest.model);
  for (let point = 0; point < 300; point++) await sendPoint(store, registry, guest);
  await store.drain();
  await store.restorePoints.digests.idle();
  const digests = async (): Promise<string[]> => (await disk.list(folder.history)).filter((name) => name.endsWith('.digest')).map((name) => folder.undo(name)).sort();
  const all = await digests();
  t.ok(all.length >= Math.floor(300 / 17), `${all.length} digests`);
  const lease = store.history.lease();
  const searches = store.restorePoints.digests.cover(lease, 1, lease.count);
  lease.release();
  t.ok(searches.length <= 15 * 2 * 2 + 2, `${searches.length} sources for ${store.history.count} files`);
  t.equal(searches.reduce((total, { fileCount }) => total + fileCount, 0), store.history.count - 1);

  await t.test('agree with the files', async (t) => { t.ok(await checkAllPoints(store, guest, 0.2) > 250); });

  await t.test('are there after a restart', async (t) => {
    await registry.close();
    disk = disk.afterKill();
    ({ registry, store } = await openGroup(disk, guest.model, options));
    await store.restorePoints.digests.idle();
    t.same(await digests(), all, 'the same ones');
  });

  await t.test('deleted: made anew, and every point reads meanwhile', async (t) => {
    await registry.close();
    disk = disk.afterKill();
    for (const path of all) await disk.remove(path);
    ({ registry, store } = await openGroup(disk, guest.model, options));
    t.ok(await checkAllPoints(store, guest, 0.2) > 250);
    await store.restorePoints.digests.idle();
    t.equal((await digests()).length, all.length);
  });

  await t.test('damaged in any page: not believed, and made anew', async (t) => {
    for (const [index, path] of (await digests()).entries()) {
      const { length } = disk.contentOf(path);
      disk.flip(path, (index * 1009 + 77) % length);
    }
    await registry.close();
    disk = disk.afterKill();
    ({ registry, store } = await openGroup(disk, guest.model, options));
    t.ok(await checkAllPoints(store, guest, 0.2) > 250);
    // And while it runs: whatever is in memory may hide it, no wrong byte comes out.
    for (const [index, path] of (await digests()).entries()) disk.flip(path, (index * 2003 + 5) % disk.contentOf(path).length);
    t.ok(await checkAllPoints(store, guest, 0.2) > 250);
  });

  await t.test('of other files under their names: not believed', async (t) => {
    await store.restorePoints.digests.idle();
    await registry.close();
    disk = disk.afterKill();
    const [first, second] = await digests();
    await disk.remove(first!);
    await disk.rename(second!, first!);
    ({ registry, store } = await openGroup(disk, guest.model, options));
    t.ok(await checkAllPoints(store, guest, 0.2) > 250);
  });

  await t.test('go with the files that they speak of', async (t) => {
    await store.restorePoints.digests.idle();
    const count = store.restorePoints.digests.count;
    t.ok(await store.history.replace(store.history.files.slice(0, 40), null));
    t.ok(store.restorePoints.digests.count < count, 'those that touch what was dropped');
    t.ok(await checkAllPoints(store, guest, 0.2) > 200);
    await store.restorePoints.digests.idle();
    await store.history.removed();
    t.equal((await digests()).length, store.restorePoints.digests.count, 'and their files');
    t.ok(await checkAllPoints(store, guest, 0.2) > 200);
  });
  await registry.close();
});

t.test('a plan covers the oldest sixteen of the lowest level first', (t) => {
  const part = (index: number, isCovered = false) => ({ from: index === 0 ? null : { term: 1, point: index }, to: { term: 1, point: index + 1 }, isCovered });
  const files = Array.from({ length: 40 }, (_, index) => part(index));
  t.same(planDigests([files]), { level: 1, firsts: [0, 16] });
  const covered = files.map((file, index) => ({ ...file, isCovered: index < digestFanout }));
  t.same(planDigests([covered]), { level: 1, firsts: [16] });
  t.equal(planDigests([files.slice(0, 15)]), null);
  t.equal(planDigests([[...files.slice(0, 10), ...files.slice(11, 25)]]), null, 'a gap in the line is not bridged');
  t.end();
});
