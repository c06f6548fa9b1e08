/**
 * Writes one history file: runs in ascending order of disk and offset, then the index, then the trailer. Written under a name
 * of its own, synced, and only then renamed: a file that bears a history file's name was durable, whole, before it got it, and
 * nothing else does. The replica MUST NOT be touched before `seal` has resolved.
 */
import type { Disk, DiskFile } from '../../host/disk.ts';
import { removeIfThere } from './checked-json.ts';
import { undoFileName, type GroupFolder } from './group-folder.ts';
import { checksumOf, encodeHistoryHeader, encodeHistoryRun, encodeHistoryTrailer, HistoryIndex, type HistoryFacts, type HistoryRun } from './history-format.ts';

/** Ends the name of a file that is being written; recovery removes those. */
export const unsealedSuffix = '.part';
/** Bytes gathered for one write. */
const gatherBytes = 2 * 1024 * 1024;

export class HistoryWriter {
  readonly #disk: Disk;
  readonly #folder: GroupFolder;
  readonly #name: string;
  readonly #file: DiskFile;
  readonly #index = new HistoryIndex();
  #gathered: Buffer[] = [];
  #gatheredBytes = 0;
  #at = 0;
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

  /** `payload` belongs to the file from here on: it must not be changed. */
  async data(disk: number, offset: number, payload: Buffer): Promise<void> {
    const run: HistoryRun = { kind: 'data', disk, offset, length: payload.length };
    this.#index.push({ ...run, at: this.#at + this.#gatheredBytes });
    this.#dataBytes += payload.length;
    await this.#put(encodeHistoryRun(run, payload), payload);
  }

  async zero(disk: number, offset: number, length: number): Promise<void> {
    const run: HistoryRun = { kind: 'zero', disk, offset, length };
    this.#index.push({ ...run, at: this.#at + this.#gatheredBytes });
    await this.#put(encodeHistoryRun(run, null));
  }

  /** Durable under its name when it resolves. Returns the file's name and size. */
  async seal(): Promise<{ readonly name: string; readonly sizeBytes: number }> {
    const indexAt = this.#at + this.#gatheredBytes;
    const { bytes, count } = this.#index;
    await this.#put(bytes, encodeHistoryTrailer({ indexAt, indexCount: count, indexChecksum: checksumOf(bytes), dataBytes: this.#dataBytes }));
    await this.#flush();
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
    await this.#file.close();
  }

  async #put(...buffers: Buffer[]): Promise<void> {
    for (const buffer of buffers) {
      this.#gathered.push(buffer);
      this.#gatheredBytes += buffer.length;
    }
    if (this.#gatheredBytes >= gatherBytes) await this.#flush();
  }

  async #flush(): Promise<void> {
    const gathered = this.#gathered;
    const bytes = this.#gatheredBytes;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    await this.#file.writeMany(gathered, this.#at);
    this.#at += bytes;
  }
}
