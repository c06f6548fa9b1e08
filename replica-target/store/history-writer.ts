/**
 * Writes one history file: runs in ascending order of disk and offset, then the index, then the trailer. Written under a name
 * of its own, synced, and only then renamed: a file that bears a history file's name was durable, whole, before it got it, and
 * nothing else does. The replica MUST NOT be touched before `seal` has resolved.
 */
import assert from 'node:assert/strict';
import { Xxh64 } from '@node-rs/xxhash';
import { BufferPool } from '../../host/buffer-pool.ts';
import type { Disk, DiskFile } from '../../host/disk.ts';
import { removeIfThere } from './checked-json.ts';
import { undoFileName, type GroupFolder } from './group-folder.ts';
import { encodeHistoryHeader, encodeHistoryTrailer, HistoryIndex, historyIndexEntryBytes, historyRunBytes, writeHistoryRun, type HistoryFacts, type HistoryRun } from './history-format.ts';
import { errorCode } from './store-fault.ts';

/** Ends the name of a file that is being written; recovery removes those. */
export const unsealedSuffix = '.part';
const indexSuffix = `.index${unsealedSuffix}`;
/** Bytes of one write, and of each of the two buffers: one is filled while the other is written. */
const stageBytes = 2 * 1024 * 1024;
/** Of all writers. */
const stages = new BufferPool(0, 8 * stageBytes);
/** Entries of the index that are kept in memory, 1.5 MiB; what is more lies in a file beside, until the runs are all there. */
const indexEntriesMax = 64 * 1024;

export class HistoryWriter {
  readonly #disk: Disk;
  readonly #folder: GroupFolder;
  readonly #name: string;
  readonly #file: DiskFile;
  readonly #index = new HistoryIndex();
  readonly #indexEntriesMax: number;
  #stage = stages.take(stageBytes);
  #spare = stages.take(stageBytes);
  #staged = 0;
  /** Of the stage in the file. */
  #at = 0;
  #writing: Promise<void> = Promise.resolve();
  #dataBytes = 0;
  #isClosed = false;
  /** Entries of the index that do not fit in memory. */
  #spill: DiskFile | null = null;
  #spilledBytes = 0;

  private constructor(disk: Disk, folder: GroupFolder, name: string, file: DiskFile, entriesMax: number) {
    this.#indexEntriesMax = entriesMax;
    this.#disk = disk;
    this.#folder = folder;
    this.#name = name;
    this.#file = file;
  }

  static async begin(disk: Disk, folder: GroupFolder, facts: HistoryFacts, entriesMax: number = indexEntriesMax): Promise<HistoryWriter> {
    const name = undoFileName(facts.from, facts.to);
    const aside = folder.undo(name + unsealedSuffix);
    // Of an earlier try that failed before the replica was touched.
    await removeIfThere(disk, aside);
    await removeIfThere(disk, folder.undo(name));
    await removeIfThere(disk, folder.undo(name + indexSuffix));
    const writer = new HistoryWriter(disk, folder, name, await disk.open(aside, 'create'), entriesMax);
    try {
      await writer.#put(encodeHistoryHeader(facts));
    } catch (error) {
      await writer.close();
      throw error;
    }
    return writer;
  }

  /** Where to put the bytes of the next run, at most `runBytesMax`; `data` or `zero` comes next. */
  async room(length: number): Promise<Buffer> {
    if (this.#index.count >= this.#indexEntriesMax) await this.#spillIndex();
    if (this.#staged + historyRunBytes + length > stageBytes) await this.#flush();
    return this.#stage.subarray(this.#staged + historyRunBytes, this.#staged + historyRunBytes + length);
  }

  /** The run whose bytes were put into `room`. */
  data(disk: number, offset: number, length: number): void {
    this.#run({ kind: 'data', disk, offset, length });
    this.#staged += length;
    this.#dataBytes += length;
  }

  async zero(disk: number, offset: number, length: number): Promise<void> {
    await this.room(0);
    this.#run({ kind: 'zero', disk, offset, length });
  }

  /** Durable under its name when it resolves. Returns the file's name and size. */
  async seal(): Promise<{ readonly name: string; readonly sizeBytes: number }> {
    await this.#flush();
    await this.#writing;
    const indexAt = this.#at;
    const checksum = new Xxh64();
    await this.#putSpilled(checksum);
    const { bytes } = this.#index;
    checksum.update(bytes);
    const indexCount = (this.#spilledBytes + bytes.length) / historyIndexEntryBytes;
    await this.#put(Buffer.concat([bytes, encodeHistoryTrailer({ indexAt, indexCount, indexChecksum: checksum.digest(), dataBytes: this.#dataBytes })]));
    await this.#file.sync();
    // It is read when somebody goes back in time: what boots from the replica has more use for the memory.
    this.#file.dropCached?.(0, this.#at);
    await this.#close(true);
    await this.#disk.rename(this.#folder.undo(this.#name + unsealedSuffix), this.#folder.undo(this.#name));
    await this.#disk.syncFolder(this.#folder.history);
    return { name: this.#name, sizeBytes: this.#at };
  }

  /** Without `seal` nothing is left. */
  close(): Promise<void> {
    return this.#close(false);
  }

  async #close(isSealed: boolean): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // A write that failed has been reported, or will be by `seal`; the file must only not be closed under it.
    await this.#writing.catch(() => undefined);
    stages.give(this.#stage);
    stages.give(this.#spare);
    await this.#file.close();
    await this.#spill?.close();
    // A full disk needs the space; what cannot be removed now, the next try or recovery removes.
    const useless = [...(this.#spill === null ? [] : [this.#spill.path]), ...(isSealed ? [] : [this.#file.path])];
    for (const path of useless) await removeIfThere(this.#disk, path).catch((error: unknown) => { if (errorCode(error) === null) throw error; });
  }

  #run(run: HistoryRun): void {
    this.#index.push({ ...run, at: this.#at + this.#staged });
    writeHistoryRun(this.#stage, this.#staged, run);
    this.#staged += historyRunBytes;
  }

  async #spillIndex(): Promise<void> {
    this.#spill ??= await this.#disk.open(this.#folder.undo(this.#name + indexSuffix), 'create');
    const { bytes } = this.#index;
    await this.#spill.write(bytes, this.#spilledBytes);
    this.#spilledBytes += bytes.length;
    this.#index.clear();
  }

  async #putSpilled(checksum: Xxh64): Promise<void> {
    for (let at = 0; this.#spill !== null && at < this.#spilledBytes;) {
      const bytes = this.#stage.subarray(0, await this.#spill.read(this.#stage, 0, Math.min(stageBytes, this.#spilledBytes - at), at));
      assert(bytes.length > 0, 'the index is as long as it was written');
      checksum.update(bytes);
      await this.#put(bytes);
      at += bytes.length;
    }
  }

  /** A piece of its own, written at once. */
  async #put(bytes: Buffer): Promise<void> {
    await this.#file.write(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** Starts to write what is staged, once the write before has ended. */
  async #flush(): Promise<void> {
    await this.#writing;
    if (this.#staged === 0) return;
    const full = this.#stage;
    this.#writing = this.#file.write(full.subarray(0, this.#staged), this.#at);
    // Whoever flushes next, or seals, is told of a failure.
    this.#writing.catch(() => undefined);
    this.#at += this.#staged;
    this.#staged = 0;
    this.#stage = this.#spare;
    this.#spare = full;
  }
}
