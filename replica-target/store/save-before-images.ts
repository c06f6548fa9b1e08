/**
 * Puts what a batch is going to overwrite into a history file, and seals it. Only bytes that the disk had before the batch are
 * saved; holes are asked of the file system and not read. Memory is that of the history writer, whatever the batch's size.
 */
import type { Disk } from '../../host/disk.ts';
import { runBytesMax, zeroRunBytesMax } from '../../journal/limits.ts';
import type { DiskPlan } from './apply-plan.ts';
import { DataRanges } from './data-ranges.ts';
import type { GroupFolder } from './group-folder.ts';
import type { HistoryFacts } from './history-format.ts';
import { HistoryWriter } from './history-writer.ts';
import type { Replica } from './replica.ts';

export interface HistoryPlace { readonly disk: Disk; readonly folder: GroupFolder; readonly replica: Replica }

/** Durable when it resolves: the replica may be touched. */
export async function saveBeforeImages(o: HistoryPlace, disks: readonly DiskPlan[], facts: HistoryFacts): Promise<{ readonly name: string; readonly sizeBytes: number }> {
  const { disk, folder, replica } = o;
  const writer = await HistoryWriter.begin(disk, folder, facts);
  try {
    for (const plan of disks) {
      if (plan.sizeBefore === null || plan.sizeBefore === 0 || plan.count === 0) continue;
      const file = await replica.file(plan.disk);
      const ranges = new DataRanges(file);
      for (const [start, end] of spans(plan, plan.sizeBefore)) {
        const data = await ranges.within(start, end);
        let at = start;
        for (const range of [...data, { start: end, end }]) {
          for (; at < range.start; at += zeroRunBytesMax) await writer.zero(plan.disk, at, Math.min(zeroRunBytesMax, range.start - at));
          for (at = range.start; at < range.end; at += runBytesMax) {
            const bytes = await writer.room(Math.min(runBytesMax, range.end - at));
            bytes.fill(0, await file.read(bytes, 0, bytes.length, at));
            if (isZero(bytes)) await writer.zero(plan.disk, at, bytes.length);
            else writer.data(plan.disk, at, bytes.length);
          }
          at = range.end;
        }
      }
    }
    return await writer.seal();
  } finally {
    await writer.close();
  }
}

/** The plan's extents below `limit`, those that touch joined. */
function* spans(plan: DiskPlan, limit: number): Generator<[start: number, end: number]> {
  let open: [number, number] | null = null;
  for (let i = 0; i < plan.count; i++) {
    const extent = plan.extent(i);
    const end = Math.min(extent.end, limit);
    if (extent.start >= end) continue;
    if (open !== null && open[1] === extent.start) { open[1] = end; continue; }
    if (open !== null) yield open;
    open = [extent.start, end];
  }
  if (open !== null) yield open;
}

const zeroBlock = Buffer.alloc(runBytesMax);

function isZero(bytes: Buffer): boolean {
  return bytes.equals(zeroBlock.subarray(0, bytes.length));
}
