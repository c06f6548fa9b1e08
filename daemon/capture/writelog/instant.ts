/** The instant at which all disks of a guest, and all their logs, are cut. */
import type { GuestDisk } from '../../../qemu/guest-disks.ts';
import { removeBitmap, type BitmapAction } from '../bitmap-actions.ts';
import { capForData } from '../delta-image.ts';
import { copyDirty, type CopyContext, type CopyResult } from '../dirty-copy.ts';
import { hasIoThreads } from '../guest-checks.ts';
import { ownPrefix } from '../object-names.ts';
import { bitmapGranularity } from '../reconcile-plan.ts';

/** Room for what a job copies of a guest's writes while it only holds the disks. */
const holdBytes = 1024 * 1024;

/** When and for how long. */
export type Instant = Pick<CopyResult, 'cutAtMs' | 'cutMonotonicMs' | 'cutMs' | 'inPathMs'>;

export interface InstantOrder {
  readonly disks: readonly GuestDisk[];
  readonly stamp: string;
  /** What begins at the instant, or a moment before. */
  readonly adds: readonly BitmapAction[];
  /** What tells the instant: all disks stand still meanwhile. */
  readonly cuts: readonly BitmapAction[];
}

export async function takeInstant(context: CopyContext, order: InstantOrder): Promise<Instant> {
  return await hasIoThreads(context.qmp, context.isStorageDaemon) ? holdAll(context, order) : drainAll(context, order);
}

/** Disks that QEMU's main loop serves stand still while it is at a transaction, which drains them first. */
async function drainAll({ qmp, clock }: CopyContext, { adds, cuts }: InstantOrder): Promise<Instant> {
  const cutAtMs = clock.nowMs();
  const cutMonotonicMs = clock.monotonicMs();
  await qmp.execute('transaction', { actions: [...adds, ...cuts] });
  const cutMs = clock.monotonicMs() - cutMonotonicMs;
  return { cutAtMs, cutMonotonicMs, cutMs, inPathMs: cutMs };
}

/** I/O threads go on while the main loop is at a transaction, but for disks on which it begins a backup job: one with nothing to copy. */
async function holdAll(context: CopyContext, { disks, stamp, adds, cuts }: InstantOrder): Promise<Instant> {
  const none = (disk: number): string => `${ownPrefix}hold-${disk}`;
  const begin = disks.map(({ trackNode }, disk): BitmapAction => ({ type: 'block-dirty-bitmap-add', data: { node: trackNode, name: none(disk), granularity: bitmapGranularity, disabled: true } }));
  const copy = await copyDirty(context, {
    stamp, bitmapMode: 'never', actionsBefore: [...adds, ...begin], actionsBehind: cuts, isHoldOnly: true,
    disks: disks.map(({ trackNode, sizeBytes }, disk) => ({ disk, trackNode, sizeBytes, bitmap: none(disk), capBytes: capForData(sizeBytes, holdBytes) })),
  });
  await context.qmp.execute('transaction', { actions: disks.map(({ trackNode }, disk) => removeBitmap(trackNode, none(disk))) });
  return copy;
}
