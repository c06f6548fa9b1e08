/**
 * The spool: the folder in which delta images and write logs lie while QEMU writes them and the stream reads them. Its budget and
 * the space that must stay free bound it; each file takes its whole space before QEMU hears of it, and never grows. An image that
 * went its way is kept as a spare for the guest's next one: a file system takes its time to find space, and memory for what is
 * written into it (measured: QEMU copied 200 MiB in 90 ms instead of 650). Spares give way to whatever needs their space. What a
 * dead daemon leaves the next life sweeps, but for the logs, which it goes on with.
 */
import assert from 'node:assert/strict';
import { constants as fsConstants } from 'node:fs';
import { chmod, mkdir, open, readdir, rm, stat, statfs, type FileHandle } from 'node:fs/promises';
import { basename, join } from 'node:path';
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

/** A used image, open. QEMU has let go of it. */
interface Spare { readonly path: string; readonly handle: FileHandle; readonly sizeBytes: number }

/** What all files take together. */
export class SpoolTally {
  usedBytes = 0;
  /** Of all guests, the oldest first; not in `usedBytes`. */
  readonly #spares = new Set<Spare>();

  get spareBytes(): number { return [...this.#spares].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0); }

  keep(spare: Spare): void {
    this.#spares.add(spare);
  }

  /** False when it had to give way meanwhile. */
  take(spare: Spare): boolean {
    return this.#spares.delete(spare);
  }

  async drop(spare: Spare): Promise<void> {
    if (this.#spares.delete(spare)) await letGo(spare);
  }

  /** Until what is asked for fits, or none is left. */
  async giveWay(isEnough: () => boolean | Promise<boolean>): Promise<void> {
    for (const spare of this.#spares) {
      if (await isEnough()) return;
      await this.drop(spare);
    }
  }
}

/** Its space is free then. A file that the system does not let go of is in nobody's way: the next sweep finds it. */
async function letGo({ path, handle }: Spare): Promise<void> {
  for (const act of [() => rm(path, { force: true }), () => handle.close()]) {
    try {
      await act();
    } catch (error) {
      if (typeof (error as NodeJS.ErrnoException).syscall !== 'string') throw error;
    }
  }
}

/** All of it: a full file system may take a part without an error. */
async function writeAll(handle: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, at + done);
    if (bytesWritten === 0) throw Object.assign(new Error('ENOSPC: nothing was written'), { code: 'ENOSPC', syscall: 'write' });
    done += bytesWritten;
  }
}

/** All guests' spares together take at most this share of the budget. */
const spareShare = 1 / 4;
/** A spare that was much too large for this many images in a row goes. */
const oversizedMax = 60;
const oversizedTimes = 4;

const imageSuffix = '.delta';
const logSuffix = '.log';

/** What stands in a file before QEMU sees it. */
export interface SpoolContent {
  readonly capBytes: number;
  readonly pieces: readonly { readonly at: number; readonly bytes: Buffer }[];
  /** With it a used file will do: so much of its beginning is zeroes but for the pieces, and what follows does not matter. */
  readonly blankBytes?: number;
  /** Of other images that are made for the same cut after this one: no used file may take their room. */
  readonly followedBytes?: number;
}

interface Owner { readonly uid: number; readonly gid: number }

const blank = Buffer.alloc(1024 * 1024);

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
  #spares: Spare[] = [];
  #oversized = 0;
  /** Nothing is kept for a guest that nobody captures. */
  #isAtRest = true;

  constructor(options: SpoolOptions, prefix: string) {
    this.#options = options;
    this.#tally = options.tally ?? new SpoolTally();
    this.#prefix = prefix;
  }

