/**
 * Puts what a batch is going to overwrite into a history file, and seals it. Only bytes that the disk had before the batch are
 * saved; holes are asked of the file system and not read. Memory is that of the history writer and of one plan, whatever the
 * batch's size.
 */
import type { Disk, DiskFile } from '../../host/disk.ts';
import { runBytesMax, zeroRunBytesMax } from '../../journal/limits.ts';
import type { DiskPlan } from './apply-plan.ts';
import type { BatchPlans } from './batch-plans.ts';
import { DataRanges } from './data-ranges.ts';
import type { GroupFolder } from './group-folder.ts';
import type { HistoryFacts } from './history-format.ts';
import { HistoryWriter } from './history-writer.ts';
import type { Replica } from './replica.ts';

const atOnceBytesMax = 64 * 1024;

export interface HistoryPlace { readonly disk: Disk; readonly folder: GroupFolder; readonly replica: Replica }

/** Durable when it resolves: the replica may be touched. */
export async function saveBeforeImages(o: HistoryPlace, plans: BatchPlans, facts: HistoryFacts): Promise<{ readonly name: string; readonly sizeBytes: number }> {
  const writer = await HistoryWriter.begin(o.disk, o.folder, facts);
  try {
    for await (const { disks } of plans.all()) for (const plan of disks) await saveDisk(o.replica, plan, writer);
    return await writer.seal();
  } finally {
    await writer.close();
  }
}

async function saveDisk(replica: Replica, plan: DiskPlan, writer: HistoryWriter): Promise<void> {
  if (plan.sizeBefore === null || plan.sizeBefore === 0 || plan.count === 0) return;
  const file = await replica.file(plan.disk);
  const ranges = new DataRanges(file);
  for (const [start, end] of spans(plan, plan.sizeBefore)) {
    const data = await ranges.within(start, end);
    let at = start;
    for (const range of [...data, { start: end, end }]) {
      for (; at < range.start; at += zeroRunBytesMax) await writer.zero(plan.disk, at, Math.min(zeroRunBytesMax, range.start - at));
      for (at = range.start; at < range.end; at += runBytesMax) {
        const bytes = await writer.room(Math.min(runBytesMax, range.end - at));
        bytes.fill(0, readAtOnce(file, bytes, at) ?? await file.read(bytes, 0, bytes.length, at));
        if (isZero(bytes)) await writer.zero(plan.disk, at, bytes.length);
        else writer.data(plan.disk, at, bytes.length);
      }
      at = range.end;
    }
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

/** Small runs mostly lie in the page cache, and the way to another thread and back costs ten times as much as they do. Null: it has to be waited for. */
function readAtOnce(file: DiskFile, bytes: Buffer, at: number): number | null {
  if (bytes.length > atOnceBytesMax) return null;
  return file.readNow?.(bytes, bytes.length, at) === bytes.length ? bytes.length : null;
}

const zeroBlock = Buffer.alloc(runBytesMax);

function isZero(bytes: Buffer): boolean {
  return bytes.equals(zeroBlock.subarray(0, bytes.length));
}
