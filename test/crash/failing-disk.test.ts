/**
 * Every operation of the disk fails once, with EIO and with ENOSPC. The source is told by a named fault and sends again; nothing
 * that was acknowledged is lost, also when the process is killed right after the failure and the power is cut later: pages of a
 * failed sync are still read and never written, and must not be taken for durable.
 */
import t from 'tap';
import { isFault } from '../../journal/fault.ts';
import { comparePoints } from '../../journal/point.ts';
import { folder, openOn } from '../store/store-rig.ts';
import { makeCrashScript, nothingAcknowledged, play, type Acknowledged, type CrashScript } from './crash-script.ts';
import { inspect, options } from './lives.ts';
import { isLong } from '../support/extent.ts';
import { SimulatedClock } from './simulated-clock.ts';
import { SimulatedDisk, type Failing, type Operation } from '../../scripts/sim/simulated-disk.ts';

const changing: ReadonlySet<Operation> = new Set(['create', 'write', 'sync', 'truncate', 'punch', 'preallocate', 'rename', 'syncFolder', 'remove']);

/** Fails the `nth` changing operation inside the group's folder, once. */
function failingOnce(nth: number, code: 'EIO' | 'ENOSPC'): { readonly failing: Failing; readonly hasFailed: () => boolean } {
  let count = 0;
  return {
    failing: (operation, path) => (changing.has(operation) && path.startsWith(folder.path) && count++ === nth ? code : undefined),
    hasFailed: () => count > nth,
  };
}

/** Plays to the end, starting over after each fault as a source does. The first failure may end the process instead. */
async function persist(disk: SimulatedDisk, script: CrashScript, acknowledged: Acknowledged, endsAtFault: boolean): Promise<'played' | 'killed'> {
  const clock = new SimulatedClock();
  const registry = await openOn(disk, options, clock);
  for (let attempt = 0; attempt < 20; attempt++) {
    try {
      const store = await play(registry, script, acknowledged);
      await store.drain();
      return 'played';
    } catch (error) {
      if (!isFault(error)) throw error;
      if (error.code !== 'STORE_SYNC' && error.code !== 'STORE_FULL') throw error;
      if (endsAtFault) return 'killed';
      for (let i = 0; i < 40; i++) await Promise.resolve();
      clock.advance(20_000);
      for (let i = 0; i < 200; i++) await Promise.resolve();
    }
  }
  throw new Error('twenty attempts did not get through one failure');
}

const script = makeCrashScript(15, 10);
/** About as many as it takes until a group is there, and then some. */
const makingOperations = 30;

for (const code of ['EIO', 'ENOSPC'] as const) {
  t.test(`each operation fails once with ${code}`, async (t) => {
    for (let turn = 0; ; turn++) {
      // While a group is made each ends both ways, later by turns.
      const nth = turn < 2 * makingOperations ? turn >> 1 : turn - makingOperations;
      // From then on the two failures take turns.
      if (!isLong && turn >= 2 * makingOperations && (turn >> 1) % 2 === (code === 'EIO' ? 0 : 1)) continue;
      const endsAtFault = turn % 2 === 0;
      const failure = failingOnce(nth, code);
      try {
        const acknowledged = nothingAcknowledged();
        let disk = new SimulatedDisk();
        disk.failing = failure.failing;
        await persist(disk, script, acknowledged, endsAtFault);
        disk = disk.afterKill();
        // What is announced at the start is a promise like an acknowledgement.
        const registry = await openOn(disk, { ...options, isApplierStalled: true });
        const newest = registry.find('vm1')?.holding().newest ?? null;
        if (newest !== null && (acknowledged.newest === null || comparePoints(newest, acknowledged.newest) > 0)) Object.assign(acknowledged, { newest, parts: 0 });
        disk = disk.afterPowerCut(nth);
        await inspect(disk, script, acknowledged);
        if (await persist(disk.afterKill(), script, acknowledged, false) !== 'played') throw new Error('not played to the end');
      } catch (error) {
        t.fail(`operation ${nth}, ${endsAtFault ? 'killed at the fault' : 'gone on'}: ${String(error)}`, { found: error });
        return;
      }
      if (!failure.hasFailed()) break;
    }
    t.pass();
  });
}
