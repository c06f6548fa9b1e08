/**
 * Days in the life of a group with a policy: what is promised is there and reads as the model says, what is not goes, a full
 * budget holds the source off and lets it go on. Time is the test's own.
 */
import t from 'tap';
import type { RetentionPolicy } from '../../replica-target/points/retention-plan.ts';
import type { FileGroupStore } from '../../replica-target/store/group-store.ts';
import type { GroupRegistry } from '../../replica-target/store/store.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { openOn } from '../store/store-rig.ts';
import { announce, applied, checkAllPoints, RandomGuest, realStore, seed, sendPoint } from './history-oracle.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const policy = (change: Partial<RetentionPolicy> = {}): RetentionPolicy => ({ windowMs: 2 * hourMs, hourly: 5, daily: 3, weekly: 0, monthly: 0, budgetBytes: null, ...change });

async function open(disk: SimulatedDisk, guest: RandomGuest, clock: SimulatedClock, retention: () => RetentionPolicy): Promise<{ registry: GroupRegistry; store: FileGroupStore }> {
  const registry = await openOn(disk, { segmentBytes: 32 * 1024, batchBytes: 1, retentionOf: retention }, clock);
  return { registry, store: realStore(await announce(registry, guest.model)) };
}

t.test('four days, a point every ten minutes, killed now and then', async (t) => {
  const guest = new RandomGuest(7);
  const clock = new SimulatedClock();
  let disk = new SimulatedDisk();
  let { registry, store } = await open(disk, guest, clock, policy);
  await seed(store, guest.model);
  for (let point = 1; point <= 4 * 144; point++) {
    clock.advance(10 * minuteMs);
    await sendPoint(store, registry, guest);
    if (point % 6 === 0) {
      await applied(store);
      await store.retention!.settle();
    }
    if (point % 100 !== 0) continue;
    await checkAllPoints(store, guest, 0.3);
    disk = disk.afterKill();
    ({ registry, store } = await open(disk, guest, clock, policy));
  }
  await applied(store);
  await store.retention!.settle();
  const points = await store.restorePoints.list();
  await checkAllPoints(store, guest);
  const ageHours = (arrivedAtMs: number): number => (clock.nowMs() - arrivedAtMs) / hourMs;
  t.same(points.filter(({ keptBy }) => keptBy === 'all').map(({ point }) => point).slice(-13), Array.from({ length: 13 }, (_, index) => 4 * 144 - 12 + index), 'every point of two hours');
  t.ok(points.filter(({ arrivedAtMs }) => ageHours(arrivedAtMs) > 3.1).every(({ keptBy }) => keptBy !== 'all'));
  const hourly = points.filter(({ keptBy }) => keptBy === 'hourly');
  t.ok(hourly.length >= 5 && hourly.length < 5 + 24, `${hourly.length} hours`);
  const daily = points.filter(({ keptBy }) => keptBy === 'daily');
  t.ok(daily.length >= 2 && daily.length <= 7, `${daily.length} days`);
  t.equal(store.history.count, points.length - 1 + (store.history.files[0]!.from === null ? 1 : 0), 'no more files than points need');
  t.equal(store.report().retention?.windowHadMs, 2 * hourMs);

  disk = disk.afterKill();
  const again = await open(disk, guest, clock, policy);
  await again.store.retention!.settle();
  t.same((await again.store.restorePoints.list()).map(({ point }) => point), points.map(({ point }) => point), 'the same points after a restart, from the files alone');
  await again.registry.close();
  await registry.close();
});

t.test('what is held stays, and so does what a view reads', async (t) => {
  const guest = new RandomGuest(11);
  const clock = new SimulatedClock();
  const disk = new SimulatedDisk();
  const { registry, store } = await open(disk, guest, clock, () => policy({ hourly: 0, daily: 0 }));
  await seed(store, guest.model);
  const next = async (count: number): Promise<void> => {
    for (let point = 0; point < count; point++) {
      clock.advance(10 * minuteMs);
      await sendPoint(store, registry, guest);
    }
    await applied(store);
    await store.retention!.settle();
  };
  await next(4);
  const held = await store.restorePoints.hold({ term: 1, point: 2 }, 'a test', null);
  const view = await store.restorePoints.open({ term: 1, point: 3 });
  await next(60);
  t.same((await store.restorePoints.list()).slice(0, 2).map(({ point, isHeld, keptBy }) => ({ point, isHeld, keptBy })), [{ point: 2, isHeld: true, keptBy: 'held' }, { point: 3, isHeld: false, keptBy: 'held' }]);
  await checkAllPoints(store, guest);
  await view.release();
  await store.restorePoints.release(held.holdId);
  await next(1);
  t.ok((await store.restorePoints.list())[0]!.point > 40);
  await registry.close();
});

t.test('a full budget gives up what is not promised, then holds the source off', async (t) => {
  const guest = new RandomGuest(3);
  const clock = new SimulatedClock();
  const disk = new SimulatedDisk();
  let budgetBytes = 10_000_000;
  const { registry, store } = await open(disk, guest, clock, () => policy({ hourly: 1000, budgetBytes }));
  await seed(store, guest.model);
  for (let point = 0; point < 80; point++) {
    clock.advance(10 * minuteMs);
    await sendPoint(store, registry, guest);
  }
  await applied(store);
  await store.retention!.settle();
  const { usedBytes } = store.report().retention!;
  const before = await store.restorePoints.list();
  t.equal(store.report().held, null);

  budgetBytes = usedBytes - 1;
  await store.retention!.settle();
  const less = await store.restorePoints.list();
  t.ok(less.length < before.length && store.report().retention!.usedBytes <= budgetBytes);
  t.same(less.map(({ point }) => point), before.map(({ point }) => point).slice(-less.length), 'oldest first');
  t.equal(store.report().held, null);

  budgetBytes = 1_000;
  await store.retention!.settle();
  const window = await store.restorePoints.list();
  t.ok(window.length >= 13, 'the window stays');
  t.match(store.report().held, { code: 'RETENTION_FULL' });
  t.equal(store.report().retention!.space, 'full');
  await t.rejects(sendPoint(store, registry, guest), { code: 'RETENTION_FULL' });
  await checkAllPoints(store, guest);

  budgetBytes = 10_000_000;
  await store.retention!.settle();
  t.equal(store.report().held, null, 'and it goes on');
  await registry.close();
});
