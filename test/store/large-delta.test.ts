/** What a target holds in memory of a delta does not grow with its records: it is applied by slices, and the outcome is the same. */
import t from 'tap';
import { makeDice } from '../../scripts/sim/dice.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { ApplyPlan, type DiskPlan } from '../../replica-target/store/apply-plan.ts';
import { HistoryWriter } from '../../replica-target/store/history-writer.ts';
import { RegionCounts } from '../../replica-target/store/plan-slices.ts';
import { TouchedBlocks } from '../../replica-target/store/touched-blocks.ts';
import { follow } from '../../replica-target/store/record-order-plan.ts';
import { deltaRecordsMax } from '../../journal/limits.ts';
import { makeRecord } from '../../journal/record.ts';
import { ModelGuest, groupId } from './model-guest.ts';
import { appendAll, folder, openOn, openSeeded, replicaFault, walkBack } from './store-rig.ts';

const KiB = 1024;

function writeAtRandom(guest: ModelGuest, seed: number, runs: number): void {
  const dice = makeDice(seed);
  for (let run = 0; run < runs; run++) {
    const disk = dice.integer(2);
    const sectors = guest.disks[disk]!.length / 512;
    const offset = dice.integer(sectors - 8) * 512;
    const length = (1 + dice.integer(8)) * 512;
    if (dice.chance(0.2)) guest.zero(disk, offset, length); else guest.write(disk, offset, Buffer.alloc(length, (seed * 31 + run) % 255 + 1));
  }
}

t.test('a delta of more records than a plan may hold', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB, 40 * KiB]);
  const { store, registry } = await openSeeded(disk, guest, { planRecords: 10, planRegionBytes: 8 * KiB, segmentBytes: 128 * KiB, journalKeepBytes: 1024 * KiB });
  for (let point = 1; point <= 8; point++) {
    writeAtRandom(guest, point, point % 3 === 0 ? 4 : 120);
    if (point === 4) guest.resize(1, 20 * KiB);
    if (point === 6) guest.resize(1, 48 * KiB);
    await store.announce('ffeeddccbbaa99887766554433221100', guest.announcement({ disks: [{ disk: 0, name: 'drive0', sizeBytes: 64 * KiB }, { disk: 1, name: 'drive1', sizeBytes: 64 * KiB }] }));
    await appendAll(store, guest.cut());
    await store.compare(0, 0, 512, 512, Buffer.alloc(32));
    t.equal(replicaFault(disk, guest, guest.newest), null, `point ${point}`);
  }
  t.equal((await walkBack(disk, guest, guest.newest!)).length, 8);
  await registry.close();
});

t.test('done again after the power was cut between its slices', async (t) => {
  const options = { planRecords: 10, planRegionBytes: 8 * KiB, segmentBytes: 128 * KiB };
  for (let cut = 0; ; cut += 7) {
    let disk = new SimulatedDisk();
    const guest = new ModelGuest([64 * KiB, 40 * KiB]);
    const { store, registry } = await openSeeded(disk, guest, { ...options, isApplierStalled: true });
    writeAtRandom(guest, 5, 120);
    await appendAll(store, guest.cut());
    disk.cutAt = disk.operations + cut;
    const isCut = await store.drain().then(() => false, () => true);
    if (!isCut) { await registry.close(); break; }
    await registry.close().catch(() => undefined);
    disk = disk.afterPowerCut(cut);
    const again = await openOn(disk, { ...options, isApplierStalled: true });
    await again.find('vm1')!.drain();
    const fault = replicaFault(disk, guest, guest.newest);
    if (fault !== null) return t.fail(`cut at ${cut}: ${fault}`);
    t.same(await walkBack(disk, guest, guest.newest!), ['0.0'], `cut at ${cut}`);
    await again.close();
  }
});

t.test('a batch is bounded by records and points, too', async (t) => {
  for (const [what, options, expected] of [['records', { batchRecords: 10 }, 4], ['points', { batchPoints: 3 }, 4]] as const) {
    const disk = new SimulatedDisk();
    const guest = new ModelGuest([64 * KiB]);
    const { store, registry } = await openSeeded(disk, guest, { isApplierStalled: true, batchBytes: 1024 * KiB, segmentBytes: 1024 * KiB, ...options });
    for (let point = 1; point <= 12; point++) {
      guest.write(0, 512 * point, Buffer.alloc(512, point));
      await appendAll(store, guest.cut());
    }
    await store.drain();
    t.equal((await walkBack(disk, guest, guest.newest!)).length, expected, `history files of 12 points of 3 records, bounded by ${what}`);
    await registry.close();
  }
});

t.test('slices cover everything once and hold what they may', (t) => {
  const counts = new RegionCounts(1000);
  const dice = makeDice(3);
  for (let i = 0; i < 500; i++) counts.add(dice.integer(3) * 2, dice.integer(20_000), 1 + dice.integer(1500));
  const slices = counts.slices(60);
  t.ok(slices.length > 5);
  t.same(slices[0]!.from, { disk: 0, offset: 0 });
  t.same(slices.at(-1)!.to, { disk: Infinity, offset: 0 });
  for (let i = 1; i < slices.length; i++) t.same(slices[i]!.from, slices[i - 1]!.to);
  t.equal(new RegionCounts(1000).slices(10).length, 1, 'one for no records');
  t.end();
});

