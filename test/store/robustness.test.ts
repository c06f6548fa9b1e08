/** What goes wrong beside the disk's own failures: bugs of ours, failures that landed, acts that come at the wrong moment. */
import { MemoryLevel } from 'memory-level';
import t from 'tap';
import type { Disk, DiskFile } from '../../host/disk.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { ModelGuest, groupId, seedRecord, sourceId } from './model-guest.ts';
import { appendAll, folder, groups, openOn, openSeeded, replicaFault, smallOptions } from './store-rig.ts';

const KiB = 1024;

async function settle(): Promise<void> {
  for (let i = 0; i < 500; i++) await Promise.resolve();
}

/** A disk whose writes to images throw what no disk throws. */
function buggy(disk: SimulatedDisk, isBuggy: () => boolean): Disk {
  const wrapped = (file: DiskFile): DiskFile => new Proxy(file, {
    get(target, name) {
      if (name === 'write' && target.path.endsWith('.raw') && isBuggy()) return () => Promise.reject(new TypeError('not a function'));
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) as unknown : value;
    },
  });
  return new Proxy<Disk>(disk, {
    get(target, name) {
      if (name === 'open') return async (...args: Parameters<Disk['open']>) => wrapped(await target.open(...args));
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) as unknown : value;
    },
  });
}

t.test('a bug while applying is reported and tried again, and ends nothing', async (t) => {
  const disk = new SimulatedDisk();
  const clock = new SimulatedClock();
  const guest = new ModelGuest([64 * KiB]);
  let isBuggy = false;
  const registry = await openOn(buggy(disk, () => isBuggy), {}, clock);
  const store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  isBuggy = true;
  guest.write(0, 0, Buffer.alloc(8 * KiB, 1));
  await appendAll(store, guest.cut());
  await t.rejects(store.compare(0, 0, 512, 512, Buffer.alloc(32)), { code: 'INTERNAL' });
  t.match(store.report().held, { code: 'INTERNAL' });
  isBuggy = false;
  clock.advance(60_000);
  await settle();
  t.match(store.report(), { held: null, applied: { point: 1 } });
  t.equal(replicaFault(disk, guest, guest.newest), null);
  await registry.close();
});

t.test('a change of the facts that failed and may have landed is undone before anything is taken', async (t) => {
  for (const isStillFailing of [true, false]) {
    const disk = new SimulatedDisk();
    const guest = new ModelGuest([64 * KiB]);
    const { store } = await openSeeded(disk, guest);
    guest.write(0, 0, Buffer.alloc(512, 1));
    await appendAll(store, guest.cut());
    disk.failing = (operation, path) => (operation === 'syncFolder' && path === folder.path && disk.contentOf(folder.facts).includes('failed-over') ? 'EIO' : undefined);
    await t.rejects(store.failOver(), { code: 'STORE_SYNC' });
    t.match(store.report(), { state: 'protected', term: 1 });
    t.ok(disk.contentOf(folder.facts).includes('failed-over'), 'the file says otherwise');
    if (isStillFailing) disk.failing = (operation, path) => (operation === 'write' && path === `${folder.facts}.new` ? 'EIO' : undefined); else disk.failing = () => undefined;
    guest.write(0, 0, Buffer.alloc(512, 2));
    const records = guest.cut();
    if (isStillFailing) {
      await t.rejects(appendAll(store, records), { code: 'STORE_SYNC' }, 'nothing is acknowledged that the file would take back');
      continue;
    }
    t.same(await appendAll(store, records), { term: 1, point: 2 });
    const again = await openOn(disk.afterKill());
    t.match(again.find('vm1')!.report(), { state: 'protected', term: 1, newest: { point: 2 } });
    await again.close();
  }
});

t.test('records keep their order while one of them waits', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store } = await openSeeded(disk, guest);
  guest.write(0, 0, Buffer.alloc(512, 1));
  guest.write(0, 512, Buffer.alloc(512, 1));
  const torn = guest.cut();
  await store.append(torn[0]!);
  await store.append(torn[1]!);
  guest.newest = null;
  guest.write(0, 0, Buffer.alloc(1024, 2));
  guest.write(0, 1024, Buffer.alloc(512, 3));
  // Its open record must wait until the torn delta is cut off; those behind it come at once.
  t.same(await appendAll(store, guest.cut({ runsPerPart: 1 })), { term: 1, point: 1 });
  await store.drain();
  t.equal(replicaFault(disk, guest, guest.newest), null);
});

