/**
 * The real disk: node:fs for what Node can do, libc.ts for holes, preallocation and locks. Where a file system cannot punch or
 * preallocate, it does what the seam promises by other means: zeroes are written, space is not reserved.
 */
import { constants, read, write, writev } from 'node:fs';
import { mkdir, open, readdir, rename, rmdir, statfs, unlink, type FileHandle } from 'node:fs/promises';
import type { Disk, DiskFile, DiskLock } from '../disk.ts';
import { syncFolder } from './json-file.ts';
import { barWriters, beginWriteOut, dropFromCache, fallocate, fallocateModes, flockExclusive, isImmutable, readCached, seekData, seekHole, setImmutable } from './libc.ts';

/** One write of zeroes where holes cannot be punched. */
const zeroes = Buffer.alloc(1024 * 1024);
/** IOV_MAX of Linux: the most buffers that one writev takes. */
const gatherMax = 1024;
/** Written and not yet on its way to the disk, bytes: everything written here is synced soon, and a sync then finds little left to wait for. */
const unwrittenBytesMax = 4 * 1024 * 1024;

const flags = {
  read: constants.O_RDONLY,
  readWrite: constants.O_RDWR,
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
} as const;

export const nodeDisk: Disk = {
  async open(path, mode) {
    return new NodeFile(path, await open(path, flags[mode], 0o600));
  },
  list: (folder) => readdir(folder),
  async makeFolder(path) {
    await mkdir(path, { mode: 0o700 });
  },
  rename,
  async remove(path) {
    try {
      await unlink(path);
    } catch (error) {
      // Linux says EISDIR for a folder, POSIX EPERM, as Linux does for what is immutable.
      if (!hasCode(error, 'EISDIR', 'EPERM')) throw error;
      if (hasCode(error, 'EPERM') && await clearImmutable(path)) await unlink(path);
      else await rmdir(path);
    }
  },
  async setImmutable(path, isSet) {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      setImmutable(file.fd, isSet);
      return true;
    } catch (error) {
      if (!hasCode(error, 'EPERM', 'EACCES', 'ENOTTY', 'EOPNOTSUPP', 'ENOTSUP', 'EINVAL', 'ENOSYS')) throw error;
      return false;
    } finally {
      await file.close();
    }
  },
  syncFolder,
  async freeBytes(folder) {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  },
  async lock(path): Promise<DiskLock> {
    const file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    try {
      await flockExclusive(file.fd);
    } catch (error) {
      await file.close();
      throw error;
    }
    return { release: () => file.close() };
  },
};

/** False: it was not immutable. */
async function clearImmutable(path: string): Promise<boolean> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    if (!isImmutable(file.fd)) return false;
    setImmutable(file.fd, false);
    return true;
  } finally {
    await file.close();
  }
}

class NodeFile implements DiskFile {
  readonly path: string;
  readonly #file: FileHandle;
  #unwritten = { start: Infinity, end: 0, bytes: 0 };
  #writingOut: Promise<void> | null = null;
  #dropping: Promise<void> = Promise.resolve();
  #underWay = 0;
  #closing: Promise<void> | null = null;
  #onIdle: () => void = () => undefined;

  constructor(path: string, file: FileHandle) {
    this.path = path;
    this.#file = file;
  }

