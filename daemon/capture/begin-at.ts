/**
 * What a planned failover does to a guest's QEMU beside the cuts: changes of a guest that was just started count from the point that its disks
 * hold, and its power is switched. Each is done whole or fails; nothing is remembered here.
 */
import type { Clock } from '../../host/clock.ts';
import type { PointId } from '../../journal/point.ts';
import { listImages } from '../../qemu/guest-images.ts';
import { endGuest, shutDown, standStill, startAgain } from '../../qemu/guest-power.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { addBitmap } from './bitmap-actions.ts';
import type { GuestPower } from './capture.ts';
import { queryNodes, removeBitmaps } from './guest-objects.ts';
import { bitmapName, ownPrefix } from './object-names.ts';
import type { SettleGuest } from './settle-plan.ts';

/** The guest stands still, and its disks hold exactly `base`. What there is of ours belongs to an earlier life of its images. */
export async function beginAt(qmp: QmpConnection, { groupId, disks }: SettleGuest, base: PointId): Promise<void> {
  await removeBitmaps(qmp, (await queryNodes(qmp)).bitmaps.filter(({ name }) => name.startsWith(ownPrefix)));
  await qmp.execute('transaction', {
    actions: disks.map(({ trackNode, isBitmapPersistable }, disk) => addBitmap(trackNode, bitmapName(groupId, disk, { role: 'point', point: base }), isBitmapPersistable)),
  });
}

export function guestPower(qmp: QmpConnection, clock: Clock): GuestPower {
  return {
    shutDown: (options) => shutDown(qmp, options),
    standStill: () => standStill(qmp),
    startAgain: (waitMs) => startAgain(qmp, { waitMs, clock }),
    images: () => listImages(qmp),
    end: () => endGuest(qmp),
  };
}
