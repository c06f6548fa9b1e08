/**
 * One copy of dirty blocks into the spool: makes the targets, runs one transaction in which all backup jobs begin at one
 * instant, waits until the jobs are gone, takes the targets out of QEMU again and reads what they got.
 *
 * Invariants: on return nothing of this copy is left in QEMU but the bitmaps that the caller's own actions made; on a throw the
 * same, unless the connection is over (then `reconcile` finds it). Only an image is returned that QEMU has let go of, in which
 * no quorum break was reported, over one connection throughout. Bitmaps are the caller's business.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import type { BitmapAction } from './bitmap-actions.ts';
import type { CutHold } from './capture.ts';
import { imageClusterBytes, makeDeltaImage } from './delta-image.ts';
import { mapDeltaImage } from './delta-image-map.ts';
import { canHaveVhd, describeTarget } from './delta-target.ts';
import { addHandshakes, removeHandshakes } from './drain-handshake.ts';
import { hasIoThreads } from './guest-checks.ts';
import { queryNodes, queryOwnJobs, removeJobs, removeNodes, unlessRefused } from './guest-objects.ts';
import type { JobWatch } from './job-watch.ts';
import { nodeName, ownPrefix } from './object-names.ts';
import type { Spool, SpoolFile } from './spool.ts';
import { CopiedDisk } from './spooled-delta.ts';

export interface CopyDisk {
  readonly disk: number;
  readonly trackNode: string;
  readonly sizeBytes: number;
  readonly capBytes: number;
  /** The bitmap that says what is copied. */
  readonly bitmap: string;
}

export interface CopyOrder {
  readonly stamp: string;
  readonly disks: readonly CopyDisk[];
  /** Of the same transaction, ahead of the jobs. */
  readonly actionsBefore: readonly BitmapAction[];
  /** Of the same transaction, behind them, while they hold the disks still. */
  readonly actionsBehind?: readonly BitmapAction[];
  /** `never`: the bitmaps keep their bits whatever happens. `always`: they keep those that were not copied. */
  readonly bitmapMode: 'never' | 'always';
  /** Who holds the guest still: asked just ahead of the transaction, when all is prepared; released when the guest may go on. */
  readonly hold?: Pick<CutHold, 'still' | 'isPausing' | 'signal' | 'release'>;
  /** The jobs are there for what they do to the disks alone, to hold them still for the transaction: whatever they copy is of no interest. */
  readonly isHoldOnly?: boolean;
  /** Of a round: the job is cancelled on purpose when it has copied enough. */
  readonly round?: { readonly stopAtBytes: number; readonly speedBytesPerSecond: number; readonly workers: number };
}

export interface CopyContext {
  readonly qmp: QmpConnection;
  readonly watch: JobWatch;
  readonly clock: Clock;
  readonly spool: Spool;
  readonly groupId: string;
  readonly owner: { readonly uid: number; readonly gid: number };
  readonly isStorageDaemon: boolean;
  /** False once this QEMU has refused the VHD layer, as one started with --only-migratable does. */
  isVhdUsable: boolean;
  /** Throws GUEST_CHANGED unless every device has the node beneath it that it had. */
  verifyDisks(): Promise<void>;
}

export interface CopyResult {
  readonly copied: readonly CopiedDisk[];
  readonly cutAtMs: number;
  readonly cutMonotonicMs: number;
  /** How long the transaction took. */
  readonly cutMs: number;
  /** How long a job was in the guest's path. */
  readonly inPathMs: number;
}

/** A job may take this long, and as long again as its bytes need at the rate of a slow disk. */
const jobLimitMsBase = 60_000;
const jobBytesPerMsMin = 8 * 1024;
/** Between two looks at how far a round's job is, ms. */
const roundLookMs = 20;

