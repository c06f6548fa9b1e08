/**
 * Plays the kernel's dm-log-writes target on a device and a log that are files, as its source describes it: a write goes to the device
 * at once and into the log with the next flush; the log is written by a thread of its own, later; a superblock follows a mark. Not a suite.
 */
import { open, readFile, truncate, writeFile, type FileHandle } from 'node:fs/promises';
import { flag, madeEntry, madeSuperblock, type MadeEntry } from './written-log.ts';

export class LogWritesKernel {
  readonly devicePath: string;
  readonly logPath: string;
  /** What the device held, as it was completed, at each mark. */
  readonly atMark: Buffer[] = [];
  /** A log that is full: nothing is logged any more. */
  isFull = false;
  readonly #device: FileHandle;
  readonly #log: FileHandle;
  readonly #state: Buffer;
  readonly #old: Buffer;
  #unflushed: MadeEntry[] = [];
  #logged = 0;
  #at = 512;
  #thread: Promise<void> = Promise.resolve();

  private constructor(devicePath: string, logPath: string, device: FileHandle, log: FileHandle, state: Buffer, old: Buffer) {
    this.devicePath = devicePath;
    this.logPath = logPath;
    this.#device = device;
    this.#log = log;
    this.#state = state;
    this.#old = old;
  }

  /** On paths that are there already; `old`: what the log's device held before, which shows wherever nothing was written yet. */
  static async start(devicePath: string, logPath: string, old = Buffer.alloc(0)): Promise<LogWritesKernel> {
    return new LogWritesKernel(devicePath, logPath, await open(devicePath, 'r+'), await open(logPath, 'r+'), await readFile(devicePath), old);
  }

  static async onFiles(folder: string, deviceBytes: number): Promise<LogWritesKernel> {
    const [device, log] = [`${folder}/device`, `${folder}/log`];
    await writeFile(device, '');
    await truncate(device, deviceBytes);
    await writeFile(log, Buffer.alloc(65536));
    return LogWritesKernel.start(device, log);
  }

  async write(sector: number, data: Buffer, flags = 0): Promise<void> {
    await this.#device.write(data, 0, data.length, sector * 512);
    data.copy(this.#state, sector * 512);
    if ((flags & flag.FUA) === 0) this.#unflushed.push({ sector, data, flags });
    else this.#put([{ sector, data, flags }]);
  }

  discard(sector: number, sectors: number): void {
    this.#unflushed.push({ sector, sectors, flags: flag.DISCARD });
  }

  flush(): void {
    const all = this.#unflushed;
    this.#unflushed = [];
    this.#put([...all, { flags: flag.FLUSH }]);
  }

  /** As `dmsetup message` does, which comes back before the mark is in the log; the flush before it was the capture's. */
  mark(text: string): Promise<void> {
    if (!this.isFull) this.atMark.push(Buffer.from(this.#state));
    this.flush();
    this.#put([{ mark: text }]);
    return Promise.resolve();
  }

  async settled(): Promise<void> {
    await this.#thread;
  }

  async close(): Promise<void> {
    await this.settled();
    await this.#device.close();
    await this.#log.close();
  }

  #put(entries: readonly MadeEntry[]): void {
    if (this.isFull) return;
    this.#thread = this.#thread.then(async () => {
      for (const entry of entries) {
        const bytes = madeEntry(entry, 512);
        const at = this.#at;
        this.#at += bytes.length;
        this.#logged += 1;
        // Headers are there last, so that the reader meets holes as well.
        const behind = Buffer.alloc(4096);
        this.#old.copy(behind, 0, Math.min(this.#at, this.#old.length));
        await this.#log.write(behind, 0, behind.length, this.#at);
        if (bytes.length > 512) await this.#log.write(bytes, 512, bytes.length - 512, at + 512);
        await this.#log.write(bytes, 0, 512, at);
        if (entry.mark !== undefined || ((entry.flags ?? 0) & flag.FUA) !== 0) await this.#log.write(madeSuperblock(this.#logged, 512), 0, 512, 0);
      }
    });
  }
}