  async read(into: Buffer, intoAt: number, length: number, at: number): Promise<number> {
    let done = 0;
    while (done < length) {
      const bytesRead = await this.#call((fd, over) => read(fd, into, intoAt + done, length - done, at + done, over));
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  readNow(into: Buffer, length: number, at: number): number | null {
    return readCached(this.#file.fd, into, length, at);
  }

  async write(bytes: Buffer, at: number): Promise<void> {
    let done = 0;
    while (done < bytes.length) {
      const bytesWritten = await this.#call((fd, over) => write(fd, bytes, done, bytes.length - done, at + done, over));
      done += bytesWritten;
    }
    this.#wrote(at, bytes.length);
  }

  async writeMany(buffers: readonly Buffer[], at: number): Promise<void> {
    let position = at;
    for (let first = 0; first < buffers.length; first += gatherMax) {
      const some = buffers.slice(first, first + gatherMax);
      const bytesWritten = await this.#call((fd, over) => writev(fd, some, position, over));
      // A short writev is rare (a full disk, a signal): the rest goes one by one, and then says why.
      let skip = bytesWritten;
      for (const buffer of some) {
        if (skip < buffer.length) await this.write(buffer.subarray(skip), position + skip);
        skip = Math.max(0, skip - buffer.length);
        position += buffer.length;
      }
    }
    this.#wrote(at, position - at);
  }

  dropCached(at: number, length: number): void {
    this.#dropping = this.#dropping.then(() => dropFromCache(this.#file.fd, at, length)).catch(() => undefined);
  }

  barWriters(isBarred: boolean): boolean {
    return barWriters(this.#file.fd, isBarred);
  }

  async sync(): Promise<void> {
    this.#unwritten = { start: Infinity, end: 0, bytes: 0 };
    await this.#file.datasync();
  }

  async sizeBytes(): Promise<number> {
    return (await this.#file.stat()).size;
  }

  async allocatedBytes(): Promise<number> {
    return (await this.#file.stat()).blocks * 512;
  }

  async truncate(sizeBytes: number): Promise<void> {
    await this.#file.truncate(sizeBytes);
  }

  async punch(at: number, length: number): Promise<void> {
    try {
      await fallocate(this.#file.fd, fallocateModes.keepSizePunchHole, at, length);
    } catch (error) {
      if (!hasCode(error, 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS')) throw error;
      const end = Math.min(at + length, await this.sizeBytes());
      for (let position = at; position < end; position += zeroes.length) {
        await this.write(zeroes.subarray(0, Math.min(zeroes.length, end - position)), position);
      }
    }
  }

  async preallocate(sizeBytes: number): Promise<void> {
    try {
      await fallocate(this.#file.fd, fallocateModes.extend, 0, sizeBytes);
    } catch (error) {
      if (!hasCode(error, 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS')) throw error;
      if (await this.sizeBytes() < sizeBytes) await this.truncate(sizeBytes);
    }
  }

  async nextData(at: number): Promise<{ start: number; end: number } | null> {
    let start: number;
    try {
      start = await seekData(this.#file.fd, at);
    } catch (error) {
      if (hasCode(error, 'ENXIO')) return null;
      if (!hasCode(error, 'EINVAL', 'EOPNOTSUPP', 'ENOTSUP')) throw error;
      const sizeBytes = await this.sizeBytes();
      return at < sizeBytes ? { start: at, end: sizeBytes } : null;
    }
    return { start, end: await seekHole(this.#file.fd, start) };
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    // The descriptor's number may soon be another file's.
    if (this.#underWay > 0) await new Promise<void>((resolve) => { this.#onIdle = resolve; });
    await this.#writingOut;
    await this.#dropping;
    await this.#file.close();
  }

  /** By descriptor and with a callback: each call of a FileHandle's own methods makes objects that cost as much as a small write does (measured). */
  #call(begin: (fd: number, over: (error: Error | null, count: number) => void) => void): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#closing !== null) return reject(Object.assign(new Error(`EBADF: ${this.path} is closed`), { code: 'EBADF', errno: -9, syscall: 'read or write' }));
      begin(this.#file.fd, (error, count) => {
        if (error === null) resolve(count);
        else reject(error);
        // Behind that, so that whoever wrote has said so before the file is closed.
        this.#underWay -= 1;
        if (this.#underWay === 0) this.#onIdle();
      });
      this.#underWay += 1;
    });
  }

  /** Never waited for but by `close`: a hint to the kernel. */
  #wrote(at: number, length: number): void {
    const { start, end, bytes } = this.#unwritten;
    this.#unwritten = { start: Math.min(start, at), end: Math.max(end, at + length), bytes: bytes + length };
    if (this.#unwritten.bytes < unwrittenBytesMax || this.#writingOut !== null) return;
    const range = this.#unwritten;
    this.#unwritten = { start: Infinity, end: 0, bytes: 0 };
    const isOver = (): void => { this.#writingOut = null; };
    // What could not be written the next sync says.
    this.#writingOut = beginWriteOut(this.#file.fd, range.start, range.end - range.start).then(isOver, isOver);
  }
}

function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}
