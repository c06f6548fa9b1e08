/**
 * Looks at a sample of the blocks that a batch overwrites, before and after, while the batch is written: the new bytes are in
 * hand then, the old ones lie in the page cache since they were saved into the history, and nothing is read twice for it. The
 * source is not asked: it may be the one that has been taken over. Each block of the batch has the same chance to be looked
 * at, and which ones are cannot be foreseen by who writes them. Its cost is bounded for each point, whatever the point's size.
 */
import type { DiskFile } from '../../host/disk.ts';
import type { Random } from '../../host/random.ts';
import type { DiskPlan } from '../store/apply-plan.ts';
import type { JournalPosition } from '../store/journal-recovery.ts';
import { addTo, chiSquareOf, shapeBlockBytes, shapeOf } from './block-shape.ts';
import type { PointChanges } from './point-changes.ts';

/** Looked at of the data of each point, and of what it zeroes; and of a whole batch. One takes 15 µs. */
const dataBlocksMax = 384;
const zeroBlocksMax = 96;
const batchBlocksMax = 1536;
/** Not looked at of a piece's first block: who encrypts may put a header there that is the same in each file. */
const headerBytes = 512;

interface Tally {
  bytes: number; zeroedBytes: number; extents: number; recordBytes: number; sampledBlocks: number; sameBytes: number;
  noiseBytes: number; turnedBytes: number; freshBytes: number; wipedBytes: number; firstBytes: number;
  /** Histograms; null: none was needed. A batch may have thousands of points. */
  turned: Float64Array | null; turnedPooled: number;
  first: Float64Array | null; firstPooled: number;
  fresh: Float64Array | null; freshPooled: number;
}

export class BlockSampler {
  readonly #ends: readonly JournalPosition[];
  readonly #tallies: readonly Tally[];
  /** Filled and looked at in one go; what has to be waited for gets a buffer of its own. */
  readonly #before = Buffer.alloc(shapeBlockBytes);
  readonly #seed: number;
  /** One of so many blocks is looked at, of data and of zeroes. */
  #dataStride = 1;
  #zeroStride = 1;

