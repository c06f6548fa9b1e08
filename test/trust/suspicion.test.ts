/** From a guest that is encrypted to the alarm, through the real store: what is named, held, kept over a restart, and dismissed. */
import { createCipheriv } from 'node:crypto';
import t from 'tap';
import { choosePoint } from '../../replica-target/points/point-selector.ts';
import type { GroupRegistry, GroupStore } from '../../replica-target/store/store.ts';
import { suspicionAlarms } from '../../replica-target/suspicion/suspicion-alarms.ts';
import type { SuspicionPolicy } from '../../replica-target/suspicion/suspicion-plan.ts';
import { parseConfig } from '../../console/config/config.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { ModelGuest, sourceId } from '../store/model-guest.ts';
import { appendAll, openOn } from '../store/store-rig.ts';

const mib = 1024 * 1024;
const runBytes = 128 * 1024;
const diskBytes = 12 * mib;
const policy: SuspicionPolicy = { sensitivity: 'high', holdMs: 7 * 86_400_000 };
const cipher = createCipheriv('aes-256-ctr', Buffer.alloc(32, 3), Buffer.alloc(16));
const noise = (): Buffer => cipher.update(Buffer.alloc(runBytes));
const text = (at: number): Buffer => Buffer.from(Array.from({ length: runBytes / 16 }, (_, line) => `line ${String(at + line * 31).padStart(10, '0')}\n`).join(''));

function open(disk: SimulatedDisk, clock: SimulatedClock, of: SuspicionPolicy = policy): Promise<GroupRegistry> {
  return openOn(disk, { segmentBytes: 4 * mib, batchBytes: 1, suspicion: { random: nodeRandom, of: () => of } }, clock);
}

async function point(store: GroupStore, guest: ModelGuest, clock: SimulatedClock): Promise<void> {
  clock.advance(1000);
  await appendAll(store, guest.cut());
  await store.drain();
}

/** A disk of text; two more points of text, the rest in one. */
async function begin(disk: SimulatedDisk, clock: SimulatedClock, of = policy): Promise<{ registry: GroupRegistry; store: GroupStore; guest: ModelGuest }> {
  const guest = new ModelGuest([diskBytes]);
  const registry = await open(disk, clock, of);
  const store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  for (let at = 0; at < 6 * mib; at += runBytes) guest.write(0, at, text(at));
  await point(store, guest, clock);
  guest.write(0, 0, text(7));
  await point(store, guest, clock);
  return { registry, store, guest };
}

t.test('a guest that is encrypted in place: the alarm, the point before, the hold, a restart, a dismissal', async (t) => {
  const clock = new SimulatedClock();
  const disk = new SimulatedDisk();
  const { registry, store, guest } = await begin(disk, clock);
  t.equal(store.report().suspicion?.active, null);
  for (let at = 0; at < mib; at += runBytes) guest.write(0, at, noise());
  await point(store, guest, clock);
  for (let at = mib; at < 4 * mib; at += runBytes) guest.write(0, at, noise());
  await point(store, guest, clock);
  await point(store, guest, clock);

  const { active } = store.report().suspicion!;
  t.match(active, { kind: 'turned', first: { term: 1, point: 3 }, before: { term: 1, point: 2 }, dismissedAtMs: null });
  t.match(suspicionAlarms([store.report()]), [{ code: 'GUEST_SUSPECT', group: 'vm1', message: /point before it began is 1\.2/, sinceMs: Number }]);
  const points = await store.restorePoints.list();
  t.strictSame(points.map(({ isSuspect }) => isSuspect === true), [false, false, true, true, true]);
  t.match(points[2]!.changes, { bytes: mib, incompressibleShare: 1, turnedShare: 1 });
  t.match(choosePoint(points, 'before-suspicion', clock.nowMs(), 'vm1'), { term: 1, point: 2 });
  t.ok(points[1]!.isHeld);
  await registry.close();

  const again = await open(disk, clock);
  const kept = again.groups()[0]!;
  t.strictSame(kept.report().suspicion?.active, active, 'noted before it was told');
  t.ok((await kept.restorePoints.list())[1]!.isHeld);
  t.match((await kept.restorePoints.list())[2]!.changes, { turnedShare: 1 });
  const dismissed = await kept.dismissSuspicion();
  t.ok(dismissed.dismissedAtMs !== null);
  t.equal(kept.report().suspicion?.active, null);
  t.strictSame(kept.report().suspicion?.dismissed, [dismissed], 'it stays on record');
  t.strictSame(kept.restorePoints.holds(), []);
  t.throws(() => choosePoint([...points.map(({ isSuspect: _, ...rest }) => rest)], 'before-suspicion', clock.nowMs(), 'vm1'), { code: 'POINT_UNKNOWN' });
  await t.rejects(kept.dismissSuspicion(), { code: 'REQUEST_INVALID' });
  await again.close();
});

