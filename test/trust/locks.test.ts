/**
 * Locked points against everything that could end them before their time: clocks, restarts, a lost catalog, a changed policy, the operator, the source, a full budget. A store on a
 * simulated disk, and time is the test's own; what a point holds is compared with the model.
 */
import t from 'tap';
import { MemoryLevel } from 'memory-level';
import type { RetentionPolicy } from '../../replica-target/points/retention-plan.ts';
import { GroupLocks } from '../../replica-target/points/group-locks.ts';
import { GroupFolder } from '../../replica-target/store/group-folder.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { FileGroupStore } from '../../replica-target/store/group-store.ts';
import type { GroupRegistry } from '../../replica-target/store/store.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { announce, applied, checkAllPoints, RandomGuest, realStore, seed, sendPoint } from '../points/history-oracle.ts';
import { groupId, sourceId } from '../store/model-guest.ts';
import { groups, smallOptions } from '../store/store-rig.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

/** A target with one group, whose process and policy come and go. */
class Site {
  readonly guest = new RandomGuest(5);
  readonly clock = new SimulatedClock();
  disk = new SimulatedDisk();
  /** Nothing is kept that is not promised or locked. */
  policy: RetentionPolicy = { windowMs: 10 * minuteMs, hourly: 0, daily: 0, weekly: 0, monthly: 0, budgetBytes: null };
  registry!: GroupRegistry;
  store!: FileGroupStore;

  async open(): Promise<void> {
    this.registry = await openRegistry({
      disk: this.disk, clock: this.clock, folder: groups, catalog: () => new MemoryLevel<string, string>(), options: { ...smallOptions, batchBytes: 1, retentionOf: () => this.policy },
    });
    this.store = realStore(await announce(this.registry, this.guest.model));
  }

  static async make(policy: Partial<RetentionPolicy> = {}): Promise<Site> {
    const site = new Site();
    site.policy = { ...site.policy, ...policy };
    await site.open();
    await seed(site.store, site.guest.model);
    return site;
  }

  /** Points one every ten minutes, or so often, then everything is done that retention asks for. */
  async live(points: number, everyMs = 10 * minuteMs): Promise<void> {
    for (let point = 0; point < points; point++) {
      this.clock.advance(everyMs);
      await sendPoint(this.store, this.registry, this.guest);
    }
    await this.settle();
  }

  async settle(): Promise<void> {
    await applied(this.store);
    await this.store.retention!.settle();
  }

  async restart(): Promise<void> {
    await this.registry.close();
    await this.open();
    await this.settle();
  }

  /** The process dies, and what its registry had open is of no use any more. */
  async kill(): Promise<void> {
    const dead = this.registry;
    this.disk = this.disk.afterKill();
    await this.open();
    await dead.close().catch(() => undefined);
    await this.settle();
  }

  async numbers(): Promise<number[]> {
    return (await this.store.restorePoints.list()).map(({ point }) => point);
  }
}

const id = (point: number) => ({ term: 1, point });

t.test('a lock does not end because the clock is set forward', async (t) => {
  const site = await Site.make();
  await site.live(5);
  const lock = await site.store.restorePoints.lock(id(3), 'a test', 7 * dayMs, true);
  site.clock.set(10 * 365 * dayMs);
  await site.live(10, hourMs);
  t.ok((await site.numbers()).includes(3));
  await t.rejects(site.store.restorePoints.release(lock.holdId), { code: 'POINT_LOCKED' });
  await checkAllPoints(site.store, site.guest);
  await site.restart();
  t.ok((await site.numbers()).includes(3), 'nor after a restart under the wrong clock');
  await site.kill();
  t.ok((await site.numbers()).includes(3));
  await site.registry.close();
});

t.test('a lock does not end because the clock is set back, and one for a duration is not lengthened by it', async (t) => {
  const site = await Site.make();
  await site.live(5);
  const until = await site.store.restorePoints.lock(id(2), 'until a date', dayMs, true);
  const during = await site.store.restorePoints.lock(id(4), 'for a day', dayMs, false);
  const locked = async (): Promise<number[]> => (await site.store.restorePoints.list()).flatMap(({ point, lockedUntilMs }) => (lockedUntilMs === undefined ? [] : [point]));
  site.clock.set(-30 * dayMs);
  await site.live(23, hourMs);
  t.strictSame(await locked(), [2, 4]);
  for (const { holdId } of [until, during]) await t.rejects(site.store.restorePoints.release(holdId), { code: 'POINT_LOCKED' });
  await site.live(2, hourMs);
  t.strictSame(await locked(), [2], 'a day has passed, and the date has not come');
  site.clock.set(30 * dayMs);
  t.strictSame(await locked(), []);
  await site.registry.close();
});

