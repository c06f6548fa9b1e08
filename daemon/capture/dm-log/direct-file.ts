/**
 * Reads of a block device as it is: past the page cache, which does not see what the kernel's own targets and file systems write to
 * the device underneath. Of a regular file, which stands for one in trials, reads go the usual way. Never writes.
 */
import { constants } from 'node:fs';
import { open, readFile, type FileHandle } from 'node:fs/promises';
import type { LogBytes } from './log-walk.ts';

/** What O_DIRECT asks of places, lengths and memory, on any device. */
const alignBytes = 4096;
/** Read at once. */
const bounceBytes = 1024 * 1024;

export class DirectFile implements LogBytes {
  readonly path: string;
  readonly #file: FileHandle;
  /** `/sys/dev/block/MAJOR:MINOR`; null for a regular file. */
  readonly #system: string | null;
  readonly #bounce = pageAligned(bounceBytes);
  /** One memory for all reads. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(path: string, file: FileHandle, system: string | null) {
    this.path = path;
    this.#file = file;
    this.#system = system;
  }

  static async open(path: string): Promise<DirectFile> {
    const plain = await open(path, constants.O_RDONLY);
    const facts = await plain.stat();
    if (!facts.isBlockDevice()) return new DirectFile(path, plain, null);
    await plain.close();
    const major = ((facts.rdev >>> 8) & 0xfff);
    const minor = (facts.rdev & 0xff) | ((facts.rdev >>> 12) & 0xfff00);
    return new DirectFile(path, await open(path, constants.O_RDONLY | constants.O_DIRECT), `/sys/dev/block/${major}:${minor}`);
  }

  async sizeBytes(): Promise<number> {
    if (this.#system === null) return (await this.#file.stat()).size;
    return Number(await readFile(`${this.#system}/size`, 'utf8')) * 512;
  }

  /** Of a device: requests to write that are under way. */
  async writesUnderWay(): Promise<number> {
    if (this.#system === null) return 0;
    const [, writes] = (await readFile(`${this.#system}/inflight`, 'utf8')).trim().split(/\s+/).map(Number);
    return writes ?? 0;
  }

  /** Has the device empty its cache: what was written and completed before is in no cache after. */
  flush(): Promise<void> {
    return this.#file.datasync();
  }

  async read(into: Buffer, at: number): Promise<number> {
    if (this.#system === null) return this.#readPlain(into, at);
    const read = this.#turn.then(() => this.#readDirect(into, at));
    this.#turn = read.catch(() => undefined);
    return read;
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  async #readPlain(into: Buffer, at: number): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const { bytesRead } = await this.#file.read(into, done, into.length - done, at + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  async #readDirect(into: Buffer, at: number): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const skip = (at + done) % alignBytes;
      const length = Math.min(bounceBytes, Math.ceil((skip + into.length - done) / alignBytes) * alignBytes);
      const { bytesRead } = await this.#file.read(this.#bounce, 0, length, at + done - skip);
      if (bytesRead <= skip) break;
      const copied = Math.min(bytesRead - skip, into.length - done);
      this.#bounce.copy(into, done, skip, skip + copied);
      done += copied;
      if (bytesRead < length) break;
    }
    return done;
  }
}

/** Memory for O_DIRECT: of all that Node hands out, only WebAssembly's begins at a page (its types come with a browser's, which this program is not). */
function pageAligned(bytes: number): Buffer {
  const { WebAssembly } = globalThis as unknown as { readonly WebAssembly: { readonly Memory: new (size: { readonly initial: number }) => { readonly buffer: ArrayBuffer } } };
  return Buffer.from(new WebAssembly.Memory({ initial: bytes / 65536 }).buffer);
}
