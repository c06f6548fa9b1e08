/** The store's own promises, on the simulated disk. */
import t from 'tap';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { ModelGuest, sourceId } from './model-guest.ts';
import { appendAll, openOn, openSeeded, replicaFault, walkBack } from './store-rig.ts';

const KiB = 1024;

t.test('points are acknowledged, applied, walked back, and there after a restart', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB, 32 * KiB]);
  const { registry, store } = await openSeeded(disk, guest);
  for (let i = 1; i <= 12; i++) {
    guest.write(i % 2, 512 * i, Buffer.alloc(4 * KiB, i));
    guest.zero(0, 1024 * i, 512);
    t.same(await appendAll(store, guest.cut({ isCompressed: i % 3 === 0 })), { term: 1, point: i });
  }
  t.same(store.holding().newest, { term: 1, point: 12 });
  t.same(await store.drain(), { term: 1, point: 12 });
  t.equal(replicaFault(disk, guest, guest.newest), null);
  const seen = await walkBack(disk, guest, { term: 1, point: 12 });
  t.equal(seen.at(-1), '0.0', 'back to the first sync');
  const report = store.report();
  t.match(report, { newest: { point: 12, isApplied: true }, applied: { point: 12 }, held: null, state: 'protected', seed: 'done' });
  t.ok(report.historyBytes > 0 && report.journalBytes > 0 && report.replicaBytes > 0);
  await registry.close();
  const again = await openOn(disk.afterKill());
  const reopened = again.find('vm1')!;
  t.match(reopened.holding(), { newest: { term: 1, point: 12 }, applied: { term: 1, point: 12 }, open: null, seed: 'done' });
  t.equal((await reopened.points()).at(-1)?.point, 12);
  await again.close();
});

t.test('records that do not follow are refused by name, and nothing of them is used', async (t) => {
  const guest = new ModelGuest([64 * KiB]);
  const { store } = await openSeeded(new SimulatedDisk(), guest);
  guest.write(0, 0, Buffer.alloc(512, 1));
  const first = guest.cut();
  await t.rejects(store.append(first[1]!), { code: 'RECORD_MISPLACED' }, 'data outside a delta');
  await appendAll(store, first);
  await t.rejects(store.append(first[0]!), { code: 'RECORD_MISPLACED' }, 'the same delta again');
  guest.write(0, 512, Buffer.alloc(512, 2));
  guest.cut();
  guest.write(0, 512, Buffer.alloc(512, 3));
  await t.rejects(store.append(guest.cut()[0]!), { code: 'DELTA_BASE' }, 'a base that is not here');
  guest.newest = { term: 1, point: 1 };
  guest.write(0, 63 * KiB, Buffer.alloc(1 * KiB, 3));
  guest.write(0, 0, Buffer.alloc(512, 3));
  const second = guest.cut();
  await store.append(second[0]!);
  await t.rejects(store.append(second[2]!), { code: 'RECORD_MISPLACED' }, 'a gap in the sequence');
  t.equal(await store.append(second[1]!), null, 'the right one still follows');
  await store.cutTorn();
  await t.rejects(store.append(second[2]!), { code: 'RECORD_MISPLACED' }, 'after the torn delta was cut off');
  t.same(await appendAll(store, second), { term: 1, point: 2 }, 'sent again from its beginning');
});

t.test('terms fence', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store, registry } = await openSeeded(disk, guest);
  guest.write(0, 0, Buffer.alloc(512, 1));
  await appendAll(store, guest.cut());
  t.same(await store.failOver(), { term: 2, point: { term: 1, point: 1 } });
  await t.rejects(store.failOver(), { code: 'FAILOVER_STATE' });
  await t.rejects(store.announce(sourceId, guest.announcement()), { code: 'TERM_OLD' });
  guest.write(0, 0, Buffer.alloc(512, 2));
  const records = guest.cut();
  await t.rejects(store.append(records[0]!), { code: 'TERM_OLD' });
  await registry.close();
  const again = await openOn(disk.afterPowerCut(1));
  const reopened = again.find('vm1')!;
  t.equal(reopened.report().state, 'failed-over');
  await t.rejects(reopened.announce(sourceId, guest.announcement({ term: 2 })), { code: 'GROUP_FAILED_OVER' });
  await reopened.rollBack();
  await reopened.announce(sourceId, guest.announcement());
  t.equal(reopened.holding().term, 2, 'the source learns the raised term');
  guest.newest = { term: 1, point: 1 };
  guest.term = 2;
  guest.write(0, 0, Buffer.alloc(512, 3));
  t.same(await appendAll(reopened, guest.cut()), { term: 2, point: 1 });
  await t.rejects(reopened.announce('0'.repeat(32), guest.announcement()), { code: 'GROUP_FOREIGN' });
  await again.close();
});

t.test('one process has a data folder', async (t) => {
  const disk = new SimulatedDisk();
  const registry = await openOn(disk);
  await t.rejects(openOn(disk), { code: 'STORE_LOCKED' });
  await registry.close();
  await (await openOn(disk)).close();
});
