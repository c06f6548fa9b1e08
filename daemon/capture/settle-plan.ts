/**
 * What becomes of the bitmaps when a round begins, and when a delta has ended: the actions of one transaction each. Pure. At every
 * moment the bitmap of the target's newest point goes on, until one of a newer acknowledged point is there (see cbt-capture.ts).
 */
import type { PointId } from '../../journal/point.ts';
import { addBitmap, mergeBitmap, removeBitmap, replaceBitmap, type BitmapAction } from './bitmap-actions.ts';
import { bitmapName, type BitmapRole } from './object-names.ts';

/** What the bitmaps in the guest are good for. `work`: parts that the work bitmaps leave out; null when there are none. */
export interface Standing { readonly base: PointId; readonly work: number | null }

export interface SettleGuest {
  readonly groupId: string;
  /** By number. */
  readonly disks: readonly { readonly trackNode: string; readonly isBitmapPersistable: boolean }[];
}

/** The bitmaps that say what is still to be sent. */
export function sourceRole({ base, work }: Standing): BitmapRole {
  return work === null ? { role: 'point', point: base } : { role: 'work', point: base, parts: work };
}

/** A cut was acknowledged as `next`. */
export function planAcknowledged({ groupId, disks }: SettleGuest, standing: Standing, next: PointId): BitmapAction[] {
  const baseRole: BitmapRole = { role: 'point', point: standing.base };
  const roles = standing.work === null ? [baseRole] : [baseRole, sourceRole(standing)];
  return disks.flatMap(({ trackNode, isBitmapPersistable }, disk) => [
    ...replaceBitmap(trackNode, bitmapName(groupId, disk, { role: 'cut', point: next }), bitmapName(groupId, disk, { role: 'point', point: next }), isBitmapPersistable),
    ...roles.map((role) => removeBitmap(trackNode, bitmapName(groupId, disk, role))),
  ]);
}

/** It was not. The base's bitmap went on recording, so that it has all that the cut's has; the merge costs nothing and says so. */
export function planDropped({ groupId, disks }: SettleGuest, { base }: Standing, next: PointId): BitmapAction[] {
  return disks.flatMap(({ trackNode }, disk) => {
    const cut = bitmapName(groupId, disk, { role: 'cut', point: next });
    return [mergeBitmap(trackNode, bitmapName(groupId, disk, { role: 'point', point: base }), cut), removeBitmap(trackNode, cut)];
  });
}

/** Names of the bitmaps of the round that comes after so many parts: what is left to send, and what the round took of it. */
export function roundNames(groupId: string, { base, work }: Standing): { readonly work: (disk: number, more?: number) => string; readonly copy: (disk: number) => string } {
  const parts = work ?? 0;
  return {
    work: (disk, more = 0) => bitmapName(groupId, disk, { role: 'work', point: base, parts: parts + more }),
    copy: (disk) => bitmapName(groupId, disk, { role: 'copy', point: base, parts }),
  };
}

/** A round of this disk begins. Its copy goes on recording, so that it holds whatever the job may take, whenever within the transaction it begins. */
export function planRound({ groupId, disks }: SettleGuest, standing: Standing, roundDisk: number): BitmapAction[] {
  const names = roundNames(groupId, standing);
  const source = sourceRole(standing);
  const begin = standing.work !== null ? [] : disks.flatMap(({ trackNode }, disk) => (
    [addBitmap(trackNode, names.work(disk), false), mergeBitmap(trackNode, names.work(disk), bitmapName(groupId, disk, source))]));
  const { trackNode } = disks[roundDisk]!;
  return [...begin, addBitmap(trackNode, names.copy(roundDisk), false), mergeBitmap(trackNode, names.copy(roundDisk), bitmapName(groupId, roundDisk, source))];
}

/** A round's part was acknowledged. The name of a work bitmap says how many parts it leaves out, and only an acknowledged one counts: so it becomes another bitmap. */
export function planRoundAcknowledged({ groupId, disks }: SettleGuest, standing: Standing, roundDisk: number): BitmapAction[] {
  const names = roundNames(groupId, standing);
  return [
    ...disks.flatMap(({ trackNode }, disk) => replaceBitmap(trackNode, names.work(disk), names.work(disk, 1), false)),
    removeBitmap(disks[roundDisk]!.trackNode, names.copy(roundDisk)),
  ];
}

/** It was not: what it took is to be sent again. */
export function planRoundDropped({ groupId, disks }: SettleGuest, standing: Standing, roundDisk: number): BitmapAction[] {
  const names = roundNames(groupId, standing);
  const { trackNode } = disks[roundDisk]!;
  return [mergeBitmap(trackNode, names.work(roundDisk), names.copy(roundDisk)), removeBitmap(trackNode, names.copy(roundDisk))];
}
