/**
 * Writes one history file: runs in ascending order of disk and offset, then the index, then the trailer. Written under a name
 * of its own, synced, and only then renamed: a file that bears a history file's name was durable, whole, before it got it, and
 * nothing else does. The replica MUST NOT be touched before `seal` has resolved.
 */
import type { Disk, DiskFile } from '../../host/disk.ts';
import { removeIfThere } from './checked-json.ts';
import { undoFileName, type GroupFolder } from './group-folder.ts';
import { checksumOf, encodeHistoryHeader, encodeHistoryTrailer, HistoryIndex, historyRunBytes, writeHistoryRun, type HistoryFacts, type HistoryRun } from './history-format.ts';

/** Ends the name of a file that is being written; recovery removes those. */
export const unsealedSuffix = '.part';
/** Bytes of one write, and of each of the two buffers: one is filled while the other is written. */
const stageBytes = 2 * 1024 * 1024;

export class HistoryWriter {
  readonly #disk: Disk;
  readonly #folder: GroupFolder;
  readonly #name: string;
  readonly #file: DiskFile;
  readonly #index = new HistoryIndex();
  #stage = Buffer.allocUnsafe(stageBytes);
  #spare = Buffer.allocUnsafe(stageBytes);
  #staged = 0;
  /** Of the stage in the file. */
  #at = 0;
  #writing: Promise<void> = Promise.resolve();
  #dataBytes = 0;
  #isClosed = false;

  private constructor(disk: Disk, folder: GroupFolder, name: string, file: DiskFile) {
    this.#disk = disk;
    this.#folder = folder;
    this.#name = name;
    this.#file = file;
  }

  static async begin(disk: Disk, folder: GroupFolder, facts: HistoryFacts): Promise<HistoryWriter> {
    const name = undoFileName(facts.from, facts.to);
    const aside = folder.undo(name + unsealedSuffix);
    // Of an earlier try that failed before the replica was touched.
    await removeIfThere(disk, aside);
    await removeIfThere(disk, folder.undo(name));
    const writer = new HistoryWriter(disk, folder, name, await disk.open(aside, 'create'));
    await writer.#put(encodeHistoryHeader(facts));
    return writer;
  }

  /** Where to put the bytes of the next run, at most `runBytesMax`; `data` or `zero` comes next. */
  async room(length: number): Promise<Buffer> {
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
    const { bytes, count } = this.#index;
    const indexAt = this.#at + this.#staged;
    await this.#flush();
    await this.#writing;
    await this.#put(Buffer.concat([bytes, encodeHistoryTrailer({ indexAt, indexCount: count, indexChecksum: checksumOf(bytes), dataBytes: this.#dataBytes })]));
    await this.#file.sync();
    await this.close();
    await this.#disk.rename(this.#folder.undo(this.#name + unsealedSuffix), this.#folder.undo(this.#name));
    await this.#disk.syncFolder(this.#folder.history);
    return { name: this.#name, sizeBytes: this.#at };
  }

  /** Without `seal` the file is left to the next try or to recovery. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // A write that failed has been reported, or will be by `seal`; the file must only not be closed under it.
    await this.#writing.catch(() => undefined);
    await this.#file.close();
  }

  #run(run: HistoryRun): void {
    this.#index.push({ ...run, at: this.#at + this.#staged });
    writeHistoryRun(this.#stage, this.#staged, run);
    this.#staged += historyRunBytes;
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
