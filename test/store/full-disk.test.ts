/** A full disk: nothing is acknowledged that is not durable, everything is kept, and it goes on by itself when there is space. */
import t from 'tap';
import type { RecordView } from '../../journal/record.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { ModelGuest, sourceId } from './model-guest.ts';
import { appendAll, openOn, openSeeded, replicaFault, walkBack } from './store-rig.ts';

const KiB = 1024;

async function settle(): Promise<void> {
  for (let i = 0; i < 500; i++) await Promise.resolve();
}

t.test('ingest holds, keeps, and goes on', async (t) => {
  const disk = new SimulatedDisk();
  const clock = new SimulatedClock();
  const guest = new ModelGuest([64 * KiB]);
  const { store } = await openSeeded(disk, guest, { isApplierStalled: true }, clock);
  disk.capacityBytes = disk.usedBytes() + 70 * KiB;
  let acknowledged = 0;
  let code = '';
  let next: readonly RecordView[] = [];
  for (let i = 1; i < 100 && code === ''; i++) {
    guest.write(0, 0, Buffer.alloc(8 * KiB, i));
    next = guest.cut();
    try {
      await appendAll(store, next);
      acknowledged = i;
    } catch (error) {
      code = (error as { code: string }).code;
    }
  }
  t.equal(code, 'STORE_FULL');
  t.ok(acknowledged > 2, `${acknowledged} points were taken before`);
  t.match(store.report().held, { code: 'STORE_FULL' });
  t.same(store.holding().newest, { term: 1, point: acknowledged });
  await t.rejects(store.append(next[0]!), { code: 'STORE_FULL' }, 'held without trying');
  clock.advance(5_000);
  await settle();
  t.not(store.report().held, null, 'still no space');
  disk.capacityBytes += 200 * KiB;
  clock.advance(5_000);
  await settle();
  t.equal(store.report().held, null, 'released by itself');
  await store.announce(sourceId, guest.announcement());
  t.same(await appendAll(store, next), { term: 1, point: acknowledged + 1 });
  await store.drain();
  t.equal(replicaFault(disk, guest, guest.newest), null);
});

t.test('the minimum of free space is kept', async (t) => {
  const disk = new SimulatedDisk();
  disk.capacityBytes = 400 * KiB;
  const guest = new ModelGuest([16 * KiB]);
  const { store } = await openSeeded(disk, guest, { isApplierStalled: true, freeBytesMin: 200 * KiB });
  let code = '';
  for (let i = 1; i < 100 && code === ''; i++) {
    guest.write(0, 0, Buffer.alloc(8 * KiB, i));
    code = await appendAll(store, guest.cut()).then(() => '', (error: { code: string }) => error.code);
  }
  t.equal(code, 'STORE_FULL');
  t.ok(await disk.freeBytes() >= 200 * KiB, `${await disk.freeBytes()} bytes are still free`);
});

t.test('applying waits for space, with everything kept', async (t) => {
  const disk = new SimulatedDisk();
  const clock = new SimulatedClock();
  const guest = new ModelGuest([256 * KiB]);
  const { store, registry } = await openSeeded(disk, guest, { segmentBytes: 256 * KiB }, clock);
  guest.write(0, 0, Buffer.alloc(64 * KiB, 1));
  await appendAll(store, guest.cut());
  await store.compare(0, 0, 512, 512, Buffer.alloc(32));
  disk.failing = (operation, path) => (path.endsWith('.part') && operation === 'write' ? 'ENOSPC' : undefined);
  guest.write(0, 0, Buffer.alloc(64 * KiB, 2));
  t.same(await appendAll(store, guest.cut()), { term: 1, point: 2 }, 'acknowledged: the journal has space');
  await t.rejects(store.compare(0, 0, 512, 512, Buffer.alloc(32)), { code: 'STORE_FULL' });
  t.match(store.report(), { held: { code: 'STORE_FULL' }, applied: { point: 1 } });
  disk.failing = () => undefined;
  clock.advance(60_000);
  await settle();
  t.match(store.report(), { held: null, applied: { point: 2 } });
  t.equal(replicaFault(disk, guest, { term: 1, point: 2 }), null);
  t.same(await walkBack(disk, guest, { term: 1, point: 2 }), ['1.1', '0.0']);
  await registry.close();
});

t.test('a data folder that is full from the start still opens, and announces what it has', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store, registry } = await openSeeded(disk, guest);
  guest.write(0, 0, Buffer.alloc(8 * KiB, 1));
  await appendAll(store, guest.cut());
  await registry.close();
  const later = disk.afterPowerCut(3);
  later.capacityBytes = later.usedBytes();
  const again = await openOn(later);
  t.same(again.find('vm1')!.holding().newest, { term: 1, point: 1 });
  t.equal((await again.find('vm1')!.points()).length, 1);
  await again.close();
});
