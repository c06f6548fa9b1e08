/**
 * A stolen key that writes at full rate for an hour: what it brings goes as far as its volume, nothing of the past changes, and an alarm rises. A real store behind the lane of a
 * connection, on a simulated disk; time is the test's own, and all sizes are small.
 */
import t from 'tap';
import { MemoryLevel } from 'memory-level';
import { pino } from 'pino';
import { GroupLane } from '../../replica-target/ingest/group-lane.ts';
import { SourceOrders } from '../../replica-target/ingest/source-orders.ts';
import { SourceVolumes } from '../../replica-target/ingest/source-volumes.ts';
import type { TargetMessage } from '../../journal/wire.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { announce, applied, checkAllPoints, RandomGuest, realStore, seed, sendPoint } from '../points/history-oracle.ts';
import { groupId, sourceId } from '../store/model-guest.ts';
import { groups, smallOptions } from '../store/store-rig.ts';
import { waitFor } from '../support/wait.ts';

const hourMs = 3_600_000;
const limitBytes = 200_000;

t.test('an hour at full rate with a stolen key changes nothing in the past, and raises an alarm', async (t) => {
  const clock = new SimulatedClock();
  const guest = new RandomGuest(9);
  const disk = new SimulatedDisk();
  const registry = await openRegistry({
    disk, clock, folder: groups, catalog: () => new MemoryLevel<string, string>(),
    // The flood fits the budget beside what is here only as far as the volume lets it.
    options: { ...smallOptions, batchBytes: 1, retentionOf: () => ({ windowMs: hourMs, hourly: 24, daily: 7, weekly: 0, monthly: 0, budgetBytes: 1_500_000 }) },
  });
  const store = realStore(await announce(registry, guest.model));
  await seed(store, guest.model);
  for (let point = 0; point < 18; point++) {
    clock.advance(hourMs);
    await sendPoint(store, registry, guest);
  }
  await applied(store);
  await store.retention!.settle();
  const past = await store.restorePoints.list();
  // One an hour: what goes by its age alone is thinned already.
  t.ok(past.some(({ keptBy }) => keptBy === 'hourly'), 'there is a past that could be given up for space');

  const told: string[] = [];
  const volumes = new SourceVolumes({ all: { bytes: limitBytes, perMs: 24 * hourMs }, sources: {} }, clock, (_id, _name, message) => told.push(message));
  const heard: TargetMessage[] = [];
  const abort = new AbortController();
  let taken = 0;
  const newLane = (): GroupLane => new GroupLane({
    groupId, sourceId, registry, orders: new SourceOrders(clock), clock, log: pino({ level: 'silent' }), ready: Promise.resolve(), signal: abort.signal, volume: volumes.of(sourceId, 'alpha'),
    port: { send: (message) => heard.push(message), consumed: () => undefined, controlDone: () => undefined, count: () => undefined, fail: (fault) => { throw fault; } },
  });
  const lane = newLane();
  lane.message({ t: 'announce', ...guest.model.announcement(), disks: guest.model.announcement().disks.map((one) => ({ ...one, sizeBytes: 65_536 })) }, 10);
  await waitFor(() => heard.some(({ t: kind }) => kind === 'group'), { limitMs: 5_000, what: 'the group' });
  for (let second = 0; second < 3600; second += 10) {
    clock.advance(10_000);
    guest.model.write(0, 0, Buffer.alloc(Math.min(8192, guest.model.disks[0]!.length), second));
    const records = guest.model.cut();
    for (const record of records) { lane.record(record); taken += record.bytes.length; }
    if (second % 600 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await waitFor(() => heard.some(({ t: kind }) => kind === 'held'), { limitMs: 20_000, what: 'the source to be held off' });
  t.ok(taken > 3 * limitBytes, `${taken} bytes were sent`);
  t.match(heard.find(({ t: kind }) => kind === 'held'), { code: 'VOLUME_EXCEEDED', message: /may bring/ });
  t.match(volumes.alarms(), [{ code: 'VOLUME_EXCEEDED', group: null, message: /source alpha/ }]);
  t.equal(told.length, 1, 'said once');

  await lane.finish();
  await applied(store);
  await store.retention!.settle();
  const after = await store.restorePoints.list();
  const isThere = new Set(after.map(({ point }) => point));
  t.same(past.filter(({ point }) => !isThere.has(point)).map(({ point, keptBy }) => `${point} ${keptBy}`), [], 'every point that was there is there');
  await checkAllPoints(store, guest, 0.5);

  clock.advance(25 * hourMs);
  t.same(volumes.alarms(), [], 'a day later it may go on');
  abort.abort();
  await registry.close();
});

t.test('a limit holds whatever the source calls itself, and over all its connections', (t) => {
  const clock = new SimulatedClock();
  const volumes = new SourceVolumes({ all: null, sources: { alpha: { bytes: 1000, perMs: hourMs } } }, clock);
  volumes.of('aa', 'alpha').take(600);
  t.throws(() => volumes.of('aa', 'beta').take(600), { code: 'VOLUME_EXCEEDED' });
  volumes.of('bb', 'beta').take(1_000_000);
  clock.set(365 * 24 * hourMs);
  t.throws(() => volumes.of('aa', 'alpha').take(600), { code: 'VOLUME_EXCEEDED' }, 'whatever the wall clock says');
  clock.advance(hourMs + hourMs / 40);
  volumes.of('aa', 'alpha').take(600);
  t.end();
});