t.test('records of a first sync keep their order while one of them asks for space', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const registry = await openOn(disk, { segmentBytes: 8 * KiB });
  const store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  const taken: Promise<void>[] = [];
  for (let i = 1; i <= 40; i++) {
    const bytes = Buffer.alloc(4 * KiB, i);
    bytes.copy(guest.disks[0]!, (i % 3) * 512);
    taken.push(store.seedRecord(seedRecord(0, (i % 3) * 512, bytes, 0xaan)));
  }
  const ended = store.seedEnd();
  await Promise.all(taken);
  await ended;
  t.ok(disk.contentOf(folder.image(0)).equals(guest.disks[0]!));
  await registry.close();
});

t.test('a group that is closed applies nothing more, and says so', async (t) => {
  const guest = new ModelGuest([64 * KiB]);
  const { store, registry } = await openSeeded(new SimulatedDisk(), guest, { isApplierStalled: true });
  guest.write(0, 0, Buffer.alloc(512, 1));
  await appendAll(store, guest.cut());
  await registry.close();
  await t.rejects(store.drain(), { code: 'STORE_SYNC' });
});

t.test('a group that cannot be forgotten stays, and is not made anew over itself', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store, registry } = await openSeeded(disk, guest);
  guest.write(0, 0, Buffer.alloc(512, 1));
  await appendAll(store, guest.cut());
  disk.failing = (operation) => (operation === 'rename' ? 'EIO' : undefined);
  await t.rejects(registry.forget(groupId), { code: 'STORE_SYNC' });
  disk.failing = () => undefined;
  const again = await registry.announce(sourceId, guest.announcement());
  t.match(again.holding(), { newest: { point: 1 }, seed: 'done' });
  await registry.forget(groupId);
  t.same(registry.groups(), []);
  await registry.close();
});

t.test('what is left of a forgotten group does not keep a target from starting', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { registry } = await openSeeded(disk, guest);
  disk.failing = (operation, path) => (operation === 'remove' && path.includes('forgotten-') ? 'EIO' : undefined);
  await t.rejects(registry.forget(groupId), { code: 'STORE_SYNC' });
  await registry.close();
  const later = disk.afterKill();
  later.failing = disk.failing;
  await (await openOn(later)).close();
  const last = later.afterKill();
  await (await openOn(last)).close();
  t.notOk(last.paths().some((path) => path.includes('forgotten')), 'gone when it can go');
});

t.test('a group that refuses holds its catalog no longer', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store, registry } = await openSeeded(disk, guest);
  guest.write(0, 0, Buffer.alloc(512, 1));
  await appendAll(store, guest.cut());
  await store.drain();
  await registry.close();
  await disk.remove(folder.image(0));
  const level = new MemoryLevel<string, string>();
  const again = await openRegistry({ disk: disk.afterKill(), clock: new SimulatedClock(), folder: groups, catalog: () => level, options: smallOptions });
  t.match(again.find('vm1')!.report().held, { code: 'STORE_CORRUPT' });
  t.equal(level.status, 'closed');
  await again.close();
});

t.test('a history file that is done again is counted once', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store } = await openSeeded(disk, guest, { isApplierStalled: true });
  guest.write(0, 0, Buffer.alloc(8 * KiB, 1));
  await appendAll(store, guest.cut());
  disk.failing = (operation, path) => (operation === 'write' && path.endsWith('.raw') ? 'EIO' : undefined);
  await t.rejects(store.drain());
  const later = disk.afterKill();
  const again = await openOn(later, { isApplierStalled: true });
  const reopened = again.find('vm1')!;
  const before = reopened.report().historyBytes;
  t.ok(before > 0);
  await reopened.drain();
  t.equal(reopened.report().historyBytes, before);
  await again.close();
});

t.test('a segment’s header whose sync failed is written again', async (t) => {
  const disk = new SimulatedDisk();
  const guest = new ModelGuest([64 * KiB]);
  const { store } = await openSeeded(disk, guest);
  // The sync of the new segment's header fails, and the process ends before it can remove it.
  disk.failing = (operation, path) => (path === folder.segment(1) && (operation === 'sync' || operation === 'remove') ? 'EIO' : undefined);
  guest.write(0, 0, Buffer.alloc(512, 1));
  const records = guest.cut();
  await t.rejects(appendAll(store, records));
  let later = disk.afterKill();
  const again = await openOn(later);
  t.same(await appendAll(again.find('vm1')!, records), { term: 1, point: 1 });
  later = later.afterPowerCut(1);
  const last = await openOn(later);
  t.match(last.find('vm1')!.report(), { held: null, newest: { point: 1 } });
  await last.close();
});
