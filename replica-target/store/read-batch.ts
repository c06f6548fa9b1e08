/**
 * Reads the records of a batch of sealed deltas from the journal, and makes the plan of what applying them changes. Every
 * record is checked as it passes: damage is found before a byte of the replica is touched.
 */
import type { Disk } from '../../host/disk.ts';
import { formatPoint } from '../../journal/point.ts';
import type { RecordHeader } from '../../journal/record.ts';
import type { SealPayload } from '../../journal/seal.ts';
import { ApplyPlan, wholeSlice, type PlanSlice, type SizedDisk } from './apply-plan.ts';
import type { GroupFolder } from './group-folder.ts';
import { readSegmentHeader, type JournalPosition, type SealedDelta } from './journal-recovery.ts';
import { segmentHeaderBytes } from './segment-header.ts';
import { makeWindow, SegmentReader } from './segment-reader.ts';
import { corrupt } from './store-fault.ts';

export interface BatchSource { readonly disk: Disk; readonly folder: GroupFolder; readonly groupId: string; readonly segmentBytes: number }

/** What of a sealed delta it takes to read it. */
export interface BatchDelta extends Pick<SealedDelta, 'id' | 'start' | 'end'> { readonly seal: Pick<SealPayload, 'disks'> }

/** `before`: sizes of the images as they are. `slice`: the part of the disks that is planned. Faults: STORE_CORRUPT. */
export async function readBatch(o: BatchSource, before: readonly SizedDisk[], deltas: readonly BatchDelta[], slice: PlanSlice = wholeSlice): Promise<ApplyPlan> {
  const plan = new ApplyPlan(before, slice);
  await walkRuns(o, deltas, {
    run: (header, at, recordBytes) => {
      if (header.kind === 'data') plan.data(header.disk, header.offset, header.length, at, recordBytes);
      else plan.zero(header.disk, header.offset, header.length);
    },
    end: (delta) => plan.endPoint(delta.seal.disks),
  });
  return plan;
}

export interface RunVisitor {
  /** A data or zero record. */
  run(header: RecordHeader, at: JournalPosition, recordBytes: number): void;
  end(delta: BatchDelta): void;
}

/** Every run of the deltas, in order. Faults: STORE_CORRUPT. */
export async function walkRuns(o: BatchSource, deltas: readonly BatchDelta[], visitor: RunVisitor): Promise<void> {
  const { disk, folder, groupId } = o;
  const window = makeWindow(o.segmentBytes);
  for (const delta of deltas) {
    let at: JournalPosition | null = delta.start;
    if (at === null) throw corrupt(folder.journal, 0, `the beginning of point ${formatPoint(delta.id)} is gone`);
    while (at.segment < delta.end.segment || (at.segment === delta.end.segment && at.at < delta.end.at)) {
      const end: number = at.segment === delta.end.segment ? delta.end.at : (await readSegmentHeader(disk, folder, groupId, at.segment + 1)).previousEnd;
      await readRecords(o, visitor, delta, at, end, window);
      at = at.segment === delta.end.segment ? delta.end : { segment: at.segment + 1, at: segmentHeaderBytes };
    }
    visitor.end(delta);
  }
}

async function readRecords(o: BatchSource, visitor: RunVisitor, delta: BatchDelta, from: JournalPosition, end: number, window: Buffer): Promise<void> {
  const path = o.folder.segment(from.segment);
  const file = await o.disk.open(path, 'read');
  try {
    const reader = new SegmentReader(file, from.at, end, window);
    while (reader.at < end) {
      const start = reader.at;
      const reading = await reader.next();
      if (!reading.ok) throw corrupt(path, start, reading.detail, { point: formatPoint(delta.id) });
      const { header, bytes } = reading.record;
      if (header.kind === 'data' || header.kind === 'zero') visitor.run(header, { segment: from.segment, at: start }, bytes.length);
    }
  } finally {
    await file.close();
  }
}
