/** The catalog is an index: lost, behind or ahead, it says again what the files say. */
import { MemoryLevel } from 'memory-level';
import t from 'tap';
import { formatPoint } from '../../journal/point.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { GroupRegistry } from '../../replica-target/store/store.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { ModelGuest, sourceId } from './model-guest.ts';
import { appendAll, groups, smallOptions } from './store-rig.ts';

const KiB = 1024;
type Level = MemoryLevel<string, string>;

function openWith(disk: SimulatedDisk, level: Level, clock: SimulatedClock, options = {}): Promise<GroupRegistry> {
  return openRegistry({ disk, clock, folder: groups, catalog: () => level, options: { ...smallOptions, ...options } });
}

t.test('points survive a lost, an old and a wrong catalog', async (t) => {
  let disk = new SimulatedDisk();
  const clock = new SimulatedClock();
  const guest = new ModelGuest([64 * KiB]);
  const level: Level = new MemoryLevel();
  let registry = await openWith(disk, level, clock);
  let store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  for (let i = 1; i <= 20; i++) {
    guest.write(0, 0, Buffer.alloc(4 * KiB, i));
    clock.advance(1_000);
    await appendAll(store, guest.cut());
    // Points one by one, so that each is a boundary of the history and outlives the journal.
    await store.compare(0, 0, 512, 512, Buffer.alloc(32));
  }
  const points = await store.points();
  t.equal(points.length, 20);
  t.match(points[0], { ...store.report().oldest });
  t.ok(store.report().journalBytes < 100 * KiB, 'the journal holds only the last of them');
  await registry.close();

  disk = disk.afterKill();
  registry = await openWith(disk, new MemoryLevel(), clock);
  store = registry.find('vm1')!;
  t.same(await store.points(), points, 'a lost one, arrival times included');
  t.match(points[19], { ...store.report().newest });
  t.match(points[0], { ...store.report().oldest });
  t.equal(store.report().pointCount, 20);
  await registry.close();

  disk = disk.afterKill();
  const wrong: Level = new MemoryLevel();
  await wrong.put('point!0000000001.0000000000000099', JSON.stringify({ ...points[19], point: 99 }));
  await wrong.put('undo!0000000001.0000000000000098', JSON.stringify({ name: '1.97-1.98.undo', sizeBytes: 5, from: { term: 1, point: 97 }, to: { term: 1, point: 98 } }));
  registry = await openWith(disk, wrong, clock);
  store = registry.find('vm1')!;
  t.same((await store.points()).map(formatPoint), points.map(formatPoint), 'one that is ahead of the files');
  await registry.close();

  disk = disk.afterKill();
  registry = await openRegistry({
    disk, clock, folder: groups, options: smallOptions,
    catalog: (() => { let tries = 0; return () => { if (tries++ === 0) throw Object.assign(new Error('corrupt'), { code: 'LEVEL_CORRUPTION' }); return new MemoryLevel<string, string>(); }; })(),
  });
  t.same((await registry.find('vm1')!.points()).length, 20, 'one that cannot be opened');
  await registry.close();
});

t.test('a point inside a batch goes with its journal, the batch’s last stays', async (t) => {
  const disk = new SimulatedDisk();
  const clock = new SimulatedClock();
  const guest = new ModelGuest([64 * KiB]);
  const registry = await openWith(disk, new MemoryLevel(), clock, { isApplierStalled: true });
  const store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  for (let i = 1; i <= 30; i++) {
    guest.write(0, 0, Buffer.alloc(4 * KiB, i));
    await appendAll(store, guest.cut());
  }
  t.equal((await store.points()).length, 30);
  await store.drain();
  const left = (await store.points()).map(({ point }) => point);
  t.ok(left.length > 5 && left.length < 25, `${left.join()} are left`);
  t.equal(store.report().pointCount, left.length);
  t.same(left.slice(0, 3), [4, 8, 12], 'batches of 16 KiB');
  t.equal(left.at(-1), 30);
  await registry.close();
});

t.test('times never run backward', async (t) => {
  const disk = new SimulatedDisk();
  const clock = new SimulatedClock();
  const guest = new ModelGuest([64 * KiB]);
  const registry = await openWith(disk, new MemoryLevel(), clock);
  const store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  for (const ms of [10_000, -8_000, 1_000]) {
    clock.advance(ms);
    guest.write(0, 0, Buffer.alloc(512, 1));
    await appendAll(store, guest.cut());
  }
  const times = (await store.points()).map(({ cutAtMs, arrivedAtMs }) => [cutAtMs, arrivedAtMs]);
  t.equal(times[1]![1], times[0]![1]);
  t.ok(times[2]![0]! >= times[1]![0]!);
  await registry.close();
});
