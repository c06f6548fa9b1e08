/** The first sync and the comparison: straight into the replica, no point before it is sealed, only what differs. */
import { blake3 } from '@napi-rs/blake-hash';
import t from 'tap';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { groupId, ModelGuest, seedRecord, sourceId } from './model-guest.ts';
import { appendAll, folder, openOn, openSeeded, replicaFault } from './store-rig.ts';
import { makeRecord } from '../../journal/record.ts';

const KiB = 1024;
const block = 4 * KiB;
const seedDelta = 0xabcdn;
const seedId = '000000000000abcd';

function hashesOf(bytes: Buffer): Buffer {
  const hashes: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += block) hashes.push(blake3(bytes.subarray(at, Math.min(bytes.length, at + block))));
  return Buffer.concat(hashes);
}

t.test('a first sync that broke is resumed by comparison', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  guest.disks[0]!.fill(7, 8 * KiB, 40 * KiB);
  guest.snapshots.set('0.0', [Buffer.from(guest.disks[0]!)]);
  const registry = await openOn(disk);
  const store = await registry.announce(sourceId, guest.announcement());
  t.equal(await store.compare(0, 0, 64 * KiB, block, hashesOf(guest.disks[0]!)), '1'.repeat(16), 'nothing is here');
  await t.rejects(store.seedRecord(seedRecord(0, 0, Buffer.alloc(512), seedDelta)), { code: 'RECORD_MISPLACED' }, 'before it has begun');
  await store.seedBegin(seedId);
  t.equal(store.holding().seed, 'partial');
  await store.seedRecord(seedRecord(0, 8 * KiB, guest.disks[0]!.subarray(8 * KiB, 24 * KiB), seedDelta));
  guest.write(0, 0, Buffer.alloc(512, 1));
  await t.rejects(store.append(guest.cut()[0]!), { code: 'RECORD_MISPLACED' }, 'no delta before the first sync has ended');
  const later = disk.afterKill();
  const again = await openOn(later);
  const reopened = again.find('vm1')!;
  t.equal(reopened.holding().seed, 'partial');
  const source = guest.at(null)[0]!;
  await reopened.seedBegin(seedId);
  t.equal(await reopened.compare(0, 0, 64 * KiB, block, hashesOf(source)), '0000001111000000', 'only what has not arrived differs');
  await reopened.seedRecord(seedRecord(0, 24 * KiB, source.subarray(24 * KiB, 40 * KiB), seedDelta));
  await reopened.seedEnd();
  t.match(reopened.holding(), { seed: 'done', newest: null, open: null });
  t.equal(replicaFault(later, guest, null), null);
  t.equal((await reopened.points()).length, 0, 'it is no point');
  await again.close();
});

t.test('records of a first sync that do not belong', async (t) => {
  const guest = new ModelGuest([64 * KiB]);
  const registry = await openOn(new SimulatedDisk());
  const store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin(seedId);
  await t.rejects(store.seedRecord(seedRecord(0, 0, Buffer.alloc(512), 5n)), { code: 'RECORD_MISPLACED' }, 'of another first sync');
  await t.rejects(store.seedRecord(seedRecord(1, 0, Buffer.alloc(512), seedDelta)), { code: 'RECORD_MISPLACED' }, 'of a disk that is not there');
  await t.rejects(store.seedRecord(seedRecord(0, 64 * KiB - 512, Buffer.alloc(1024), seedDelta)), { code: 'RECORD_MISPLACED' }, 'beyond the end');
  const lying = makeRecord({ kind: 'data', codec: 'snappy', disk: 0, groupId, deltaId: seedDelta, point: 0, term: 1, sequence: 0, offset: 0, length: 512 }, Buffer.from([0xff, 0xff, 0xff, 0x7f, 0]));
  await t.rejects(store.seedRecord(lying), { code: 'RECORD_CORRUPT' }, 'that unpacks to something else than it says');
  await registry.close();
});

t.test('overlapping writes of a first sync keep their order; zeroes stay holes', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([256 * KiB]);
  const registry = await openOn(disk);
  const store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin(seedId);
  const zero = (offset: number, length: number) => makeRecord({ kind: 'zero', codec: 'none', disk: 0, groupId, deltaId: seedDelta, point: 0, term: 1, sequence: 0, offset, length });
  await Promise.all([
    ...Array.from({ length: 20 }, (_, i) => store.seedRecord(seedRecord(0, 512 * (i % 3), Buffer.alloc(1024, i + 1), seedDelta))),
    store.seedRecord(zero(512, 512)),
    store.seedRecord(zero(64 * KiB, 128 * KiB)),
  ]);
  const bytes = disk.contentOf(folder.image(0));
  t.same([bytes[0], bytes[512], bytes[1024], bytes[1536]], [19, 0, 20, 18]);
  await store.seedEnd();
  t.ok(store.report().replicaBytes <= 4 * KiB, `${store.report().replicaBytes} bytes are taken`);
  await registry.close();
});