  get usedBytes(): number { return this.#usedBytes; }
  get budgetBytes(): number { return this.#options.budgetBytes; }

  /** Bytes that new files may take now; may be negative. Spares go when what must stay free is not. */
  async roomBytes(): Promise<number> {
    await this.#makeFolder();
    await this.#makeWay(0);
    const { bavail, bsize } = await statfs(this.#options.folder);
    return Math.min(this.#options.budgetBytes - this.#tally.usedBytes, bavail * bsize + this.#tally.spareBytes - this.#options.freeBytesMin);
  }

  /** An empty image in a file of its own, all its space taken; the file may be longer. `owner`: who QEMU runs as. Fault SPOOL_FULL. */
  async createImage(name: string, content: SpoolContent, owner: Owner): Promise<SpoolFile> {
    this.#isAtRest = false;
    const spare = content.blankBytes === undefined ? undefined : await this.#takeSpare(content.capBytes, content.followedBytes ?? 0);
    return spare === undefined ? this.#create(`${name}${imageSuffix}`, content, owner) : this.#reuse(spare, content, owner);
  }

  /** Nothing is captured until the next image: the spares go. */
  async rest(): Promise<void> {
    this.#isAtRest = true;
    for (const spare of this.#spares.splice(0)) await this.#tally.drop(spare);
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
    return this.#file({ path, handle, sizeBytes: capBytes });
  }

  async #create(name: string, { capBytes, pieces }: SpoolContent, owner: Owner): Promise<SpoolFile> {
    await this.#makeFolder();
    const path = join(this.#options.folder, `${this.#prefix}${name}`);
    // Taken in the tick of the check: another guest may have asked for room at the same time.
    if (this.#tally.usedBytes + capBytes > this.#options.budgetBytes) {
      throw new Fault('SPOOL_FULL', `the spool has ${this.#options.budgetBytes - this.#tally.usedBytes} bytes left, ${capBytes} are needed`, { capBytes });
    }
    this.#take(capBytes);
    await this.#makeWay(capBytes).catch((error: unknown) => {
      this.#take(-capBytes);
      throw error;
    });
    const handle = await open(path, fsConstants.O_CREAT | fsConstants.O_EXCL | fsConstants.O_RDWR, 0o600).catch((error: unknown) => {
      this.#take(-capBytes);
      throw error;
    });
    const file = this.#file({ path, handle, sizeBytes: capBytes });
    try {
      if (process.getuid?.() === 0) await handle.chown(owner.uid, owner.gid);
      await preallocate(handle, capBytes, path);
      for (const { at, bytes } of pieces) await writeAll(handle, bytes, at);
      return file;
    } catch (error) {
      await file.remove();
      throw asFull(error, path);
    }
  }

  async #reuse(spare: Spare, { capBytes, pieces, blankBytes = 0 }: SpoolContent, owner: Owner): Promise<SpoolFile> {
    const { path, handle } = spare;
    const sizeBytes = Math.max(spare.sizeBytes, capBytes);
    const file = this.#file({ path, handle, sizeBytes });
    try {
      if (process.getuid?.() === 0) await handle.chown(owner.uid, owner.gid);
      if (sizeBytes > spare.sizeBytes) {
        await this.#makeWay(sizeBytes - spare.sizeBytes);
        await preallocate(handle, sizeBytes, path);
      }
      for (let at = 0; at < blankBytes; at += blank.length) await writeAll(handle, blank.subarray(0, Math.min(blank.length, blankBytes - at)), at);
      for (const { at, bytes } of pieces) await writeAll(handle, bytes, at);
      return file;
    } catch (error) {
      await file.remove();
      throw asFull(error, path);
    }
  }

  /** The smallest that holds the image, or else the largest; its space counts as used from the same tick on. */
  async #takeSpare(capBytes: number, followedBytes: number): Promise<Spare | undefined> {
    if (this.#spares.length === 0) return undefined;
    const { bavail, bsize } = await statfs(this.#options.folder);
    const fits = this.#spares.toSorted((one, other) => one.sizeBytes - other.sizeBytes);
    const spare = fits.find(({ sizeBytes }) => sizeBytes >= capBytes) ?? fits.at(-1);
    if (spare === undefined) return undefined;
    this.#spares.splice(this.#spares.indexOf(spare), 1);
    this.#oversized = spare.sizeBytes > capBytes * oversizedTimes ? this.#oversized + 1 : 0;
    const sizeBytes = Math.max(spare.sizeBytes, capBytes);
    const leftBytes = this.#options.budgetBytes - this.#tally.usedBytes - sizeBytes;
    const isTight = sizeBytes > capBytes && followedBytes > Math.min(leftBytes, bavail * bsize - this.#options.freeBytesMin);
    if (this.#oversized > oversizedMax || leftBytes < 0 || isTight) {
      this.#oversized = 0;
      await this.#tally.drop(spare);
      return undefined;
    }
    if (!this.#tally.take(spare)) return undefined;
    this.#take(sizeBytes);
    // Someone may have cleaned the folder.
    const isWhole = await spare.handle.stat().then(({ nlink, size }) => nlink > 0 && size === spare.sizeBytes, () => false);
    if (isWhole) return spare;
    this.#take(-sizeBytes);
    await letGo(spare);
    return undefined;
  }

  #file(spare: Spare): SpoolFile {
    const { path, handle, sizeBytes } = spare;
    return new SpoolFile(path, handle, sizeBytes, { released: () => this.#take(-sizeBytes), keep: () => this.#keep(spare) });
  }

  /** Whether the file, which still counts as used, was kept as a spare. */
  async #keep(spare: Spare): Promise<boolean> {
    const { nlink } = await spare.handle.stat();
    const isRoom = await this.roomBytes() >= 0 && this.#tally.spareBytes + spare.sizeBytes <= this.#options.budgetBytes * spareShare;
    if (this.#isAtRest || nlink === 0 || !isRoom) return false;
    this.#tally.keep(spare);
    this.#spares.push(spare);
    return true;
  }

  /** Spares go until what was taken, and `bytes` more of the file system, are there; whether they are is found out by taking them. */
  async #makeWay(bytes: number): Promise<void> {
    const { folder, budgetBytes, freeBytesMin } = this.#options;
    await this.#tally.giveWay(async () => {
      const { bavail, bsize } = await statfs(folder);
      return this.#tally.usedBytes + this.#tally.spareBytes <= budgetBytes && bavail * bsize - freeBytesMin >= bytes;
    });
  }

  #take(bytes: number): void {
    this.#usedBytes += bytes;
    this.#tally.usedBytes += bytes;
  }

  /** Removes the images that an earlier life left. Only once QEMU has let go of them. */
  sweepImages(): Promise<void> {
    const kept = this.#spares.map(({ path }) => basename(path).slice(this.#prefix.length, -imageSuffix.length));
    return this.#sweep(imageSuffix, new Set(kept));
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

interface SpoolFileEnds {
  /** Its space is free again. */
  released(): void;
  keep(): Promise<boolean>;
}

export class SpoolFile {
  readonly path: string;
  readonly capBytes: number;
  readonly #handle: FileHandle;
  readonly #ends: SpoolFileEnds;
  #isLinked = true;
  #isOpen = true;
  #readers = 0;
  #isCloseDue = false;

  constructor(path: string, handle: FileHandle, capBytes: number, ends: SpoolFileEnds) {
    this.path = path;
    this.#handle = handle;
    this.capBytes = capBytes;
    this.#ends = ends;
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

  /** Takes the name away at once; whoever reads it goes on. */
  async remove(): Promise<void> {
    if (this.#isLinked) {
      this.#isLinked = false;
      // Someone may have cleaned the folder: what counts is that it is gone.
      await rm(this.path, { force: true });
    }
    await this.close();
  }

  /** As {@link remove}, of a file that QEMU has let go of and nobody reads: it may be used again. */
  async recycle(): Promise<void> {
    assert(this.#readers === 0);
    // Where nothing can be said of the folder, nothing is kept in it.
    if (!this.#isOpen || !this.#isLinked || !await this.#ends.keep().catch(() => false)) return this.remove();
    this.#isOpen = false;
    // The name is the spare's, and may be the next file's.
    this.#isLinked = false;
    this.#ends.released();
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
    this.#ends.released();
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