t.test('while a suspicion stands: what it is of grows, and what begins later is shown with it, over a restart too', async (t) => {
  const clock = new SimulatedClock();
  const disk = new SimulatedDisk();
  const { registry, store, guest } = await begin(disk, clock);
  const encrypt = async (from: number, to: number): Promise<void> => {
    for (let at = from; at < to; at += runBytes) guest.write(0, at, noise());
    await point(store, guest, clock);
  };
  await encrypt(0, 2.5 * mib);
  const found = store.report().suspicion!.active!;
  t.match(found, { kind: 'turned', first: { term: 1, point: 3 }, again: null });
  await encrypt(2.5 * mib, 3.5 * mib);
  const grown = store.report().suspicion!.active!;
  t.ok(grown.bytes > found.bytes + mib / 2, `${found.bytes} became ${grown.bytes}`);
  t.match(grown, { first: found.first, sinceMs: found.sinceMs, holdIds: found.holdIds, again: null });

  clock.advance(86_400_000);
  guest.laterMs = 86_400_000;
  for (let at = 0; at < 6 * mib; at += runBytes) guest.write(0, at, text(at + 5));
  await point(store, guest, clock);
  t.equal(store.report().suspicion!.active!.again, null);
  await encrypt(0, 3 * mib);
  const { active } = store.report().suspicion!;
  t.match(active, { first: found.first, before: found.before, bytes: grown.bytes, again: { kind: 'turned', first: { term: 1, point: 6 }, sinceMs: clock.nowMs() } });
  t.match(suspicionAlarms([store.report()]), [{ message: /since point 1\.3, and 3 MiB of what it holds became like encrypted data since point 1\.6; the point before it began is 1\.2/ }]);
  await registry.close();
  const again = await open(disk, clock);
  t.strictSame(again.groups()[0]!.report().suspicion?.active, active);
  t.match(await again.groups()[0]!.dismissSuspicion(), { again: active!.again });
  t.equal(again.groups()[0]!.report().suspicion?.active, null, 'one dismissal ends both');
  await again.close();
});

t.test('a piece of each of many files: the alarm counts them', async (t) => {
  const clock = new SimulatedClock();
  const { registry, store, guest } = await begin(new SimulatedDisk(), clock);
  for (let turn = 0; turn < 4; turn++) {
    for (let at = turn * 4096; at < 6 * mib; at += 4 * 4096) guest.write(0, at, noise().subarray(0, 4096));
    for (let at = 6 * mib; at < diskBytes; at += runBytes) guest.write(0, at, text(at + turn));
    await point(store, guest, clock);
    if (store.report().suspicion!.active !== null) break;
  }
  const { active } = store.report().suspicion!;
  t.match(active, { kind: 'scattered', first: { term: 1, point: 3 }, before: { term: 1, point: 2 } });
  t.match(suspicionAlarms([store.report()]), [{ message: /\d{3} separate pieces of what it holds/ }]);
  await registry.close();
});

t.test('noise into blank space, text over text, and what was noise before: no alarm', async (t) => {
  const clock = new SimulatedClock();
  const { registry, store, guest } = await begin(new SimulatedDisk(), clock);
  for (let turn = 0; turn < 3; turn++) {
    for (let at = 6 * mib; at < diskBytes; at += runBytes) guest.write(0, at, noise());
    for (let at = 0; at < 6 * mib; at += runBytes) guest.write(0, at, text(at + turn + 1));
    await point(store, guest, clock);
  }
  t.equal(store.report().suspicion?.active, null);
  const shares = (await store.restorePoints.list()).map(({ changes }) => changes?.incompressibleShare ?? 0);
  t.ok(shares.slice(2).every((share) => share > 0.35 && share < 0.65), `${shares}`);
  await registry.close();
});

t.test('a hold ends by itself; what was noted and is damaged is forgotten; off looks at nothing', async (t) => {
  const clock = new SimulatedClock();
  const disk = new SimulatedDisk();
  const { registry, store, guest } = await begin(disk, clock);
  for (let at = 0; at < 4 * mib; at += runBytes) guest.write(0, at, noise());
  await point(store, guest, clock);
  t.equal(store.restorePoints.holds().length, 1);
  clock.advance(policy.holdMs + 1);
  t.equal(store.restorePoints.holds().length, 0);
  t.ok(store.report().suspicion?.active !== null, 'the flag stands until a person dismisses it');
  await registry.close();

  const off = await begin(new SimulatedDisk(), clock, { ...policy, sensitivity: 'off' });
  for (let at = 0; at < 4 * mib; at += runBytes) off.guest.write(0, at, noise());
  await point(off.store, off.guest, clock);
  t.equal(off.store.report().suspicion?.active, null);
  t.equal((await off.store.restorePoints.list()).at(-1)!.changes, undefined);
  await off.registry.close();
});

t.test('in the config: of all groups, and of one', async (t) => {
  const { options } = parseConfig('t.yaml', 'role: target\nname: b\ndata: /d\nsuspicion: { sensitivity: high }\ngroups: { web: { suspicion: { sensitivity: "off", hold: 1d } } }\n') as { options: { suspicion: unknown } };
  t.strictSame(options.suspicion, { all: { sensitivity: 'high', holdMs: 7 * 86_400_000 }, groups: { web: { sensitivity: 'off', holdMs: 86_400_000 } } });
  t.throws(() => parseConfig('t.yaml', 'role: target\nname: b\ndata: /d\nsuspicion: { sensitivity: wild }\n'), { code: 'CONFIG_INVALID' });
});
