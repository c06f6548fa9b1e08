/**
 * The after-images between a boundary and a point inside a batch, or of a point that waits to be applied: which record of the
 * journal each byte comes from. The journal is read once, when the overlay is made; what is kept is the places of the records,
 * as the applier keeps them for a batch. Every record is checked again when it is read.
 */
import type { Extent } from '../../journal/extents.ts';
import { readRecord } from '../../journal/record.ts';
import type { ApplyPlan, DiskPlan, SizedDisk } from '../store/apply-plan.ts';
import { BoundedTasks } from '../store/bounded-tasks.ts';
import { readBatch, type BatchSource } from '../store/read-batch.ts';
import { runBytes } from '../store/record-payload.ts';
import { corrupt } from '../store/store-fault.ts';
import { BlockCache } from './block-cache.ts';
import type { OpenFiles } from './open-files.ts';
import type { SealedPlace } from './sealed-places.ts';

const readsInFlight = 8;
/** Unpacked records, for whoever reads a large one piece by piece. */
const cacheBytesMax = 8 * 1024 * 1024;
const keptRunBytesMin = 32 * 1024;

/** `record`: as in {@link ApplyPlan}; -1 reads as zero. */
export interface OverlayPiece extends Extent { readonly record: number }

export class JournalOverlay {
  readonly disks: readonly SizedDisk[];
  readonly #o: BatchSource;
  readonly #open: OpenFiles;
  readonly #plan: ApplyPlan;
  readonly #byDisk: ReadonlyMap<number, DiskPlan>;
  readonly #cache = new BlockCache(cacheBytesMax);

  private constructor(o: BatchSource, open: OpenFiles, plan: ApplyPlan) {
    const disks = plan.finish();
    this.#o = o;
    this.#open = open;
    this.#plan = plan;
    this.#byDisk = new Map(disks.map((one) => [one.disk, one]));
    this.disks = disks.map(({ disk, sizeAfter }) => ({ disk, sizeBytes: sizeAfter }));
  }

  /** `before`: the disks at the boundary. The journal must not be trimmed below `deltas` while this is in use. Faults: STORE_CORRUPT. */
  static async make(o: BatchSource, open: OpenFiles, before: readonly SizedDisk[], deltas: readonly SealedPlace[]): Promise<JournalOverlay> {
    return new JournalOverlay(o, open, await readBatch(o, before, deltas));
  }

  find(disk: number, start: number, end: number): { readonly pieces: readonly OverlayPiece[]; readonly gaps: readonly Extent[] } {
    const plan = this.#byDisk.get(disk);
    const pieces: OverlayPiece[] = [];
    const gaps: Extent[] = [];
    let at = start;
    if (plan !== undefined) {
      for (let index = firstEndingAfter(plan, start); index < plan.count && at < end; index++) {
        const extent = plan.extent(index);
        if (extent.start >= end) break;
        if (extent.start > at) gaps.push({ start: at, end: extent.start });
        const until = Math.min(end, extent.end);
        pieces.push({ start: Math.max(at, extent.start), end: until, record: extent.record });
        at = until;
      }
    }
    if (at < end) gaps.push({ start: at, end });
    return { pieces, gaps };
  }

  /** Puts the pieces' bytes into `into`, which begins at `start` of the disk. Faults: STORE_CORRUPT. */
  async read(disk: number, pieces: readonly OverlayPiece[], start: number, into: Buffer): Promise<void> {
    const byRecord = new Map<number, Extent[]>();
    for (const { record, ...piece } of pieces) {
      if (record < 0) { into.fill(0, piece.start - start, piece.end - start); continue; }
      const known = byRecord.get(record);
      if (known === undefined) byRecord.set(record, [piece]); else known.push(piece);
    }
    const tasks = new BoundedTasks(readsInFlight);
    try {
      for (const [record, wanted] of byRecord) {
        await tasks.add(async () => {
          const { offset, run } = await this.#run(disk, record);
          for (const piece of wanted) run.copy(into, piece.start - start, piece.start - offset, piece.end - offset);
        });
      }
      await tasks.drain();
    } finally {
      await tasks.settle();
    }
  }

  /** The journal's files that it reads, so that none is kept open for it. */
  forget(): void {
    const segments = new Set<number>();
    const { places } = this.#plan;
    for (let record = 0; record < places.count; record++) segments.add(places.segment(record));
    for (const segment of segments) this.#open.forget(this.#o.folder.segment(segment));
  }

  async #run(disk: number, record: number): Promise<{ readonly offset: number; readonly run: Buffer }> {
    const { places } = this.#plan;
    const path = this.#o.folder.segment(places.segment(record));
    const at = places.at(record);
    const key = String(record);
    const known = this.#cache.get(key);
    // Kept with its offset before it.
    if (known !== undefined) return { offset: Number(known.readBigUInt64LE(0)), run: known.subarray(8) };
    const bytes = Buffer.allocUnsafe(places.recordBytes(record));
    const length = await this.#open.use(path, (file) => file.read(bytes, 0, bytes.length, at));
    const reading = readRecord(bytes.subarray(0, length));
    if (!reading.ok) throw corrupt(path, at, reading.detail);
    const { header } = reading.record;
    if (header.kind !== 'data' || header.disk !== disk) throw corrupt(path, at, 'the record is not the one that was there');
    const run = await runBytes(header, reading.record.bytes);
    if (run === null) throw corrupt(path, at, 'the compressed data cannot be unpacked');
    if (run.length >= keptRunBytesMin) {
      const kept = Buffer.allocUnsafe(8 + run.length);
      kept.writeBigUInt64LE(BigInt(header.offset));
      run.copy(kept, 8);
      this.#cache.put(key, kept);
    }
    return { offset: header.offset, run };
  }
}

function firstEndingAfter(plan: DiskPlan, offset: number): number {
  let low = 0;
  let high = plan.count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (plan.extent(middle).end > offset) high = middle; else low = middle + 1;
  }
  return low;
}
