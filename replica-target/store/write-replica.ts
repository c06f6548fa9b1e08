/**
 * Writes a batch into the images. It may be done any number of times with the same outcome, whatever a crash left of the last:
 * everything that the batch changes is written, and nothing is left out because it seems to be there. Nothing is synced here.
 */
import type { Disk, DiskFile } from '../../host/disk.ts';
import type { Extent } from '../../journal/extents.ts';
import { readRecord } from '../../journal/record.ts';
import type { ApplyPlan, DiskPlan } from './apply-plan.ts';
import { BoundedTasks } from './bounded-tasks.ts';
import type { GroupFolder } from './group-folder.ts';
import type { JournalPosition } from './journal-recovery.ts';
import { JournalSource } from './journal-source.ts';
import { runBytes } from './record-payload.ts';
import type { Replica } from './replica.ts';
import { corrupt } from './store-fault.ts';
import type { BlockSampler } from '../suspicion/block-sampler.ts';

/** Writes that are under way at once (style.md: two to four in flight are fastest). */
const writesInFlight = 4;

export interface ReplicaPlace { readonly disk: Disk; readonly folder: GroupFolder; readonly replica: Replica }

/** `isAgain`: it failed before, in this process. `sampler`: sees what is overwritten, where the images still hold all of it. Faults: STORE_CORRUPT for a record that cannot be read any more. */
export async function writeReplica(o: ReplicaPlace, plan: ApplyPlan, disks: readonly DiskPlan[], isAgain: boolean, sampler: BlockSampler | null): Promise<void> {
  const { replica } = o;
  sampler?.begin(disks);
  const tasks = new BoundedTasks(writesInFlight);
  try {
    for (const one of disks) {
      const file = await replica.file(one.disk);
      if (await file.sizeBytes() < one.sizeAfter) await file.truncate(one.sizeAfter);
      await writeDisk(o, plan, one, tasks, isAgain, sampler);
    }
    await tasks.drain();
  } finally {
    await tasks.settle();
  }
  for (const one of disks) await replica.resize(one.disk, one.sizeAfter);
}

/** In order of the journal, so that each record is read and unpacked once, however many pieces of it are left. */
async function writeDisk(o: ReplicaPlace, plan: ApplyPlan, one: DiskPlan, tasks: BoundedTasks, isAgain: boolean, sampler: BlockSampler | null): Promise<void> {
  const { replica } = o;
  const file = await replica.file(one.disk);
  const order = one.inJournalOrder();
  const { places } = plan;
  const source = new JournalSource(o.disk, o.folder);
  try {
    let next = 0;
    while (next < order.length) {
      const { start, end, record } = one.extent(order[next]!);
      if (record < 0) {
        next++;
        const until = Math.min(end, one.sizeAfter);
        if (start < until) await sampler?.zeroed(file, start, until);
        if (start < until) await tasks.add(() => (isAgain ? replica.zeroAgain(one.disk, start, until) : replica.zero(one.disk, start, until, false)));
        continue;
      }
      const pieces: Extent[] = [];
      for (; next < order.length && one.extent(order[next]!).record === record; next++) {
        const piece = one.extent(order[next]!);
        if (piece.start < one.sizeAfter) pieces.push({ start: piece.start, end: Math.min(piece.end, one.sizeAfter) });
      }
      if (pieces.length === 0) continue;
      const place = { segment: places.segment(record), at: places.at(record) };
      const { bytes, release } = await source.read(place, places.recordBytes(record));
      await tasks.add(() => writePieces(file, one, o.folder.segment(place.segment), place, bytes, pieces, sampler).finally(release));
    }
    await tasks.drain();
  } finally {
    await tasks.settle();
    await source.close();
  }
}

async function writePieces(file: DiskFile, plan: DiskPlan, path: string, place: JournalPosition, bytes: Buffer, pieces: readonly Extent[], sampler: BlockSampler | null): Promise<void> {
  const reading = readRecord(bytes);
  if (!reading.ok) throw corrupt(path, place.at, reading.detail);
  const { header } = reading.record;
  const run = await runBytes(header, reading.record.bytes);
  if (run === null) throw corrupt(path, place.at, 'the compressed data cannot be unpacked');
  sampler?.record(place, pieces.length, pieces.reduce((sum, { start, end }) => sum + end - start, 0), header.payloadBytes / header.length);
  for (const piece of pieces) {
    const after = run.subarray(piece.start - header.offset, piece.end - header.offset);
    await sampler?.data(file, plan, place, piece.start, after);
    await file.write(after, piece.start);
  }
}
