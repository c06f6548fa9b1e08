/** Damage to stored bytes is found, named with file and offset, and told apart by the points that it touches. */
import { xxh64 } from '@node-rs/xxhash';
import { MemoryLevel } from 'memory-level';
import t from 'tap';
import { formatPoint } from '../../journal/point.ts';
import type { Verification } from '../../replica-target/points/verify.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { GroupRegistry, GroupStore } from '../../replica-target/store/store.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { ModelGuest, sourceId } from '../store/model-guest.ts';
import { appendAll, folder, openOn, openSeeded } from '../store/store-rig.ts';

const KiB = 1024;
const block = 64 * KiB;
const large = { segmentBytes: 512 * KiB, journalKeepBytes: 1024 * KiB };

/** Points 1 to 6, each a boundary; point n writes block n, and block 0 is written by every point but the first two. */
async function withPoints(): Promise<{ disk: SimulatedDisk; guest: ModelGuest; store: GroupStore; registry: GroupRegistry }> {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([10 * block, 4 * block]);
  const { store, registry } = await openSeeded(disk, guest, large);
  for (let point = 1; point <= 6; point++) {
    guest.write(0, point * block, Buffer.alloc(block, point));
    if (point > 2) guest.write(0, 0, Buffer.alloc(8 * KiB, 0x80 + point));
    guest.write(1, 0, Buffer.alloc(4 * KiB, point));
    await appendAll(store, guest.cut());
    await store.compare(0, 0, 512, 512, Buffer.alloc(32));
  }
  return { disk, guest, store, registry };
}

function verify(store: GroupStore, at: { term: number; point: number } | null = null): Promise<Verification> {
  return store.restorePoints.checks!.verify(at);
}

t.test('what is sound is sound, whatever is applied meanwhile', async (t) => {
  const { guest, store, registry } = await withPoints();
  const first = await verify(store, { term: 1, point: 3 });
  t.match(first, { findings: [], points: { count: 6, goodCount: 6, newestGood: '1.6' }, replicaComparedBytes: 0, read: { point: '1.3' } });
  t.ok(first.journalBytes > 0 && first.historyBytes > 0 && first.replicaBytes > 0 && first.read!.bytes > 0);
  guest.write(0, 7 * block, Buffer.alloc(8 * KiB, 7));
  guest.resize(1, 6 * block);
  guest.write(1, 5 * block, Buffer.alloc(KiB, 7));
  await store.announce(sourceId, guest.announcement());
  await appendAll(store, guest.cut());
  await store.drain();
  const second = await verify(store);
  t.same(second.findings, [], 'blocks that were written since are not called damaged');
  t.ok(second.replicaComparedBytes > 0);
  t.match(store.restorePoints.checks!.report(), { findingCount: 0, underWay: null });
  await registry.close();
});

t.test('a replica’s block that changed while it lay still', async (t) => {
  const { disk, guest, store, registry } = await withPoints();
  await verify(store);
  disk.flip(folder.image(0), 4 * block + 100);
  const found = await verify(store);
  t.match(found.findings, [{ path: folder.image(0), offset: 4 * block, disk: 0, touched: { oldest: '1.4', newest: '1.6', count: 3 } }]);
  t.equal(found.findings.length, 1);
  t.match(found.points, { count: 6, goodCount: 3, newestGood: '1.3' }, 'points from before the block was written have it from their history');
  t.equal((await verify(store)).findings.length, 1, 'found again');
  await registry.close();
  const again = await openOn(disk.afterKill(), large);
  t.match(again.find('vm1')!.restorePoints.checks!.report(), { findingCount: 1, findings: [{ path: folder.image(0) }] }, 'known after a restart');
  const reopened = again.find('vm1')!;
  guest.write(0, 4 * block, Buffer.alloc(block, 9));
  await appendAll(reopened, guest.cut());
  await reopened.drain();
  t.same((await verify(reopened)).findings.filter(({ path }) => path.endsWith('.raw')), [], 'gone once it was written anew');
  await again.close();
});

t.test('a before-image', async (t) => {
  const { disk, store, registry } = await withPoints();
  const name = '1.4-1.5.undo';
  const content = disk.contentOf(folder.undo(name));
  // Of block 0 as point 4 left it: point 4 alone needs it, 3 has its own from the file before.
  const at = content.indexOf(Buffer.alloc(64, 0x84));
  disk.flip(folder.undo(name), at + 10);
  const { findings, points } = await verify(store);
  t.equal(findings.length, 1);
  t.match(findings[0], { path: folder.undo(name), disk: 0, touched: { count: 1, oldest: '1.4', newest: '1.4' } });
  t.ok(findings[0]!.offset > 0 && findings[0]!.offset <= at);
  t.match(points, { count: 6, goodCount: 5, newestGood: '1.6' });
  disk.flip(folder.undo(name), at + 10);
  disk.flip(folder.undo(name), content.length - 80);
  t.match((await verify(store)).findings, [{ path: folder.undo(name), touched: { count: 4, oldest: '1.1', newest: '1.4' } }], 'an index is needed by all older points');
  await registry.close();
});