t.test('a plan forgets what later records covered', (t) => {
  const dice = makeDice(9);
  const whole = new ApplyPlan([{ disk: 0, sizeBytes: 64 * KiB }]);
  const bounded = new ApplyPlan([{ disk: 0, sizeBytes: 64 * KiB }], undefined, 50);
  for (let record = 0; record < 5000; record++) {
    const offset = dice.integer(120) * 512;
    const length = (1 + dice.integer(8)) * 512;
    for (const plan of [whole, bounded]) {
      if (record % 7 === 0) plan.zero(0, offset, length); else plan.data(0, offset, length, { segment: 1, at: record * 1000 }, 80 + length);
    }
  }
  const shown = (plan: ApplyPlan): unknown[] => plan.finish().flatMap((one: DiskPlan) => Array.from({ length: one.count }, (_, index) => one.extent(index))
    .map(({ start, end, record }) => [start, end, record < 0 ? null : plan.places.at(record)]));
  t.same(shown(bounded), shown(whole));
  t.equal(whole.places.count, 5000 - Math.ceil(5000 / 7));
  t.ok(bounded.places.count < 500, `${bounded.places.count} records are kept`);
  t.end();
});

t.test('an index that does not fit in memory is written all the same, byte for byte', async (t) => {
  const facts = { groupId, from: null, to: { term: 1, point: 1 }, disksBefore: [], disksAfter: [], points: [{ term: 1, point: 1, kind: 'crash' as const, cutAtMs: 1, arrivedAtMs: 1, changedBytes: 1 }] };
  const contents: Buffer[] = [];
  for (const entriesMax of [3, undefined]) {
    const disk = new SimulatedDisk();
    for (const path of ['/groups', folder.path, folder.history]) await disk.makeFolder(path);
    const writer = await HistoryWriter.begin(disk, folder, facts, entriesMax);
    for (let run = 0; run < 20; run++) {
      if (run % 4 === 0) await writer.zero(0, run * 1024, 512);
      else {
        (await writer.room(512)).fill(run);
        writer.data(0, run * 1024, 512);
      }
    }
    const { name } = await writer.seal();
    contents.push(disk.contentOf(folder.undo(name)));
    t.same(await disk.list(folder.history), [name]);
  }
  t.ok(contents[0]!.equals(contents[1]!));
});

t.test('a full disk keeps nothing of a history file that could not be written', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store } = await openSeeded(disk, guest, { isApplierStalled: true });
  guest.write(0, 0, Buffer.alloc(8 * KiB, 1));
  await appendAll(store, guest.cut());
  disk.failing = (operation, path) => (operation === 'sync' && path.endsWith('.part') ? 'ENOSPC' : undefined);
  await t.rejects(store.drain(), { code: 'STORE_FULL' });
  t.same(await disk.list(folder.history), []);
});

t.test('what an unsealed delta has written is known in bounded memory, and never too little of it', (t) => {
  const GiB = 1024 ** 3;
  const touched = new TouchedBlocks(3);
  touched.add(0, 0, 512);
  touched.add(0, 9 * GiB, 512);
  t.notOk(touched.overlaps(1, 0, 512) || touched.overlaps(0, 5 * GiB, 512) || touched.overlaps(0, 1024 * 1024, 512));
  touched.add(1, 4 * GiB, 64 * 1024);
  touched.add(2, 0, GiB);
  touched.add(2, 60_000 * GiB, GiB);
  t.ok(touched.overlaps(2, 60_000 * GiB, 512), 'a page that is not there counts as written');
  t.ok(touched.overlaps(1, 4 * GiB, 512) && touched.overlaps(0, 9 * GiB, 512));
  t.notOk(touched.overlaps(1, 4 * GiB + 1024 * 1024, 512), 'the pages that are there say what they said');
  touched.clear();
  t.notOk(touched.overlaps(2, 60_000 * GiB, 512));
  t.end();
});

t.test('a delta ends before its sequence numbers do', (t) => {
  const open = { deltaId: 1n, term: 1, point: 1, nextSequence: deltaRecordsMax, parts: 0, isAtPart: false };
  const zero = makeRecord({ kind: 'zero', codec: 'none', disk: 0, groupId, deltaId: 1n, point: 1, term: 1, sequence: deltaRecordsMax, offset: 0, length: 512 });
  const chain = { newest: null, newestDeltaId: 0n, open };
  t.match(follow(chain, groupId, zero), { ok: true, chain: { open: { nextSequence: deltaRecordsMax + 1 } } });
  t.match(follow({ ...chain, open: { ...open, nextSequence: deltaRecordsMax + 1 } }, groupId, zero), { ok: false, code: 'RECORD_MISPLACED' });
  t.end();
});
