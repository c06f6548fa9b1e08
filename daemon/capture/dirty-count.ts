/** How much is dirty, by the bitmaps' own counts. Pure. */
import { Fault } from '../../journal/fault.ts';
import type { GuestDisk } from '../../qemu/guest-disks.ts';
import type { FoundBitmap } from './guest-objects.ts';
import { ownPrefix, parseBitmapName, shortGroup } from './object-names.ts';

/** Bytes of all disks that changed since the target's newest point, whichever it is: the oldest point's bitmap holds most. Without any, nothing is known to be at the target. */
export function dirtySince(bitmaps: readonly FoundBitmap[], disks: readonly GuestDisk[], groupId: string): number {
  let sum = 0;
  for (const [disk, { trackNode, sizeBytes }] of disks.entries()) {
    const counts = bitmaps.filter(({ node, name }) => node === trackNode && name.startsWith(ownPrefix)).flatMap(({ name, count }) => {
      const parsed = parseBitmapName(name);
      return parsed?.role === 'point' && parsed.disk === disk && parsed.group === shortGroup(groupId) ? [count] : [];
    });
    sum += counts.length > 0 ? Math.max(...counts) : sizeBytes;
  }
  return sum;
}

/** Fault BITMAP_LOST. */
export function dirtyBytesOf(bitmaps: readonly FoundBitmap[], node: string, name: string): number {
  const found = bitmaps.find((bitmap) => bitmap.node === node && bitmap.name === name);
  if (found === undefined || found.isInconsistent || !found.isRecording) throw new Fault('BITMAP_LOST', `the dirty bitmap ${name} is gone from ${node}, or not recording`, { node, name });
  return found.count;
}
