/**
 * Decides how the next delta is taken: whole, or in rounds because the spool cannot hold it, or not now. Pure; the bounds that
 * it sets are kept by QEMU (a `raw` node of fixed size), whatever becomes of this daemon.
 */
import { capForData, imageClusterBytes, imageFileBytesMax } from './delta-image.ts';

const mib = 1024 * 1024;

/** What the guest may write between the count of its dirty bytes and the cut, beyond the margin. */
const slackBytesMax = 16 * mib;
/** Below this no round is worth a job. */
const roundDataBytesMin = 2 * mib;
/** QEMU's backup job copies at most this much in one piece (block/block-copy.c, BLOCK_COPY_MAX_BUFFER), by at most 64 workers. */
const copyPieceBytes = mib;
const copyWorkersMax = 64;
/** A cap below that of all metadata caches costs QEMU nothing; above, this much memory for L2 tables is enough. */
const l2CacheBytesMax = 32 * mib;

export interface CycleDisk { readonly disk: number; readonly sizeBytes: number; readonly dirtyBytes: number }

export type CyclePlan =
  | { readonly kind: 'whole'; readonly caps: readonly { readonly disk: number; readonly capBytes: number }[] }
  | {
    /** One disk, the dirtiest, as far as the spool goes. */
    readonly kind: 'round'; readonly disk: number; readonly capBytes: number;
    /** The job is cancelled when it has copied this much: what is under way then must still fit. */
    readonly stopAtBytes: number;
    readonly speedBytesPerSecond: number; readonly workers: number;
  }
  | { readonly kind: 'full'; readonly needBytes: number; readonly roomBytes: number };

/** `margin`: factor on the dirty bytes, above 1; grows when deltas broke for want of space. */
export function planCycle(disks: readonly CycleDisk[], roomBytes: number, margin: number): CyclePlan {
  const slack = Math.min(slackBytesMax * margin, Math.max(0, roomBytes) / (4 * disks.length));
  const caps = disks.map(({ disk, sizeBytes, dirtyBytes }) => ({ disk, capBytes: capForData(sizeBytes, dirtyBytes * margin + slack) }));
  const needBytes = caps.reduce((sum, { capBytes }) => sum + capBytes, 0);
  if (needBytes <= roomBytes && caps.every(({ capBytes }) => capBytes <= imageFileBytesMax)) return { kind: 'whole', caps };

  const dirtiest = disks.reduce((most, disk) => (disk.dirtyBytes > most.dirtyBytes ? disk : most));
  const capBytes = Math.floor(Math.min(roomBytes, imageFileBytesMax, capForData(dirtiest.sizeBytes, dirtiest.sizeBytes)) / imageClusterBytes) * imageClusterBytes;
  const dataBytes = dataForCap(dirtiest.sizeBytes, capBytes);
  if (dataBytes < roundDataBytesMin) return { kind: 'full', needBytes, roomBytes };
  return {
    kind: 'round', disk: dirtiest.disk, capBytes,
    // A quarter for what the workers have under way, a quarter for what is copied between two looks at the job and by the guest's own writes.
    stopAtBytes: Math.floor(dataBytes / 2 / margin),
    speedBytesPerSecond: Math.max(copyPieceBytes, Math.floor(dataBytes * 2 / margin)),
    workers: Math.max(1, Math.min(copyWorkersMax, Math.floor(dataBytes / 4 / copyPieceBytes))),
  };
}

/** Bytes of copied clusters that fit a file of `capBytes` for certain, wherever they lie on the disk. */
export function dataForCap(diskSizeBytes: number, capBytes: number): number {
  let [fits, fitsNot] = [0, Math.ceil(capBytes / imageClusterBytes) + 1];
  while (fitsNot - fits > 1) {
    const clusters = Math.floor((fits + fitsNot) / 2);
    if (capForData(diskSizeBytes, clusters * imageClusterBytes) <= capBytes) fits = clusters;
    else fitsNot = clusters;
  }
  return Math.min(fits * imageClusterBytes, diskSizeBytes);
}

/** Enough for all L2 tables that an image of this cap can have, within reason. */
export function l2CacheBytes(diskSizeBytes: number, capBytes: number): number {
  const tables = Math.min(Math.ceil(diskSizeBytes / (imageClusterBytes * imageClusterBytes / 8)), capBytes / imageClusterBytes);
  return Math.min(l2CacheBytesMax, Math.max(2, tables) * imageClusterBytes);
}
