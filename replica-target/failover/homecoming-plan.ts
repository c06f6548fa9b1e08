/**
 * What to do next for a guest that was booted from an older point and whose data is brought home behind it: pure, from what
 * QEMU says of it. One disk after the other; whatever QEMU stopped because the view was away goes on.
 */
import type { GuestDiskLook, GuestLook } from '../../qemu/guest-blocks.ts';

export type HomeStep =
  | { readonly act: 'stream'; readonly disk: number }
  | { readonly act: 'resume'; readonly disk: number }
  /** The guest was stopped by a failing request, which is made again. */
  | { readonly act: 'continue' }
  /** No image reads from the view any more. */
  | { readonly act: 'arrived' };

export function nextHomeSteps({ runState, disks }: GuestLook): HomeStep[] {
  const steps: HomeStep[] = disks.flatMap(({ disk, job }) => (job?.isStopped === true ? [{ act: 'resume', disk }] : []));
  if (runState === 'io-error') steps.push({ act: 'continue' });
  const next = disks.find(({ isBacked }) => isBacked);
  if (next === undefined) steps.push({ act: 'arrived' });
  else if (disks.every(({ job }) => job === null)) steps.push({ act: 'stream', disk: next.disk });
  return steps;
}

export interface HomeProgress { readonly doneBytes: number; readonly totalBytes: number }

/** Of all disks together; one that waits for its turn counts with its whole size. */
export function homeProgress(disks: readonly GuestDiskLook[], sizes: ReadonlyMap<number, number>): HomeProgress {
  let doneBytes = 0;
  let totalBytes = 0;
  for (const { disk, isBacked, job } of disks) {
    const sizeBytes = sizes.get(disk) ?? 0;
    totalBytes += sizeBytes;
    if (!isBacked) doneBytes += sizeBytes;
    else if (job !== null && job.totalBytes > 0) doneBytes += Math.floor(sizeBytes * (job.doneBytes / job.totalBytes));
  }
  return { doneBytes, totalBytes };
}
