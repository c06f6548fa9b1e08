/**
 * One life of a group that loses power twice, and what must be true of what is left. Shared by the tests that expect it to be
 * true and by those that plant a defect and expect it to be found.
 */
import type { Disk } from '../../host/disk.ts';
import { comparePoints, formatPoint, type PointId } from '../../journal/point.ts';
import type { GroupRegistry } from '../../replica-target/store/store.ts';
import { openOn, replicaFault, walkBack } from '../store/store-rig.ts';
import { nothingAcknowledged, play, type Acknowledged, type CrashScript } from './crash-script.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';

export const options = { segmentBytes: 16 * 1024, journalKeepBytes: 20 * 1024, batchBytes: 8 * 1024 };
const groupName = 'vm1';

/** Puts a defect between store and disk. */
export type Planted = (disk: Disk) => Disk;

/** Plays until the power goes. True when it never went. */
async function playUntilCut(disk: SimulatedDisk, script: CrashScript, acknowledged: Acknowledged, planted: Planted): Promise<boolean> {
  let registry: GroupRegistry | null = null;
  try {
    registry = await openOn(planted(disk), options);
    const store = await play(registry, script, acknowledged);
    await store.drain();
    await registry.close();
    return true;
  } catch (error) {
    if (!disk.isOff) throw error;
    return false;
  }
}

/** Opens what is left, compares it with what was promised. */
export async function inspect(disk: SimulatedDisk, script: CrashScript, acknowledged: Acknowledged): Promise<void> {
  const registry = await openOn(disk, { ...options, isApplierStalled: true });
  const store = registry.find(groupName);
  if (store === null) {
    if (acknowledged.isAnnounced) throw new Error('the group is gone');
    await registry.close();
    return;
  }
  const held = store.report().held;
  if (held !== null) throw new Error(`the group is refused: ${held.code} ${held.message}`);
  const holding = store.holding();
  if (acknowledged.isSeeded && holding.seed !== 'done') throw new Error('the first sync is forgotten');
  const { newest } = holding;
  const behind = acknowledged.newest !== null && (newest === null || comparePoints(newest, acknowledged.newest) < 0);
  if (behind) throw new Error(`${formatPoint(acknowledged.newest!)} was acknowledged, ${shown(newest)} is there`);
  if (newest !== null && (acknowledged.sent === null || comparePoints(newest, acknowledged.sent) > 0)) throw new Error(`${formatPoint(newest)} was never sent`);
  const isStill = newest === null ? acknowledged.newest === null : acknowledged.newest !== null && comparePoints(newest, acknowledged.newest) === 0;
  if (isStill && acknowledged.parts > 0 && (holding.open?.parts ?? 0) < acknowledged.parts) throw new Error(`${acknowledged.parts} parts were acknowledged, ${holding.open?.parts ?? 0} are there`);
  if (holding.seed === 'done') {
    await store.drain();
    const fault = replicaFault(disk, script.guest, newest);
    if (fault !== null) throw new Error(fault);
    if (newest !== null) {
      const seen = await walkBack(disk, script.guest, newest);
      if (seen.at(-1) !== '0.0') throw new Error(`history ends at ${seen.at(-1) ?? 'the replica'}`);
      const points = (await store.points()).map(formatPoint);
      if (points.at(-1) !== formatPoint(newest)) throw new Error(`the catalog ends at ${points.at(-1) ?? 'nothing'}`);
    }
  }
  await registry.close();
}

function shown(point: PointId | null): string {
  return point === null ? 'nothing' : formatPoint(point);
}

/** Cut at `cutAt`, cut again at `cutAgainAt` of the recovery and what follows, then whole. Throws what is not as promised; true when the first cut never came. */
export async function live(script: CrashScript, seed: number, cutAt: number, cutAgainAt: number, planted: Planted = (disk) => disk): Promise<boolean> {
  const acknowledged = nothingAcknowledged();
  let disk = new SimulatedDisk();
  disk.cutAt = cutAt;
  const isOver = await playUntilCut(disk, script, acknowledged, planted);
  disk = disk.afterPowerCut(seed);
  disk.cutAt = cutAgainAt;
  await playUntilCut(disk, script, acknowledged, planted);
  disk = disk.afterPowerCut(seed + 1);
  await inspect(disk, script, acknowledged);
  disk = disk.afterKill();
  if (!await playUntilCut(disk, script, acknowledged, planted)) throw new Error('the power was not cut a third time');
  await inspect(disk.afterKill(), script, acknowledged);
  return isOver;
}