t.test('a lock ends when its time has passed, and the target was there', async (t) => {
  const site = await Site.make();
  await site.live(5);
  const lock = await site.store.restorePoints.lock(id(3), 'a test', dayMs, true);
  t.match((await site.store.restorePoints.list()).find(({ point }) => point === 3), { isHeld: true, lockedUntilMs: site.clock.nowMs() + dayMs });
  await site.live(20, hourMs);
  await site.restart();
  t.ok((await site.numbers()).includes(3));
  await site.live(5, hourMs);
  t.notOk((await site.numbers()).includes(3));
  await site.store.restorePoints.release(lock.holdId);
  t.notOk((await site.store.restorePoints.list()).some(({ lockedUntilMs }) => lockedUntilMs !== undefined));
  await site.registry.close();
});

t.test('a target that is off counts no time: its locks last longer, never shorter', async (t) => {
  const site = await Site.make();
  await site.live(5);
  await site.store.restorePoints.lock(id(3), 'a test', dayMs, true);
  await site.registry.close();
  site.clock.advance(3 * dayMs);
  await site.open();
  await site.live(20, hourMs);
  t.ok((await site.numbers()).includes(3));
  await site.live(5, hourMs);
  t.notOk((await site.numbers()).includes(3));
  await site.registry.close();
});

t.test('locks survive a catalog that is made anew from the files', async (t) => {
  const site = await Site.make({ lockMs: dayMs });
  await site.live(12);
  await site.store.restorePoints.lock(id(3), 'a test', 3 * dayMs, true);
  const before = await site.store.restorePoints.list();
  // MemoryLevel: every opening begins with an empty catalog.
  await site.kill();
  t.strictSame((await site.store.restorePoints.list()).map(({ point, lockedUntilMs }) => [point, lockedUntilMs !== undefined]), before.map(({ point, lockedUntilMs }) => [point, lockedUntilMs !== undefined]));
  await t.rejects(site.registry.forget(groupId), { code: 'POINT_LOCKED' });
  await site.registry.close();
});

t.test('under a policy every point that arrives is kept for so long, and its file does not grow with them', async (t) => {
  const site = await Site.make({ lockMs: 12 * hourMs });
  for (let hours = 0; hours < 36; hours += 6) await site.live(12, hourMs / 2);
  const points = await site.store.restorePoints.list();
  const held = points.filter(({ arrivedAtMs }) => site.clock.nowMs() - arrivedAtMs < 12 * hourMs);
  t.equal(held.length, 24, 'all of twelve hours');
  t.ok(held.every(({ lockedUntilMs }) => lockedUntilMs !== undefined && lockedUntilMs > site.clock.nowMs()));
  t.ok(points.length < 24 + 4, `${points.length} points: what is not locked any more was given up`);
  const bytes = site.disk.contentOf(`${groups}/${groupId}/locks.json`);
  t.ok(bytes.length < 10_000, `${bytes.length} bytes`);
  await checkAllPoints(site.store, site.guest, 0.3);
  await site.registry.close();
});

t.test('points that were locked under a policy stay so when it is lowered, or taken away', async (t) => {
  const site = await Site.make({ lockMs: 2 * dayMs });
  await site.live(12);
  await site.registry.close();
  site.policy = { ...site.policy, lockMs: null };
  await site.open();
  await site.live(24, hourMs);
  t.strictSame((await site.numbers()).slice(0, 12), Array.from({ length: 12 }, (_, index) => index + 1), 'a day later all of them are there');
  t.notOk((await site.store.restorePoints.list()).at(-1)!.lockedUntilMs, 'and what has arrived since is not locked');
  await t.rejects(site.registry.forget(groupId), { code: 'POINT_LOCKED' });
  await site.kill();
  await site.live(26, hourMs);
  t.ok((await site.numbers())[0]! > 12, 'after two they may go');
  await site.registry.close();
});

t.test('a policy does not unlock when the clock jumps a year, either way', async (t) => {
  for (const jumpMs of [365 * dayMs, -365 * dayMs]) {
    const site = await Site.make({ lockMs: 2 * dayMs });
    await site.live(10);
    site.clock.set(jumpMs);
    await site.live(10);
    await site.restart();
    t.equal((await site.numbers()).length, 20);
    await site.registry.close();
  }
});