t.test('a comparison sees what is sealed and not applied, and never calls equal what an unsealed delta has touched', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB, 10 * KiB]);
  const { store } = await openSeeded(disk, guest, { isApplierStalled: true });
  guest.write(0, 8 * KiB, Buffer.alloc(4 * KiB, 5));
  await appendAll(store, guest.cut());
  t.same(store.holding().applied, null, 'not applied yet');
  t.equal(await store.compare(0, 0, 64 * KiB, block, hashesOf(guest.disks[0]!)), '0'.repeat(16));
  t.equal(await store.compare(1, 0, 10 * KiB, block, hashesOf(guest.disks[1]!)), '000', 'the last block is shorter');
  await t.rejects(store.compare(1, 0, 12 * KiB, block, Buffer.alloc(96)), { code: 'RECORD_MISPLACED' }, 'beyond the end');
  const before = Buffer.from(guest.disks[0]!);
  guest.write(0, 32 * KiB, Buffer.alloc(512, 6));
  const open = guest.cut();
  await store.append(open[0]!);
  await store.append(open[1]!);
  const bits = await store.compare(0, 0, 64 * KiB, block, hashesOf(before));
  t.equal(bits[8], '1', 'the guest may have written the old bytes back since');
  await store.cutTorn();
  t.equal(await store.compare(0, 0, 64 * KiB, block, hashesOf(before)), '0'.repeat(16), 'the torn delta is gone');
});

t.test('a first sync again, with parts of a first delta here: they go', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store, registry } = await openSeeded(disk, guest);
  for (let i = 0; i < 6; i++) guest.write(0, i * 1024, Buffer.alloc(512, 9));
  const records = guest.cut({ runsPerPart: 2 });
  await appendAll(store, records.slice(0, 7));
  t.match(store.holding().open, { parts: 2, nextSequence: 7, point: 1 });
  await store.seedBegin(seedId);
  t.match(store.holding(), { open: null, seed: 'partial' });
  await store.seedEnd();
  t.same(await appendAll(store, records), { term: 1, point: 1 }, 'the delta from its beginning');
  await t.rejects(store.seedBegin(seedId), { code: 'RECORD_MISPLACED' }, 'never over points');
  await store.drain();
  t.equal(replicaFault(disk, guest, guest.newest), null);
  await registry.close();
});

t.test('parts survive a restart and a failover that is rolled back', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store } = await openSeeded(disk, guest);
  guest.write(0, 0, Buffer.alloc(512, 1));
  await appendAll(store, guest.cut());
  const base = guest.newest;
  for (let i = 0; i < 6; i++) guest.write(0, i * 1024, Buffer.alloc(512, 9));
  const records = guest.cut({ runsPerPart: 2 });
  const parts: unknown[] = [];
  for (const record of records.slice(0, 8)) parts.push(await store.append(record));
  t.same(parts.filter((part) => part !== null), [{ term: 1, point: 2, part: 1 }, { term: 1, point: 2, part: 2 }]);
  const later = disk.afterPowerCut(9);
  const again = await openOn(later);
  const reopened = again.find('vm1')!;
  t.match(reopened.holding(), { newest: base, open: { parts: 2, nextSequence: 7, point: 2 } });
  await reopened.failOver();
  await reopened.rollBack();
  t.match(reopened.holding(), { term: 2, newest: base, open: { parts: 2, nextSequence: 7 } });
  // The source goes on with the same delta, in the raised term.
  const rest = records.slice(7).map(({ header, bytes }) => makeRecord({ ...header, term: 2, point: 1 }, bytes.subarray(80)));
  t.same(await appendAll(reopened, rest), { term: 2, point: 1 });
  await reopened.drain();
  t.equal(replicaFault(later, guest, { term: 1, point: 2 }), null);
  await again.close();
});

t.test('an image that is here already is put under the group and compared', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  guest.disks[0]!.fill(3, 16 * KiB, 24 * KiB);
  const registry = await openOn(disk);
  const store = await registry.announce(sourceId, guest.announcement());
  await disk.makeFolder('/images');
  const image = await disk.open('/images/old.raw', 'create');
  await image.truncate(80 * KiB);
  await image.write(Buffer.alloc(4 * KiB, 3), 16 * KiB);
  await t.rejects(registry.seedFrom('nobody', 0, '/images/old.raw'), { code: 'GROUP_UNKNOWN' });
  await t.rejects(registry.seedFrom('vm1', 0, '/images/none.raw'), { code: 'REQUEST_INVALID' });
  await registry.seedFrom('vm1', 0, '/images/old.raw');
  t.equal(store.holding().seed, 'partial');
  t.equal(await store.compare(0, 0, 64 * KiB, block, hashesOf(guest.disks[0]!)), '0000010000000000');
  await registry.close();
});