export async function copyDirty(context: CopyContext, order: CopyOrder): Promise<CopyResult> {
  const { qmp, clock } = context;
  const files: SpoolFile[] = [];
  try {
    const targets = [];
    for (const [index, disk] of order.disks.entries()) targets.push(await addTarget(context, order.stamp, disk, files, capsOf(order.disks.slice(index + 1))));
    const isHeld = await hasForeignJobs(qmp);
    const isThreaded = await hasIoThreads(qmp, context.isStorageDaemon);
    // A job with nothing to copy marks nothing, and a guest that is stopped has no thread that would.
    const shake = order.isHoldOnly === true || order.hold?.isPausing === true || !isThreaded ? null : await addHandshakes(context, order.stamp, order.disks);
    if (shake !== null) files.push(shake);
    await order.hold?.still?.();
    const cutAtMs = clock.nowMs();
    const cutMonotonicMs = clock.monotonicMs();
    await qmp.execute('transaction', { actions: [...order.actionsBefore, ...order.disks.map((disk) => backupAction(context, order, disk, isHeld)), ...(order.actionsBehind ?? [])] });
    // A guest that goes on takes its disks back to their I/O threads: with a job upon them that ends QEMU 7.2 (seen, once in some 30 times:
    // bdrv_try_change_aio_context beneath virtio_blk_data_plane_start). So then it goes on when the copy is made.
    const isLate = order.hold?.isPausing === true && isThreaded;
    if (!isLate) void order.hold?.release(true);
    const cutMs = clock.monotonicMs() - cutMonotonicMs;
    if (shake !== null) await removeHandshakes(context, order.stamp, order.disks, shake);
    await verifySizes(qmp, order.disks);
    const copiedBytes = await awaitJobs(context, order, isHeld);
    const inPathMs = clock.monotonicMs() - cutMonotonicMs;
    for (const { disk } of order.disks) await qmp.execute('blockdev-del', { 'node-name': nodeName(context.groupId, order.stamp, disk, 'top') });
    if (isLate) void order.hold?.release(true);
    // A round trip after the last write of QEMU's: an event that it raised has arrived when this returns. It also tells whether
    // the jobs copied what the guest's devices write to: a node that came between device and disk is not in this delta.
    await context.verifyDisks();
    if (order.isHoldOnly !== true) refuseBroken(context, order);
    const copied: CopiedDisk[] = [];
    for (const [index, { head, file }] of targets.entries()) {
      if (order.isHoldOnly === true) {
        await file.remove();
        continue;
      }
      const extents = await mapDeltaImage(head, (into, at) => file.read(into, 0, into.length, at));
      if (order.round === undefined) refuseBlurred(order.disks[index]!, copiedBytes[index]!, extents.bytes);
      copied.push(new CopiedDisk(order.disks[index]!.disk, extents, file));
    }
    return { copied, cutAtMs, cutMonotonicMs, cutMs, inPathMs };
  } catch (error) {
    await undo(context, order, files, error);
    throw error;
  } finally {
    const prefix = cyclePrefix(context, order.stamp);
    context.watch.forgetBreaks((node) => node.startsWith(prefix));
  }
}

function capsOf(disks: readonly CopyDisk[]): number {
  return disks.reduce((sum, { capBytes }) => sum + capBytes, 0);
}

function cyclePrefix(context: CopyContext, stamp: string): string {
  return nodeName(context.groupId, stamp, 0, 'top').slice(0, -2);
}

async function addTarget(context: CopyContext, stamp: string, disk: CopyDisk, files: SpoolFile[], followedBytes: number): Promise<{ head: ReturnType<typeof makeDeltaImage>; file: SpoolFile }> {
  const hasFooter = context.isVhdUsable && canHaveVhd(disk.sizeBytes);
  const head = makeDeltaImage({ diskSizeBytes: disk.sizeBytes, hasFooter, capBytes: disk.capBytes, randomBytes });
  const file = await context.spool.createImage(`${stamp}-${disk.disk}`, { capBytes: disk.capBytes, pieces: head.pieces, blankBytes: head.layout.usedClusters * imageClusterBytes, followedBytes }, context.owner);
  files.push(file);
  try {
    await context.qmp.execute('blockdev-add', describeTarget({ groupId: context.groupId, stamp, disk: disk.disk }, head.layout, file.path));
  } catch (error) {
    if (!hasFooter || !isFault(error, 'QMP_COMMAND')) throw error;
    // Without the VHD the guest's log gets a warning at every job: better than no protection.
    await file.remove();
    files.splice(files.indexOf(file), 1);
    context.isVhdUsable = false;
    try {
      return await addTarget(context, stamp, disk, files, followedBytes);
    } catch (second) {
      context.isVhdUsable = true; // it was not the VHD's fault
      throw second;
    }
  }
  return { head, file };
}

/**
 * Whether somebody else's job (a backup, a mirror) is at work in this QEMU. Then ours must not end by themselves: QEMU 7.2 dies
 * (seen: bdrv_drop_filter replaces its filter by a node that is gone) when one job's filter is dropped while another's, above it on
 * the same disk, is being dropped. A job that waits to be finalized by command ends at no such moment. Without foreign jobs ours
 * do end by themselves, so that nothing stays in the guest's path when this daemon dies.
 */
async function hasForeignJobs(qmp: QmpConnection): Promise<boolean> {
  const jobs = await qmp.execute<readonly { readonly id: string; readonly status: string }[]>('query-jobs');
  return jobs.some(({ id, status }) => !id.startsWith(ownPrefix) && status !== 'concluded' && status !== 'null');
}

function backupAction(context: CopyContext, order: CopyOrder, { disk, trackNode, bitmap }: CopyDisk, isHeld: boolean): Readonly<Record<string, unknown>> {
  const { groupId } = context;
  return {
    type: 'blockdev-backup',
    data: {
      'job-id': nodeName(groupId, order.stamp, disk, 'job'), device: trackNode, target: nodeName(groupId, order.stamp, disk, 'top'),
      sync: 'bitmap', bitmap, 'bitmap-mode': order.bitmapMode, 'filter-node-name': nodeName(groupId, order.stamp, disk, 'filter'),
      // What is as by itself is left out, errors among it (`report`): QEMU reads a command byte by byte, with six system calls for each.
      ...(isHeld ? { 'auto-finalize': false } : {}), 'auto-dismiss': false,
      ...(order.round === undefined ? {} : { speed: order.round.speedBytesPerSecond, 'x-perf': { 'max-workers': order.round.workers } }),
    },
  };
}

