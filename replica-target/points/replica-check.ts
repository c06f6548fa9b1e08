/**
 * One pass over the replica: every block is read and compared with the checksum that the pass before found, unless it was
 * written since; then the sums are replaced by those of this pass. Which blocks were written since is what the history files
 * since then say, so that applying costs nothing for it. What it finds is damage that came while a block lay still: a block
 * that was written less than a pass ago has nothing to be compared with yet. Invariant: a block that was overwritten is never
 * called damaged, because its before-image is in the list of history files before its first byte is written.
 */
import type { Disk } from '../../host/disk.ts';
import { compareBlockBytes } from '../../journal/limits.ts';
import { comparePoints, type PointId } from '../../journal/point.ts';
import type { SizedDisk } from '../store/apply-plan.ts';
import { DataRanges } from '../store/data-ranges.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import { HistoryReader } from '../store/history-reader.ts';
import type { Replica } from '../store/replica.ts';
import { TouchedBlocks } from '../store/touched-blocks.ts';
import { startOf } from './history-chain-plan.ts';
import type { HistorySet } from './history-set.ts';
import { ReplicaSums, SumsWriter, sumOf, windowBytes, windowSumBytes } from './replica-sums.ts';

/** Bytes of the image that are read at once. */
const readBytes = 1024 * 1024;

export interface ReplicaCheckParts {
  readonly disk: Disk;
  readonly folder: GroupFolder;
  readonly history: HistorySet;
  readonly replica: Replica;
  /** Sizes of the images at the mark. */
  readonly sizes: readonly SizedDisk[];
  readonly applied: PointId | null;
  /** Waits as long as the rate limit asks for; rejects to end the pass. */
  pace(bytes: number): Promise<void>;
}

export interface DamagedBlock { readonly disk: number; readonly offset: number; readonly length: number }

export interface ReplicaChecked {
  readonly readBytes: number;
  /** Of them, those for which there was a checksum of before. */
  readonly comparedBytes: number;
  readonly damaged: readonly DamagedBlock[];
}

export async function checkReplica(o: ReplicaCheckParts): Promise<ReplicaChecked> {
  const total = { readBytes: 0, comparedBytes: 0, damaged: [] as DamagedBlock[] };
  for (const { disk, sizeBytes } of o.sizes) {
    const path = o.folder.sums(disk);
    const before = await ReplicaSums.open(o.disk, path);
    const writer = await SumsWriter.begin(o.disk, path);
    try {
      await checkDisk(o, { disk, sizeBytes }, before, writer, total);
      await writer.seal({ asOf: startOf(o.applied), sizeBytes }, o.folder.replica);
    } finally {
      await before?.close();
      await writer.abandon();
    }
  }
  return total;
}

async function checkDisk(o: ReplicaCheckParts, { disk, sizeBytes }: SizedDisk, before: ReplicaSums | null, writer: SumsWriter, total: { readBytes: number; comparedBytes: number; damaged: DamagedBlock[] }): Promise<void> {
  const since = before === null ? null : new WrittenSince(o, before.facts.asOf);
  const file = await o.replica.file(disk);
  const ranges = new DataRanges(file);
  const buffer = Buffer.allocUnsafe(readBytes);
  const [known, sums] = [Buffer.alloc(windowSumBytes), Buffer.alloc(windowSumBytes)];
  // The last block of before is not comparable when the disk ended within it and has grown.
  const comparableEnd = before === null ? 0 : before.facts.sizeBytes === sizeBytes ? sizeBytes : Math.floor(Math.min(before.facts.sizeBytes, sizeBytes) / compareBlockBytes) * compareBlockBytes;
  for (let window = 0; window * windowBytes < sizeBytes; window++) {
    const [start, end] = [window * windowBytes, Math.min(sizeBytes, (window + 1) * windowBytes)];
    sums.fill(0);
    if (before === null) known.fill(0); else await before.window(window, known);
    for (let at = start; at < end; at += readBytes) {
      const until = Math.min(end, at + readBytes);
      const hasData = (await ranges.within(at, until)).length > 0;
      if (hasData) {
        await o.pace(until - at);
        buffer.fill(0, await file.read(buffer, 0, until - at, at), until - at);
        total.readBytes += until - at;
      }
      for (let block = at; block < until; block += compareBlockBytes) {
        const place = ((block - start) / compareBlockBytes) * 8;
        const blockEnd = Math.min(until, block + compareBlockBytes);
        const sum = hasData ? sumOf(buffer.subarray(block - at, blockEnd - at)) : 0n;
        sums.writeBigUInt64LE(sum, place);
        if (since === null || blockEnd > comparableEnd) continue;
        const wanted = known.readBigUInt64LE(place);
        if (wanted === sum) {
          if (hasData) total.comparedBytes += blockEnd - block;
        } else if (!await since.overlaps(disk, block, blockEnd - block)) {
          total.comparedBytes += blockEnd - block;
          total.damaged.push({ disk, offset: block, length: blockEnd - block });
          // It stays damaged until it is written anew.
          sums.writeBigUInt64LE(wanted, place);
        }
      }
    }
    await writer.window(window, sums);
  }
}

/** What the batches since a point have written. Asked for seldom: it reads the indexes of history files when first it must. */
class WrittenSince {
  readonly #o: ReplicaCheckParts;
  readonly #point: PointId;
  readonly #blocks = new TouchedBlocks();
  readonly #seen = new Set<string>();
  /** History since then was given up: anything may have been written. */
  #isUnknown = false;

  constructor(o: ReplicaCheckParts, point: PointId) {
    this.#o = o;
    this.#point = point;
  }

  async overlaps(disk: number, offset: number, length: number): Promise<boolean> {
    await this.#readOn();
    return this.#isUnknown || this.#blocks.overlaps(disk, offset, length);
  }

  async #readOn(): Promise<void> {
    const { history, folder } = this.#o;
    const lease = history.lease();
    try {
      const files = lease.files.slice(0, lease.count).filter(({ to }) => comparePoints(to, this.#point) > 0);
      const first = files[0];
      if (first === undefined ? comparePoints(startOf(history.applied), this.#point) !== 0 : comparePoints(startOf(first.from), this.#point) > 0) this.#isUnknown = true;
      for (const { name } of files) {
        if (this.#isUnknown || this.#seen.has(name)) continue;
        const reader = await HistoryReader.open(this.#o.disk, folder, name);
        try {
          for (let index = 0; index < reader.count; index++) {
            const { disk, offset, length } = reader.entry(index);
            this.#blocks.add(disk, offset, length);
          }
        } finally {
          await reader.close();
        }
        this.#seen.add(name);
      }
    } finally {
      lease.release();
    }
  }
}
