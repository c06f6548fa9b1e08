/**
 * Reads the records of a batch of sealed deltas from the journal, and makes the plan of what applying them changes. Every
 * record is checked as it passes: damage is found before a byte of the replica is touched.
 */
import type { Disk } from '../../host/disk.ts';
import { formatPoint } from '../../journal/point.ts';
import { ApplyPlan, type SizedDisk } from './apply-plan.ts';
import type { GroupFolder } from './group-folder.ts';
import { readSegmentHeader, type JournalPosition, type SealedDelta } from './journal-recovery.ts';
import { segmentHeaderBytes } from './segment-header.ts';
import { makeWindow, SegmentReader } from './segment-reader.ts';
import { corrupt } from './store-fault.ts';

export interface BatchSource { readonly disk: Disk; readonly folder: GroupFolder; readonly groupId: string; readonly segmentBytes: number }

/** `before`: sizes of the images as they are. Faults: STORE_CORRUPT. */
export async function readBatch(o: BatchSource, before: readonly SizedDisk[], deltas: readonly SealedDelta[]): Promise<ApplyPlan> {
  const { disk, folder, groupId } = o;
  const plan = new ApplyPlan(before);
  const window = makeWindow(o.segmentBytes);
  for (const delta of deltas) {
    let at: JournalPosition | null = delta.start;
    if (at === null) throw corrupt(folder.journal, 0, `the beginning of point ${formatPoint(delta.id)} is gone`);
    while (at.segment < delta.end.segment || (at.segment === delta.end.segment && at.at < delta.end.at)) {
      const end: number = at.segment === delta.end.segment ? delta.end.at : (await readSegmentHeader(disk, folder, groupId, at.segment + 1)).previousEnd;
      await readRecords(o, plan, delta, at, end, window);
      at = at.segment === delta.end.segment ? delta.end : { segment: at.segment + 1, at: segmentHeaderBytes };
    }
    plan.endPoint(delta.seal.disks);
  }
  return plan;
}

async function readRecords(o: BatchSource, plan: ApplyPlan, delta: SealedDelta, from: JournalPosition, end: number, window: Buffer): Promise<void> {
  const path = o.folder.segment(from.segment);
  const file = await o.disk.open(path, 'read');
  try {
    const reader = new SegmentReader(file, from.at, end, window);
    while (reader.at < end) {
      const start = reader.at;
      const reading = await reader.next();
      if (!reading.ok) throw corrupt(path, start, reading.detail, { point: formatPoint(delta.id) });
      const { header, bytes } = reading.record;
      if (header.kind === 'data') plan.data(header.disk, header.offset, header.length, { segment: from.segment, at: start }, bytes.length);
      if (header.kind === 'zero') plan.zero(header.disk, header.offset, header.length);
    }
  } finally {
    await file.close();
  }
}
