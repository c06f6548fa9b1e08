/** Damage to what was acknowledged is refused with file and offset; only a torn tail is ever cut off. */
import t from 'tap';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { ModelGuest, sourceId } from './model-guest.ts';
import { appendAll, folder, groups, openOn, openSeeded } from './store-rig.ts';

const KiB = 1024;
const stalled = { isApplierStalled: true };

async function withPoints(points: number): Promise<{ disk: SimulatedDisk; guest: ModelGuest }> {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store } = await openSeeded(disk, guest, stalled);
  for (let i = 1; i <= points; i++) {
    guest.write(0, i * 512, Buffer.alloc(4 * KiB, i));
    await appendAll(store, guest.cut());
  }
  return { disk: disk.afterKill(), guest };
}

async function heldAfter(disk: SimulatedDisk): Promise<string> {
  const registry = await openOn(disk, stalled);
  const held = registry.find('00112233445566778899aabbccddeeff')!.report().held;
  await registry.close();
  return held === null ? 'sound' : `${held.code} ${held.message}`;
}

t.test('a flipped bit in any acknowledged record of any segment', async (t) => {
  const { disk } = await withPoints(10);
  t.ok(disk.paths().filter((path) => path.endsWith('.seg')).length > 1, 'there are several segments');
  let refused = 0;
  const segments = disk.paths().filter((path) => path.endsWith('.seg'));
  for (const [index, path] of segments.entries()) {
    const content = disk.contentOf(path);
    const used = content.findLastIndex((byte) => byte !== 0);
    for (let at = 4096; at < used; at += 997) {
      // The very last delta may be torn as far as a reader can know, unless its witness has landed; here it has.
      disk.flip(path, at);
      const found = await heldAfter(disk.afterKill());
      if (!found.startsWith('STORE_CORRUPT') || !found.includes(path) || !/offset \d+/.test(found)) t.fail(`segment ${index}, byte ${at}: ${found}`);
      else refused++;
      disk.flip(path, at);
      t.equal(disk.contentOf(path).equals(content), true, 'the file is left as it was found');
    }
  }
  t.ok(refused > 20, `${refused} flips refused`);
  t.equal(await heldAfter(disk.afterKill()), 'sound');
});

t.test('a flipped bit in the small files, a header, a sealed history file that must be redone', async (t) => {
  const { disk } = await withPoints(3);
  for (const path of [folder.facts, folder.mark]) {
    disk.flip(path, 60);
    t.match(await heldAfter(disk.afterKill()), new RegExp(`^STORE_CORRUPT ${path}`));
    disk.flip(path, 60);
  }
  disk.flip(folder.segment(1), 50);
  t.match(await heldAfter(disk.afterKill()), /^STORE_CORRUPT .*000001\.seg, offset 0/);
  disk.flip(folder.segment(1), 50);
  t.equal(await heldAfter(disk.afterKill()), 'sound');
});

t.test('a missing segment is not taken for a trimmed one', async (t) => {
  const { disk } = await withPoints(12);
  await disk.remove(folder.segment(1));
  t.match(await heldAfter(disk), /^STORE_CORRUPT .*000001\.seg.*is gone/);
});

t.test('files of a newer release are refused by name', async (t) => {
  const { disk } = await withPoints(1);
  const path = folder.segment(1);
  const file = await disk.open(path, 'readWrite');
  const { xxh64 } = await import('@node-rs/xxhash');
  const header = disk.contentOf(path).subarray(0, 512);
  header.writeUInt16LE(2, 12);
  header.writeBigUInt64LE(xxh64(header.subarray(8)), 0);
  await file.write(header, 0);
  t.match(await heldAfter(disk), /^STORE_NEWER .*segment version 2/);
});

t.test('a torn tail that holds guest bytes which look like records is cut off whole', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store } = await openSeeded(disk, guest, stalled);
  guest.write(0, 0, Buffer.alloc(512, 1));
  await appendAll(store, guest.cut());
  // The guest writes into its own disk what this journal holds, and what would follow.
  guest.write(0, 512, Buffer.alloc(512, 2));
  const real = guest.cut({ deltaId: 77n });
  const guestBytes = Buffer.alloc(8 * KiB);
  Buffer.concat(real.map(({ bytes }) => bytes)).copy(guestBytes);
  guest.newest = { term: 1, point: 1 };
  guest.write(0, 1024, guestBytes);
  const carrier = guest.cut({ deltaId: 78n });
  await store.append(carrier[0]!);
  await store.append(carrier[1]!);
  const later = disk.afterKill();
  const registry = await openOn(later, stalled);
  t.same(registry.find('vm1')!.holding(), { ...registry.find('vm1')!.holding(), newest: { term: 1, point: 1 }, open: null });
  const segment = later.contentOf(folder.segment(1));
  t.equal(segment.toString('latin1').split('AIR1').length - 1, 3, 'only the records of the first delta are left in the file');
});

t.test('one damaged group does not keep the others from being served', async (t) => {
  const { disk, guest } = await withPoints(2);
  const registry = await openOn(disk, stalled);
  const other = await registry.announce(sourceId, guest.announcement({ group: 'ab'.repeat(16), name: 'vm2' }));
  t.equal(other.holding().seed, 'none');
  await registry.close();
  const again = disk.afterKill();
  again.flip(folder.segment(1), 5000);
  const reopened = await openOn(again, stalled);
  t.equal(reopened.groups().length, 2);
  t.equal(reopened.find('vm2')!.report().held, null);
  await t.rejects(reopened.announce(sourceId, guest.announcement()), { code: 'STORE_CORRUPT' });
  await reopened.forget('00112233445566778899aabbccddeeff');
  t.equal(reopened.groups().length, 1);
  t.equal(again.paths().some((path) => path.startsWith(`${groups}/0011`) || path.includes('forgotten')), false, 'its files are gone');
  await reopened.close();
});