/** While the job is in place a disk cannot be resized: its size now is its size at the cut. */
async function verifySizes(qmp: QmpConnection, disks: readonly CopyDisk[]): Promise<void> {
  const { nodes } = await queryNodes(qmp);
  for (const { disk, trackNode, sizeBytes } of disks) {
    const now = nodes.find(({ node }) => node === trackNode)?.sizeBytes;
    if (now !== sizeBytes) throw new Fault('GUEST_CHANGED', `disk ${disk} has ${now} bytes, not ${sizeBytes}`, { disk, was: sizeBytes, is: now });
  }
}

/** Resolves with the bytes that each job copied. */
async function awaitJobs(context: CopyContext, order: CopyOrder, isHeld: boolean): Promise<number[]> {
  const copiedBytes: number[] = [];
  const limitMs = jobLimitMsBase + order.disks.reduce((sum, { capBytes }) => sum + capBytes, 0) / jobBytesPerMsMin;
  const endMs = context.clock.monotonicMs() + limitMs;
  const isStopped = order.round !== undefined && await stopRoundInTime(context, order, order.round.stopAtBytes, endMs);
  for (const { disk } of order.disks) {
    const id = nodeName(context.groupId, order.stamp, disk, 'job');
    const leftMs = (): number => Math.max(1, endMs - context.clock.monotonicMs());
    if (isHeld && await context.watch.until(id, ['pending'], leftMs(), order.hold?.signal) === 'pending') await unlessRefused(context.qmp.execute('job-finalize', { id }));
    await context.watch.until(id, ['concluded'], leftMs(), order.hold?.signal);
    const { error, copiedBytes: bytes } = await context.watch.result(id);
    if (error !== null && !isStopped) throw new Fault('QMP_COMMAND', `QEMU could not copy the changes of disk ${disk}: ${error}`, { disk, job: id });
    copiedBytes.push(bytes);
  }
  return copiedBytes;
}

/** True when the job was cancelled by us. */
async function stopRoundInTime(context: CopyContext, order: CopyOrder, stopAtBytes: number, endMs: number): Promise<boolean> {
  const prefix = cyclePrefix(context, order.stamp);
  assert(order.disks.length === 1, 'a round copies one disk');
  for (;;) {
    const [job] = await queryOwnJobs(context.qmp, prefix);
    if (job === undefined || job.status === 'concluded' || job.status === 'pending') return false;
    if (job['current-progress'] >= stopAtBytes) {
      // Refused when the job has just ended by itself: then nothing was left to copy.
      return await unlessRefused(context.qmp.execute('job-cancel', { id: job.id })) === null;
    }
    if (context.clock.monotonicMs() > endMs) throw new Fault('QMP_TIMEOUT', `job ${job.id} copies too slowly`, { job: job.id });
    await context.clock.delay(roundLookMs);
  }
}

/**
 * QEMU (7.2, and up to the release that sets the job's bitmap when the job is made) puts its filter in place at the cut, with
 * every block marked, and takes our bitmap over only when the job's coroutine first runs, a moment after the disks are let go
 * (block/backup.c, backup_init_bcs_bitmap in backup_run). A guest's write in that moment is preserved by the filter, and then
 * copied again, as it is after the write: the image would mix two instants. The job counts both copies, the image holds one;
 * so the counts tell, exactly. Blocks that the filter preserved without need are in both counts, and hold what they held at the cut.
 */
function refuseBlurred({ disk }: CopyDisk, copiedBytes: number, imageBytes: number): void {
  // The job counts whole clusters, at the disk's end too.
  if (copiedBytes === Math.ceil(imageBytes / imageClusterBytes) * imageClusterBytes) return;
  throw new Fault('CUT_BLURRED', `QEMU copied ${copiedBytes} bytes of disk ${disk} into an image of ${imageBytes}: the guest wrote before the job had begun`, { disk, copiedBytes, imageBytes });
}

function refuseBroken(context: CopyContext, order: CopyOrder): void {
  const [first] = context.watch.breaks(cyclePrefix(context, order.stamp));
  if (first !== undefined) throw new Fault('DELTA_BROKEN', `the delta image ${first.node} did not take a ${first.type}: ${first.error}`, { ...first });
}

/** Takes out what the copy put in. What fails here is said with the copy's own failure as its cause, unless the connection is over. */
async function undo(context: CopyContext, order: CopyOrder, files: readonly SpoolFile[], cause: unknown): Promise<void> {
  try {
    const prefix = cyclePrefix(context, order.stamp);
    await removeJobs(context.qmp, context.watch, prefix);
    const left = await removeNodes(context.qmp, prefix);
    if (left.length > 0) throw new Fault('GUEST_CHANGED', `nodes of ours would not go: ${left.join(', ')}`, { left }, cause);
  } catch (error) {
    if (!isFault(error, 'QMP_CLOSED')) throw error;
  } finally {
    for (const file of files) await file.remove();
  }
}