t.test('a full budget holds the source off, and gives up nothing that is locked', async (t) => {
  const site = await Site.make({ lockMs: 2 * dayMs, budgetBytes: 10_000_000 });
  await site.live(20);
  site.policy = { ...site.policy, budgetBytes: 1000 };
  await site.settle();
  t.match(site.store.report().held, { code: 'RETENTION_FULL' });
  await t.rejects(sendPoint(site.store, site.registry, site.guest), { code: 'RETENTION_FULL' });
  t.equal((await site.numbers()).length, 20);
  await site.registry.close();
});

t.test('a group with locked points is not removed, also when it cannot be opened', async (t) => {
  const site = await Site.make();
  await site.live(5);
  await site.store.restorePoints.lock(id(3), 'a test', dayMs, false);
  await t.rejects(site.registry.forget(groupId), { code: 'POINT_LOCKED' });
  t.equal((await site.numbers()).includes(3), true, 'and goes on');
  await site.registry.close();
  site.disk.flip(`${groups}/${groupId}/mark.json`, 30);
  const registry = await openRegistry({ disk: site.disk, clock: site.clock, folder: groups, catalog: () => new MemoryLevel<string, string>(), options: smallOptions });
  t.match(registry.find(groupId)!.report().held, { code: 'STORE_CORRUPT' });
  await t.rejects(registry.forget(groupId), { code: 'POINT_LOCKED' });
  await registry.close();
});

t.test('a group without locks is removed as it always was', async (t) => {
  const site = await Site.make();
  await site.live(5);
  await site.registry.forget(groupId);
  t.equal(site.registry.find(groupId), null);
  await site.registry.close();
});

t.test('a source cannot choose another policy by another name', async (t) => {
  const site = await Site.make();
  await site.live(2);
  await t.rejects(site.registry.announce(sourceId, site.guest.model.announcement({ name: 'of-another-policy' })), { code: 'GROUP_RENAMED' });
  await site.registry.close();
});

t.test('what a release that knows no locks would let go, it refuses to open', async (t) => {
  const site = await Site.make();
  await site.live(3);
  const path = `${groups}/${groupId}/holds.json`;
  await site.store.restorePoints.hold(id(2), 'a hold', null);
  t.match(site.disk.contentOf(path).toString(), /"version":1/);
  await site.store.restorePoints.lock(id(2), 'a lock', dayMs, false);
  t.match(site.disk.contentOf(path).toString(), /"version":2/);
  await site.registry.close();
});

t.test('a group opens, and locks what arrives, on a disk that is too full to note it', async (t) => {
  const site = await Site.make();
  await site.live(3);
  await site.registry.close();
  const full = ({ isFull }: { isFull: boolean }) => (operation: string, path: string) => (isFull && operation === 'write' && path.includes('locks.json') ? 'ENOSPC' as const : undefined);
  site.policy = { ...site.policy, lockMs: dayMs };
  site.disk.failing = full({ isFull: true });
  await site.open();
  t.equal(site.store.report().held, null);
  await site.live(2);
  t.match((await site.store.restorePoints.list()).at(-1), { point: 5, lockedUntilMs: Number });
  site.disk.failing = full({ isFull: false });
  await site.live(1, hourMs);
  await site.kill();
  t.ok((await site.store.restorePoints.list()).find(({ point }) => point === 5)!.lockedUntilMs !== undefined, 'noted as soon as there was room');
  await site.registry.close();
});

t.test('whether files may bear the attribute is written again when it could not be', async (t) => {
  const disk = new SimulatedDisk();
  await disk.makeFolder('/g');
  const folder = new GroupFolder('/g');
  const locks = new GroupLocks({ disk, clock: new SimulatedClock(), folder, log: null });
  await locks.load();
  const noted = async (): Promise<boolean> => { const anew = new GroupLocks({ disk, clock: new SimulatedClock(), folder, log: null }); await anew.load(); return anew.isAttributed; };
  for (const isAttributed of [true, false]) {
    disk.failing = (operation) => (operation === 'write' ? 'ENOSPC' : undefined);
    await t.rejects(locks.attributed(isAttributed), { code: 'ENOSPC' });
    await t.rejects(locks.attributed(isAttributed), { code: 'ENOSPC' }, 'nor does a second call resolve before it is durable');
    disk.failing = () => undefined;
    await locks.attributed(isAttributed);
    t.equal(await noted(), isAttributed);
  }
});
