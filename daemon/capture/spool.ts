/**
 * The spool: the folder in which delta images lie while QEMU writes them and the stream reads them. Its budget and the space
 * that must stay free bound it; each image takes its whole space before QEMU hears of it, and never grows. An image is
 * unlinked as soon as QEMU has let go of it, so that a daemon that dies leaves none behind that it had already.
 */
import { constants as fsConstants } from 'node:fs';
import { chmod, mkdir, open, readdir, rm, stat, statfs, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import koffi from 'koffi';
import { Fault } from '../../journal/fault.ts';
import type { DeltaImageHead } from './delta-image.ts';

export interface SpoolOptions {
  readonly folder: string;
  /** Of all images together. */
  readonly budgetBytes: number;
  /** What must stay free on the file system, as the guests' own images may grow there. */
  readonly freeBytesMin: number;
  /** Shared by the spools of all guests, as the budget is theirs together. Absent: this spool has the budget to itself. */
  readonly tally?: SpoolTally;
}

/** What all images take together. */
export class SpoolTally { usedBytes = 0 }

const imageSuffix = '.delta';

const libc = koffi.load(null);
const fallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t len)') as unknown as {
  async(fd: number, mode: number, offset: number, length: number, done: (error: Error | null, result: number) => void): void;
};

export class Spool {
  readonly #options: SpoolOptions;
  /** Files begin with this, so that groups may share a folder. */
  readonly #prefix: string;
  readonly #tally: SpoolTally;
  #usedBytes = 0;

  constructor(options: SpoolOptions, prefix: string) {
    this.#options = options;
    this.#tally = options.tally ?? new SpoolTally();
    this.#prefix = prefix;
  }

  get usedBytes(): number { return this.#usedBytes; }
  get budgetBytes(): number { return this.#options.budgetBytes; }

  /** Bytes that new images may take now; may be negative. */
  async roomBytes(): Promise<number> {
    await this.#makeFolder();
    const { bavail, bsize } = await statfs(this.#options.folder);
    return Math.min(this.#options.budgetBytes - this.#tally.usedBytes, bavail * bsize - this.#options.freeBytesMin);
  }

  /** The empty image in a file of its own, all its space taken. `owner`: who QEMU runs as. */
  async create(name: string, head: DeltaImageHead, owner: { readonly uid: number; readonly gid: number }): Promise<SpoolFile> {
    await this.#makeFolder();
    const path = join(this.#options.folder, `${this.#prefix}${name}${imageSuffix}`);
    const { capBytes } = head.layout;
    // Taken in the tick of the check: another guest may have asked for room at the same time.
    if (this.#tally.usedBytes + capBytes > this.#options.budgetBytes) {
      throw new Fault('SPOOL_FULL', `the spool has ${this.#options.budgetBytes - this.#tally.usedBytes} bytes left, the delta needs ${capBytes}`, { capBytes });
    }
    this.#take(capBytes);
    const handle = await open(path, fsConstants.O_CREAT | fsConstants.O_EXCL | fsConstants.O_RDWR, 0o600).catch((error: unknown) => {
      this.#take(-capBytes);
      throw error;
    });
    const file = new SpoolFile(path, handle, capBytes, () => this.#take(-capBytes));
    try {
      if (process.getuid?.() === 0) await handle.chown(owner.uid, owner.gid);
      await preallocate(handle, capBytes, path);
      for (const { at, bytes } of head.pieces) await handle.write(bytes, 0, bytes.length, at);
      return file;
    } catch (error) {
      await file.remove();
      throw asFull(error, path);
    }
  }

  #take(bytes: number): void {
    this.#usedBytes += bytes;
    this.#tally.usedBytes += bytes;
  }

  /** Removes what an earlier life left. Only once QEMU has let go of it. */
  async sweep(): Promise<number> {
    await this.#makeFolder();
    let removed = 0;
    for (const name of await readdir(this.#options.folder)) {
      if (!name.startsWith(this.#prefix) || !name.endsWith(imageSuffix)) continue;
      await rm(join(this.#options.folder, name), { force: true });
      removed += 1;
    }
    return removed;
  }

  /** QEMU may run as another user: it opens its image by name, and lists nothing. */
  async #makeFolder(): Promise<void> {
    if (await mkdir(this.#options.folder, { recursive: true, mode: 0o711 }) !== undefined) await chmod(this.#options.folder, 0o711);
  }
}

export class SpoolFile {
  readonly path: string;
  readonly capBytes: number;
  readonly #handle: FileHandle;
  readonly #released: () => void;
  #isLinked = true;
  #isOpen = true;

  constructor(path: string, handle: FileHandle, capBytes: number, released: () => void) {
    this.path = path;
    this.#handle = handle;
    this.capBytes = capBytes;
    this.#released = released;
  }

  /** All of [at, at + length), or DELTA_BROKEN: the file is as long as its cap. */
  async read(into: Buffer, intoAt: number, length: number, at: number): Promise<void> {
    let done = 0;
    while (done < length) {
      const { bytesRead } = await this.#handle.read(into, intoAt + done, length - done, at + done);
      if (bytesRead === 0) throw new Fault('DELTA_BROKEN', `the delta image ${this.path} ends at ${at + done}`, { path: this.path });
      done += bytesRead;
    }
  }

  /** Takes the name away; what is open stays readable. */
  async unlink(): Promise<void> {
    if (!this.#isLinked) return;
    this.#isLinked = false;
    // Someone may have cleaned the folder: what counts is that it is gone.
    await rm(this.path, { force: true });
  }

  async remove(): Promise<void> {
    await this.unlink();
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#handle.close();
    this.#released();
  }
}

/** Space for the whole file; a file system that cannot promise it gets a sparse file, which the quorum makes safe all the same. */
async function preallocate(handle: FileHandle, sizeBytes: number, path: string): Promise<void> {
  const result = await new Promise<number>((resolve, reject) => {
    fallocate.async(handle.fd, 0, 0, sizeBytes, (error, value) => { if (error === null) resolve(value); else reject(error); });
  });
  await handle.truncate(sizeBytes);
  if (result === 0) return;
  // The errno of a call on another thread is not to be had; whether there is space is asked directly.
  const [{ blocks }, { bavail, bsize }] = await Promise.all([stat(path), statfs(path)]);
  if (blocks * 512 + bavail * bsize < sizeBytes) throw new Fault('SPOOL_FULL', `no space for a delta image of ${sizeBytes} bytes at ${path}`, { path, sizeBytes });
}

function asFull(error: unknown, path: string): unknown {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOSPC' || code === 'EDQUOT' ? new Fault('SPOOL_FULL', `no space for a delta image at ${path}`, { path }, error) : error;
}
