/**
 * Measures how a running guest changes, for `afterimage estimate`: dirty bitmaps of our own, one for each disk and length of window, counted
 * and cleared at each window's end, and the write counts of its devices. Nothing else is put into the guest and none of its bytes is read.
 *
 * Invariant: whatever ends the measurement, its bitmaps are taken out, unless this process is killed or the connection lost: then they
 * bear a name by which the next measurement, or the next daemon that protects the guest, takes them out. They are not persistent, so
 * they end with their QEMU at the latest. Bitmaps of a daemon or of anybody else are never touched.
 */
import { queryNodes, removeBitmaps, type FoundBitmap } from '../../daemon/capture/guest-objects.ts';
import { dirtyBytesOf } from '../../daemon/capture/dirty-count.ts';
import { estimateBitmapName, isEstimateBitmap } from '../../daemon/capture/object-names.ts';
import { bitmapGranularity } from '../../daemon/capture/reconcile-plan.ts';
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { listGuestDisks, type GuestDisk } from '../../qemu/guest-disks.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import type { ChangeMeasurement, MeasuredCycle } from './estimate-plan.ts';

/** From the shortest sensible pace of copies to where most guests write little more than the same places again, ms. */
export const windowsMs: readonly number[] = [1000, 5000, 60_000, 300_000];
/** Timers may fire this much early. */
const earlyMs = 2;

export interface MeasureOptions {
  readonly clock: Clock;
  readonly forMs: number;
  /** Aborted: the measurement ends early, with what it has. */
  readonly signal: AbortSignal;
  /** After each look at the guest. */
  onProgress?(passedMs: number): void;
}

interface Window { readonly windowMs: number; begunMs: number; readonly cycles: MeasuredCycle[] }
type Marker = Pick<FoundBitmap, 'node' | 'name'>;
interface BlockStats { readonly qdev?: string; readonly stats: { readonly wr_bytes: number; readonly wr_operations?: number } }

/**
 * Null: it was ended before the first window was over. `leftOvers`: bitmaps of measurements before, which were killed; they are gone.
 * Faults: GUEST_UNSUITED (no disk that can be protected), GUEST_CHANGED, BITMAP_LOST (somebody took ours out), QMP_*.
 */
export async function measureChanges(qmp: QmpConnection, { clock, forMs, signal, onProgress }: MeasureOptions): Promise<{ readonly measured: ChangeMeasurement | null; readonly leftOvers: number }> {
  const disks = await listGuestDisks(qmp);
  if (disks.length === 0) throw new Fault('GUEST_UNSUITED', 'the guest has no disk that can be protected');
  const old = (await queryNodes(qmp)).bitmaps.filter(({ name }) => isEstimateBitmap(name));
  const refused = await removeBitmaps(qmp, old);
  if (refused.length > 0) throw new Fault('GUEST_UNSUITED', `bitmaps of an earlier measurement would not go: ${refused.join('; ')}`, { refused });

  const windows: Window[] = windowsMs.filter((windowMs, at) => at === 0 || windowMs <= forMs).map((windowMs) => ({ windowMs, begunMs: 0, cycles: [] }));
  const markersOf = (chosen: readonly Window[]): Marker[] => chosen.flatMap(({ windowMs }) => disks.map(({ trackNode }, disk) => ({ node: trackNode, name: estimateBitmapName(disk, windowMs) })));
  const measure = async (): Promise<ChangeMeasurement | null> => {
    await qmp.execute('transaction', { actions: markersOf(windows).map((marker) => ({ type: 'block-dirty-bitmap-add', data: { ...marker, granularity: bitmapGranularity, persistent: false } })) });
    const begunMs = clock.monotonicMs();
    for (const window of windows) window.begunMs = begunMs;
    const before = await countWrites(qmp, disks);
    const endMs = begunMs + forMs;
    for (;;) {
      const nextMs = Math.min(endMs, ...windows.map((window) => window.begunMs + window.windowMs));
      await clock.delay(Math.max(0, Math.ceil(nextMs - clock.monotonicMs())), signal).catch((error: unknown) => { if (!signal.aborted) throw error; });
      const due = windows.filter((window) => window.begunMs + window.windowMs <= clock.monotonicMs() + earlyMs);
      if (due.length > 0) {
        // One behind the other in QEMU's queue: what is written between the count and the clearing is a matter of microseconds.
        const [{ bitmaps }] = await Promise.all([
          queryNodes(qmp), qmp.execute('transaction', { actions: markersOf(due).map((data) => ({ type: 'block-dirty-bitmap-clear', data })) }),
        ]);
        const atMs = clock.monotonicMs();
        for (const window of due) {
          window.cycles.push({ ms: atMs - window.begunMs, changedBytes: markersOf([window]).reduce((sum, { node, name }) => sum + dirtyBytesOf(bitmaps, node, name), 0) });
          window.begunMs = atMs;
        }
        onProgress?.(atMs - begunMs);
      }
      if (signal.aborted || clock.monotonicMs() + earlyMs >= endMs) break;
    }
    const after = await countWrites(qmp, disks);
    const passedMs = clock.monotonicMs() - begunMs;
    await refuseChanged(qmp, disks);
    const complete = windows.filter(({ cycles }) => cycles.length > 0);
    return complete.length === 0 ? null : {
      forMs: passedMs, sizeBytes: disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      written: before === null || after === null ? null : { bytes: after.bytes - before.bytes, operations: after.operations - before.operations },
      windows: complete.map(({ windowMs, cycles }) => ({ windowMs, cycles })),
    };
  };
  const measured = await measure().catch(async (error: unknown) => {
    // What ended the measurement says more than what then could not be taken out: over a connection that is lost nothing can.
    await takeOut(qmp).catch((left: unknown) => { if (!isFault(left)) throw left; });
    throw error;
  });
  await takeOut(qmp);
  return { measured, leftOvers: old.length };
}

/** Whatever is there, not only what is known to have been made: a command may have been done whose answer was lost. */
async function takeOut(qmp: QmpConnection): Promise<void> {
  const { bitmaps } = await queryNodes(qmp);
  const refused = await removeBitmaps(qmp, bitmaps.filter(({ name }) => isEstimateBitmap(name)));
  if (refused.length > 0) throw new Fault('GUEST_CHANGED', `bitmaps of the measurement would not go: ${refused.join('; ')}. They cost nothing, and go with the next measurement or with the guest's QEMU`, { refused });
}

/** Fault GUEST_CHANGED: what was written went elsewhere, at least in part. */
async function refuseChanged(qmp: QmpConnection, disks: readonly GuestDisk[]): Promise<void> {
  const told = (list: readonly GuestDisk[]): string => JSON.stringify(list.map(({ name, trackNode }) => [name, trackNode]));
  if (told(await listGuestDisks(qmp)) !== told(disks)) throw new Fault('GUEST_CHANGED', 'a disk of the guest came, went or was overlaid while it was measured: measure again');
}

/** Null: this QEMU does not say. */
async function countWrites(qmp: QmpConnection, disks: readonly GuestDisk[]): Promise<{ readonly bytes: number; readonly operations: number } | null> {
  const devices = new Set(disks.map(({ qdev }) => qdev));
  const found = (await qmp.execute<readonly BlockStats[]>('query-blockstats')).filter(({ qdev }) => qdev !== undefined && devices.has(qdev));
  if (found.length !== disks.length) return null;
  return found.reduce((sum, { stats }) => ({ bytes: sum.bytes + stats.wr_bytes, operations: sum.operations + (stats.wr_operations ?? 0) }), { bytes: 0, operations: 0 });
}
