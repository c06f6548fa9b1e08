/**
 * What a planned failover does to a guest's QEMU beside the cuts: changes of a guest that was just started count from the point that its disks
 * hold, and its power is switched. Each is done whole or fails; nothing is remembered here.
 */
import type { Clock } from '../../host/clock.ts';
import { Fault } from '../../journal/fault.ts';
import type { PointId } from '../../journal/point.ts';
import { listImages } from '../../qemu/guest-images.ts';
import { endGuest, runState, shutDown, standStill, startAgain } from '../../qemu/guest-power.ts';
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

export function guestPower(qmp: QmpConnection, clock: Clock, endsAtPowerOff?: string): GuestPower {
  return {
    endsAtPowerOff,
    shutDown: (options) => shutDown(qmp, options),
    standStill: () => standStill(qmp),
    startAgain: (waitMs) => startAgain(qmp, { waitMs, clock }),
    images: () => listImages(qmp),
    end: () => endGuest(qmp),
    runState: () => runState(qmp),
    pause: () => standStill(qmp),
    goOn: async () => { await qmp.execute('cont'); },
  };
}
