import t from 'tap';
import type { FileGroupStore } from '../../replica-target/store/group-store.ts';
import type { Dice } from '../../scripts/sim/dice.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { turns } from '../support/extent.ts';
import { announce, checkAllPoints, openGroup, RandomGuest, realStore, seed, sendPoint, type StoreOptions, viewFault } from './history-oracle.ts';
import { naiveMerge } from './naive-merge.ts';
import { realMerge } from './real-merge.ts';

const lives = turns('AFTERIMAGE_VIEW_LIVES', 200, 2000);

/** A life: points, applied at once or late, in batches of any size; journals kept long or short; restarts; every point read. */
async function live(number: number): Promise<number> {
  const guest = new RandomGuest(number);
  const { dice } = guest;
  const options: StoreOptions = {
    segmentBytes: dice.pick([24, 32, 64]) * 1024, journalKeepBytes: dice.pick([0, 64 * 1024, 10 * 1024 * 1024]), batchBytes: dice.pick([1, 4 * 1024, 32 * 1024, 1024 * 1024]),
  };
  let disk = new SimulatedDisk();
  let { registry, store } = await openGroup(disk, guest.model, options);
  await seed(store, guest.model);
  let checked = 0;
  const points = 1 + dice.integer(dice.chance(0.1) ? 60 : 14);
  for (let point = 0; point < points; point++) {
    await sendPoint(store, registry, guest);
    if (dice.chance(0.1)) await store.restorePoints.digests.idle();
    if (dice.chance(0.1)) checked += await checkAllPoints(store, guest);
    if (dice.chance(0.15)) await thin(disk, store, dice);
    if (!dice.chance(0.1)) continue;
    await registry.close();
    disk = disk.afterKill();
    // Without its applier what is sealed stays in the journal.
    ({ registry, store } = await openGroup(disk, guest.model, { ...options, isApplierStalled: dice.chance(0.3) }));
  }
  checked += await checkAllPoints(store, guest);
  await store.drain();
  const held = dice.pick(await store.restorePoints.list());
  const view = await store.restorePoints.open(held);
  for (let time = dice.integer(4); time > 0; time--) await thin(disk, store, dice);
  const fault = await viewFault(view, guest.model, dice);
  if (fault !== null) throw new Error(`held while it was thinned: ${fault}`);
  await view.release();
  checked += await checkAllPoints(store, guest);
  await store.failOver();
  checked += await checkAllPoints(store, guest);
  await registry.close();
  return checked;
}

/** Merges some neighbours or drops the oldest, where that is allowed. */
async function thin(disk: SimulatedDisk, store: FileGroupStore, dice: Dice): Promise<void> {
  const { history } = store;
  if (dice.chance(0.2)) { await history.replace(history.files.slice(0, 1), null); return; }
  const first = dice.integer(Math.max(1, history.count - 1));
  const run = history.files.slice(first, first + 2 + dice.integer(4));
  if (run.length > 1) await (dice.chance(0.3) ? naiveMerge : realMerge)(disk, store, run);
}

t.test('every restorable point of random lives is what the model says', async (t) => {
  let checked = 0;
  for (let number = 1; number <= lives; number++) {
    try {
      checked += await live(number);
    } catch (error) {
      t.fail(`life ${number}: ${String(error)}`, { found: error });
      return;
    }
  }
  t.ok(checked > lives * 20, `${checked} points read`);
});

t.test('the group is announced again', async (t) => {
  const guest = new RandomGuest(1);
  const { registry, store } = await openGroup(new SimulatedDisk(), guest.model, {});
  await seed(store, guest.model);
  t.equal(realStore(await announce(registry, guest.model)), store);
  await registry.close();
});