  /** `ends`: of the batch's points in the journal, oldest first. */
  constructor(ends: readonly JournalPosition[], random: Random) {
    this.#ends = ends;
    this.#tallies = ends.map(() => ({
      bytes: 0, zeroedBytes: 0, extents: 0, recordBytes: 0, sampledBlocks: 0, sameBytes: 0, noiseBytes: 0, turnedBytes: 0, freshBytes: 0, wipedBytes: 0, firstBytes: 0,
      turned: null, turnedPooled: 0, first: null, firstPooled: 0, fresh: null, freshPooled: 0,
    }));
    this.#seed = random.bytes(4).readUInt32LE();
  }

  /** Of what is about to be written: the batch's plan, or the next slice of it. */
  begin(disks: readonly DiskPlan[]): void {
    let [data, zeroed] = [0, 0];
    for (const plan of disks) {
      for (let i = 0; i < plan.count; i++) {
        const { start, end, record } = plan.extent(i);
        if (record < 0) zeroed += end - start;
        else data += end - start;
      }
    }
    const points = this.#ends.length;
    const strideOf = (bytes: number, each: number): number => Math.max(1, Math.ceil(bytes / shapeBlockBytes / Math.min(batchBlocksMax, points * each)));
    this.#dataStride = strideOf(data, dataBlocksMax);
    this.#zeroStride = strideOf(zeroed, zeroBlocksMax);
  }

  /** So many pieces of the record at `place` are about to be written, `bytes` together; its payload takes `storedShare` of its run. */
  record(place: JournalPosition, pieces: number, bytes: number, storedShare: number): void {
    const tally = this.#tallyOf(place);
    tally.bytes += bytes;
    tally.extents += pieces;
    tally.recordBytes += Math.round(bytes * storedShare);
  }

  /** Before [start, start + after.length) of the image is overwritten with `after`, from the record at `place`; `plan`: of this disk, as a whole or as a slice. */
  async data(file: DiskFile, plan: DiskPlan, place: JournalPosition, start: number, after: Buffer): Promise<void> {
    const tally = this.#tallyOf(place);
    for (const at of this.#chosen(start, start + after.length, this.#dataStride)) {
      const now = after.subarray(at - start, at - start + shapeBlockBytes);
      const length = this.#compare(tally, this.#readNow(file, at) ?? await readBytes(file, at), now);
      if (length === null) continue;
      // What was not sent is as it was. What came in another record is not at hand: whether this is a first block is not known then.
      const beside = Math.min(shapeBlockBytes, at - start);
      if (beside === 0 ? plan.writes(at - 1) : !(this.#readNow(file, at - beside, beside) ?? await readBytes(file, at - beside, beside)).equals(after.subarray(at - start - beside, at - start))) continue;
      tally.firstBytes += this.#dataStride * shapeBlockBytes;
      tally.firstPooled += length - headerBytes;
      addTo(tally.first ??= new Float64Array(256), now.subarray(headerBytes, length));
    }
  }

  /** Before [start, end) of the image becomes zero. Whose doing it was, of several points, is not known: it counts for the last. */
  async zeroed(file: DiskFile, start: number, end: number): Promise<void> {
    const tally = this.#tallies.at(-1)!;
    tally.zeroedBytes += end - start;
    tally.extents += 1;
    for (const at of this.#chosen(start, end, this.#zeroStride)) {
      if (shapeOf(this.#readNow(file, at) ?? await readBytes(file, at)).shape === 'structured') tally.wipedBytes += this.#zeroStride * shapeBlockBytes;
    }
  }

  /** For each point, oldest first. */
  finish(): PointChanges[] {
    return this.#tallies.map(({ turned, first, fresh, ...facts }) => ({
      ...facts,
      turnedChi: turned === null ? 0 : chiSquareOf(turned, facts.turnedPooled),
      firstChi: first === null ? 0 : chiSquareOf(first, facts.firstPooled),
      freshChi: fresh === null ? 0 : chiSquareOf(fresh, facts.freshPooled),
    }));
  }

  /** Length of the block, up to its trailing zeroes, if it turned; else null. */
  #compare(tally: Tally, old: Buffer, after: Buffer): number | null {
    const bytes = this.#dataStride * shapeBlockBytes;
    tally.sampledBlocks += 1;
    if (old.equals(after)) {
      tally.sameBytes += bytes;
      return null;
    }
    const now = shapeOf(after);
    if (now.shape !== 'noise' && now.shape !== 'blank') return null;
    const before = shapeOf(old).shape;
    if (now.shape === 'blank') {
      if (before === 'structured') tally.wipedBytes += bytes;
      return null;
    }
    tally.noiseBytes += bytes;
    if (before === 'structured') {
      tally.turnedBytes += bytes;
      tally.turnedPooled += now.length;
      addTo(tally.turned ??= new Float64Array(256), after.subarray(0, now.length));
      return now.length;
    }
    if (before !== 'noise') {
      tally.freshBytes += bytes;
      tally.freshPooled += now.length;
      addTo(tally.fresh ??= new Float64Array(256), after.subarray(0, now.length));
    }
    return null;
  }

  /** Whole blocks within [start, end): of each `stride` neighbours one, at a place that the seed decides. */
  * #chosen(start: number, end: number, stride: number): Generator<number, void, undefined> {
    const first = Math.ceil(start / shapeBlockBytes);
    const last = Math.floor(end / shapeBlockBytes) - 1;
    for (let group = Math.floor(first / stride); group * stride <= last; group++) {
      const block = group * stride + (stride === 1 ? 0 : mixed(group, this.#seed) % stride);
      if (block >= first && block <= last) yield block * shapeBlockBytes;
    }
  }

  /** To be looked at before anything else is read; null: it has to be waited for. */
  #readNow(file: DiskFile, at: number, length = shapeBlockBytes): Buffer | null {
    return file.readNow?.(this.#before, length, at) === length ? this.#before.subarray(0, length) : null;
  }

  #tallyOf(place: JournalPosition): Tally {
    let [low, high] = [0, this.#ends.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      const end = this.#ends[middle]!;
      if (place.segment < end.segment || (place.segment === end.segment && place.at < end.at)) high = middle;
      else low = middle + 1;
    }
    return this.#tallies[low]!;
  }
}

/** What lies beyond the end of the image is zero. */
async function readBytes(file: DiskFile, at: number, length = shapeBlockBytes): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  await file.read(bytes, 0, length, at);
  return bytes;
}

/** 32 bits that differ in half their places when either argument differs in one (the finisher of MurmurHash3). */
function mixed(value: number, seed: number): number {
  let bits = (value ^ seed) | 0;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
