/**
 * The spool: the folder in which delta images and write logs lie while QEMU writes them and the stream reads them. Its budget and
 * the space that must stay free bound it; each file takes its whole space before QEMU hears of it, and never grows. An image is
 * unlinked as soon as QEMU has let go of it, so that a daemon that dies leaves none behind that it had already; a log stays, for
 * the next life to go on with.
 */
import { constants as fsConstants } from 'node:fs';
import { chmod, mkdir, open, readdir, rm, stat, statfs, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import koffi from 'koffi';
import { Fault } from '../../journal/fault.ts';

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
const logSuffix = '.log';

/** What stands in a file before QEMU sees it. */
export interface SpoolContent { readonly capBytes: number; readonly pieces: readonly { readonly at: number; readonly bytes: Buffer }[] }

interface Owner { readonly uid: number; readonly gid: number }

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

  /** An empty image in a file of its own, all its space taken. `owner`: who QEMU runs as. Fault SPOOL_FULL. */
  createImage(name: string, content: SpoolContent, owner: Owner): Promise<SpoolFile> {
    return this.#create(`${name}${imageSuffix}`, content, owner);
  }

  /** As {@link createImage}, for an empty write log. */
  createLog(name: string, capBytes: number, owner: Owner): Promise<SpoolFile> {
    return this.#create(`${name}${logSuffix}`, { capBytes, pieces: [] }, owner);
  }

  /** A log of an earlier life, as it is; it counts from now on. Null when it is not there, or not as long as it was made. */
  async adoptLog(name: string, capBytes: number): Promise<SpoolFile | null> {
    const path = join(this.#options.folder, `${this.#prefix}${name}${logSuffix}`);
    const handle = await open(path, fsConstants.O_RDONLY).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    });
    if (handle === null) return null;
    if ((await handle.stat()).size !== capBytes) {
      await handle.close();
      return null;
    }
    this.#take(capBytes);
    return new SpoolFile(path, handle, capBytes, () => this.#take(-capBytes));
  }

  async #create(name: string, { capBytes, pieces }: SpoolContent, owner: Owner): Promise<SpoolFile> {
    await this.#makeFolder();
    const path = join(this.#options.folder, `${this.#prefix}${name}`);
    // Taken in the tick of the check: another guest may have asked for room at the same time.
    if (this.#tally.usedBytes + capBytes > this.#options.budgetBytes) {
      throw new Fault('SPOOL_FULL', `the spool has ${this.#options.budgetBytes - this.#tally.usedBytes} bytes left, ${capBytes} are needed`, { capBytes });
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
      for (const { at, bytes } of pieces) await handle.write(bytes, 0, bytes.length, at);
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

  /** Removes the images that an earlier life left. Only once QEMU has let go of them. */
  sweepImages(): Promise<void> {
    return this.#sweep(imageSuffix, new Set());
  }

  /** Removes the logs that an earlier life left, but for those of these names. Only once QEMU has let go of them. */
  sweepLogs(kept: ReadonlySet<string>): Promise<void> {
    return this.#sweep(logSuffix, kept);
  }

  async #sweep(suffix: string, kept: ReadonlySet<string>): Promise<void> {
    await this.#makeFolder();
    for (const name of await readdir(this.#options.folder)) {
      if (!name.startsWith(this.#prefix) || !name.endsWith(suffix)) continue;
      if (!kept.has(name.slice(this.#prefix.length, -suffix.length))) await rm(join(this.#options.folder, name), { force: true });
    }
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
  #readers = 0;
  #isCloseDue = false;

  constructor(path: string, handle: FileHandle, capBytes: number, released: () => void) {
    this.path = path;
    this.#handle = handle;
    this.capBytes = capBytes;
    this.#released = released;
  }

  get sizeBytes(): number { return this.capBytes; }

  /** False where the file system could promise nothing. */
  async hasAllSpace(): Promise<boolean> {
    return (await this.#handle.stat()).blocks * 512 >= this.capBytes;
  }

  /** All of [at, at + length), or DELTA_BROKEN: the file is as long as its cap. */
  async read(into: Buffer, intoAt: number, length: number, at: number): Promise<void> {
    let done = 0;
    while (done < length) {
      const { bytesRead } = await this.#handle.read(into, intoAt + done, length - done, at + done);
      if (bytesRead === 0) throw new Fault('DELTA_BROKEN', `the file ${this.path} ends at ${at + done}`, { path: this.path });
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
    await this.close();
  }

  /** Somebody goes on reading, also from a file that is removed meanwhile. The returned call ends that. */
  retain(): () => Promise<void> {
    this.#readers += 1;
    let isOver = false;
    return async () => {
      if (isOver) return;
      isOver = true;
      this.#readers -= 1;
      if (this.#isCloseDue) await this.close();
    };
  }

  /** Lets go of it, once nobody reads it; its name stays. */
  async close(): Promise<void> {
    this.#isCloseDue = true;
    if (!this.#isOpen || this.#readers > 0) return;
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
  if (blocks * 512 + bavail * bsize < sizeBytes) throw new Fault('SPOOL_FULL', `no space for a file of ${sizeBytes} bytes at ${path}`, { path, sizeBytes });
}

function asFull(error: unknown, path: string): unknown {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOSPC' || code === 'EDQUOT' ? new Fault('SPOOL_FULL', `no space for a file at ${path}`, { path }, error) : error;
}