t.test('a record in the journal', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([4 * block]);
  const { store, registry } = await openSeeded(disk, guest, { ...large, batchBytes: 1024 * KiB, isApplierStalled: true });
  for (let point = 1; point <= 4; point++) {
    guest.write(0, 0, Buffer.alloc(8 * KiB, 0x40 + point));
    await appendAll(store, guest.cut());
  }
  await store.drain();
  disk.flip(folder.segment(1), disk.contentOf(folder.segment(1)).indexOf(Buffer.alloc(64, 0x43)) + 5);
  const { findings, points } = await verify(store, { term: 1, point: 3 });
  t.match(findings[0], { path: folder.segment(1), touched: { count: 1, oldest: '1.3', newest: '1.3' } });
  t.match(points, { count: 4, goodCount: 3, newestGood: '1.4' }, 'the batch’s last point has no need of the journal');
  await registry.close();
});

t.test('sums that were damaged or torn say nothing', async (t) => {
  const { disk, store, registry } = await withPoints();
  await verify(store);
  for (const at of [20, 4096 + 3]) {
    disk.flip(folder.sums(0), at);
    const { findings } = await verify(store);
    t.same(findings, [], `byte ${at}`);
  }
  await verify(store);
  await registry.close();
  for (let seed = 0; seed < 10; seed++) {
    const cut = new SimulatedDisk();
    const guest = new ModelGuest([2 * block]);
    const { store: one, registry: of } = await openSeeded(cut, guest, large);
    guest.write(0, 0, Buffer.alloc(block, 1));
    await appendAll(one, guest.cut());
    await one.drain();
    await verify(one);
    cut.cutAt = cut.operations + seed;
    await verify(one).catch(() => undefined);
    await of.close().catch(() => undefined);
    const again = await openOn(cut.afterPowerCut(seed), { ...large, isApplierStalled: true });
    t.same((await verify(again.find('vm1')!)).findings, [], `power cut at operation ${seed} of a pass`);
    await again.close();
  }
});

t.test('the catalog is made anew from the files, every point as before', async (t) => {
  const { disk, store, registry } = await withPoints();
  const before = await store.points();
  await registry.close();
  const broken = new MemoryLevel<string, string>();
  await broken.put('point!0000000001.0000000000000003', '{"term":1,"po');
  let made = 0;
  const later = disk.afterKill();
  const again = await openRegistry({ disk: later, clock: new SimulatedClock(), folder: '/groups', catalog: () => (made++ === 0 ? broken : new MemoryLevel<string, string>()), options: large });
  t.equal(made, 2);
  t.equal(again.find('vm1')!.report().held, null);
  t.same(await again.find('vm1')!.points(), before, before.map(formatPoint).join());
  t.ok(later.paths().includes(`${folder.catalog}.damaged`), 'moved aside');
  await again.close();
});

t.test('sums lie where FORMAT.md’s table says', async (t) => {
  const { disk, store, registry } = await withPoints();
  await verify(store);
  const bytes = disk.contentOf(folder.sums(0));
  t.equal(bytes.readBigUInt64LE(0), xxh64(bytes.subarray(8, 4096)));
  t.equal(bytes.toString('latin1', 8, 12), 'AIX1');
  t.same([bytes.readUInt16LE(12), Number(bytes.readBigUInt64LE(16)), bytes.readUInt32LE(24), bytes.readUInt32LE(28), Number(bytes.readBigUInt64LE(32))], [1, 6, 1, 65536, 10 * block]);
  const window = Buffer.concat([Buffer.alloc(8), bytes.subarray(4096, 8192)], 8 + 4096);
  t.equal(bytes.readBigUInt64LE(40), xxh64(window));
  const image = disk.contentOf(folder.image(0));
  for (let index = 0; index < 10; index++) {
    const one = image.subarray(index * block, (index + 1) * block);
    t.equal(bytes.readBigUInt64LE(4096 + 8 * index), one.every((byte) => byte === 0) ? 0n : xxh64(one));
  }
  await registry.close();
});
