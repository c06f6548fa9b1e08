/** The power is cut at every mutating operation of a life; afterwards every restorable point reads as the model says, also while recovery goes on. */
import t from 'tap';
import { formatPoint } from '../../journal/point.ts';
import { makeCrashScript, nothingAcknowledged, play, type CrashScript } from '../crash/crash-script.ts';
import { makeDice } from '../../scripts/sim/dice.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { openOn } from '../store/store-rig.ts';
import { realStore, viewFault } from './history-oracle.ts';
import { realMerge } from './real-merge.ts';

const step = Number(process.env['AFTERIMAGE_CRASH_STEP'] ?? 5);
const options = { segmentBytes: 16 * 1024, journalKeepBytes: 40 * 1024, batchBytes: 4 * 1024 };

/** Plays to the end or to the cut. Prunes and holds on the way, so that the cut may fall there too. True when the power never went. */
async function playUntilCut(disk: SimulatedDisk, script: CrashScript, holds: string[]): Promise<boolean> {
  try {
    const registry = await openOn(disk, options);
    const store = realStore(await play(registry, script, nothingAcknowledged()));
    const points = await store.restorePoints.list();
    const hold = await store.restorePoints.hold(points[Math.floor(points.length / 2)]!, 'a test', null);
    holds.push(formatPoint(hold.point));
    await store.drain();
    if (store.history.mayReplace(store.history.files.slice(0, 1), true)) await store.history.replace(store.history.files.slice(0, 1), null);
    // Whatever the hold allows, so that the cut may fall into a merge.
    for (let at = 0; at < store.history.count; at++) await realMerge(disk, store, store.history.files.slice(at, at + 3));
    await store.restorePoints.digests.idle();
    await registry.close();
    return true;
  } catch (error) {
    if (!disk.isOff) throw error;
    return false;
  }
}

async function inspect(disk: SimulatedDisk, script: CrashScript, holds: readonly string[], isApplierStalled: boolean): Promise<number> {
  const registry = await openOn(disk, { ...options, isApplierStalled });
  const found = registry.find('vm1');
  let checked = 0;
  if (found !== null && found.holding().newest !== null) {
    const store = realStore(found);
    const points = await store.restorePoints.list();
    for (const point of holds) if (!points.some((other) => formatPoint(other) === point && other.isHeld)) throw new Error(`${point} was held and is not there`);
    for (const point of points) {
      const view = await store.restorePoints.open(point).catch((error: unknown) => { if (isApplierStalled) throw error; return null; });
      if (view === null) continue;
      const fault = await viewFault(view, script.guest, makeDice(point.point));
      await view.release();
      if (fault !== null) throw new Error(fault);
      checked++;
    }
    if (points.length === 0) throw new Error('no point is left');
  }
  await registry.close();
  return checked;
}

t.test('every point reads as the model says after any power cut', async (t) => {
  const script = makeCrashScript(31, 12);
  let lives = 0;
  let checked = 0;
  for (let cutAt = 0, isOver = false; !isOver; cutAt += step) {
    try {
      let disk = new SimulatedDisk();
      const holds: string[] = [];
      disk.cutAt = cutAt;
      isOver = await playUntilCut(disk, script, holds);
      disk = disk.afterPowerCut(cutAt);
      checked += await inspect(disk, script, holds, true);
      // And while the applier goes on with what is left.
      disk = disk.afterKill();
      checked += await inspect(disk, script, holds, false);
      lives++;
    } catch (error) {
      t.fail(`cut at ${cutAt}: ${String(error)}`, { found: error });
      return;
    }
  }
  t.ok(lives > 40 && checked > lives * 5, `${lives} lives, ${checked} points`);
});
