/**
 * The node that a backup job copies into, for one disk and one cycle: from below, the spool's file, bounded to its cap by
 * `raw`, a qcow2 image, a quorum that no failure gets through, and a fixed VHD.
 *
 * Why so. The quorum's second child is a `null-co`, which cannot fail; with a threshold of one and reads from the first, a full
 * or failing spool breaks the image and raises QUORUM_REPORT_BAD, and never the guest's write that waits for the copy. It
 * stands above the qcow2, so that no error of qcow2's own gets through either. A quorum tells QEMU no cluster size, and QEMU
 * would print a warning into the guest's log at every job; the fixed VHD does nothing but pass requests on, and tells one.
 * The file's flushes are off: nothing in it outlives the daemon. All in one `blockdev-add`, so that one `blockdev-del` of the
 * top node takes it all away, and flushes the image's tables into the file as it does.
 */
import { vhdDiskBytesMax } from './vhd-footer.ts';
import { l2CacheBytes } from './cycle-plan.ts';
import type { DeltaImageLayout } from './delta-image.ts';
import { nodeName, type NodePart } from './object-names.ts';

export interface TargetPlace { readonly groupId: string; readonly stamp: string; readonly disk: number }

/** Refcount blocks of 64 KiB: one covers 2 GiB of file, and they are used in order. */
const refcountCacheBytes = 4 * 65536;

export function canHaveVhd(diskSizeBytes: number): boolean {
  return diskSizeBytes <= vhdDiskBytesMax;
}

/** Arguments of the one `blockdev-add`. The top node is `nodeName(…, 'top')`. */
export function describeTarget(place: TargetPlace, layout: DeltaImageLayout, path: string): Readonly<Record<string, unknown>> {
  const name = (part: NodePart): string => nodeName(place.groupId, place.stamp, place.disk, part);
  const image = {
    driver: 'qcow2', 'node-name': name('image'),
    'l2-cache-size': l2CacheBytes(layout.diskSizeBytes, layout.capBytes), 'refcount-cache-size': refcountCacheBytes,
    // The VHD passes zeroes on as bytes; here they become a flag again, and take no space.
    'detect-zeroes': 'on', discard: 'ignore',
    file: {
      driver: 'raw', 'node-name': name('bound'), size: layout.capBytes,
      file: { driver: 'file', 'node-name': name('file'), filename: path, locking: 'off', cache: { 'no-flush': true } },
    },
  };
  const quorum = {
    driver: 'quorum', 'node-name': name(layout.hasFooter ? 'quorum' : 'top'), 'vote-threshold': 1, 'read-pattern': 'fifo',
    children: [image, { driver: 'null-co', 'node-name': name('null'), size: layout.virtualSizeBytes, 'read-zeroes': true }],
  };
  return layout.hasFooter ? { driver: 'vpc', 'node-name': name('top'), file: quorum } : quorum;
}

/** A quorum as small as can be: whether this QEMU can have one at all. */
export function describeProbe(groupId: string, stamp: string): Readonly<Record<string, unknown>> {
  const child = { driver: 'null-co', size: 65536, 'read-zeroes': true };
  return { driver: 'quorum', 'node-name': nodeName(groupId, stamp, 0, 'probe'), 'vote-threshold': 1, 'read-pattern': 'fifo', children: [child, child] };
}
