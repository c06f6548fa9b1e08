/**
 * What a planned failover does to a guest's QEMU beside the cuts: changes of a guest that was just started count from the point that its disks
 * hold, and its power is switched. Each is done whole or fails; nothing is remembered here.
 */
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import type { PointId } from '../../journal/point.ts';
import { listImages } from '../../qemu/guest-images.ts';
import type { OffHold } from '../../qemu/off-hold.ts';
import { endGuest, keepThroughOff, runState, shutDown, standStill, startAgain } from '../../qemu/guest-power.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { addBitmap, removeBitmap } from './bitmap-actions.ts';
import type { GuestPower } from './capture.ts';
import { queryNodes, removeBitmaps } from './guest-objects.ts';
import { bitmapName, ownPrefix } from './object-names.ts';
import type { SettleGuest } from './settle-plan.ts';

/** The guest stands still, and its disks hold exactly `base`. What there is of ours belongs to an earlier life of its images. */
export async function beginAt(qmp: QmpConnection, { groupId, disks }: SettleGuest, base: PointId): Promise<void> {
  await removeBitmaps(qmp, (await queryNodes(qmp)).bitmaps.filter(({ name }) => name.startsWith(ownPrefix)));
  const names = disks.map((_, disk) => bitmapName(groupId, disk, { role: 'point', point: base }));
  await qmp.execute('transaction', { actions: disks.map(({ trackNode, isBitmapPersistable }, disk) => addBitmap(trackNode, names[disk]!, isBitmapPersistable)) });
  // Asked afterwards: one that stands still now has written nothing before either. One that runs may have, and no bitmap would know.
  if (!(await runState(qmp)).running) return;
  await qmp.execute('transaction', { actions: disks.map(({ trackNode }, disk) => removeBitmap(trackNode, names[disk]!)) });
  throw new Fault('GUEST_CHANGED', 'the guest runs already: what it wrote since it was started is not known');
}

/** `hold`: of the manager that would end its QEMU when it is off; null: nobody would. */
export function guestPower(qmp: QmpConnection, clock: Clock, hold: OffHold | null = null): GuestPower {
  return {
    keepThroughOff: () => keepThroughOff(qmp, hold),
    shutDown: (options) => shutDown(qmp, { ...options, offMeans: hold?.offMeans ?? 'stop' }),
    standStill: () => standStill(qmp),
    startAgain: (waitMs) => startAgain(qmp, { waitMs, clock, hold }),
    images: () => listImages(qmp),
    end: async () => {
      await endGuest(qmp);
      await hold?.release().catch((error: unknown) => { if (!isFault(error)) throw error; });
    },
    runState: () => runState(qmp),
    pause: () => standStill(qmp),
    goOn: async () => { await qmp.execute('cont'); },
  };
}
