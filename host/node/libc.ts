/**
 * The calls of libc that Node lacks: fallocate, lseek for SEEK_DATA and SEEK_HOLE, flock, locks of open files (fcntl). They run on koffi's worker threads,
 * so that a slow file system does not hold up the event loop, but for one that by itself never waits; a failure is an error with `code`, as Node's own are. Linux only.
 */
import type { Socket } from 'node:net';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');
const fallocateCall = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
const lseekCall = libc.func('int64_t lseek(int fd, int64_t offset, int whence)');
const syncFileRangeCall = libc.func('int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)');
const fadviseCall = libc.func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)');
koffi.struct('iovec', { base: 'void *', length: 'size_t' });
const preadCall = libc.func('int64_t preadv2(int fd, iovec *vectors, int count, int64_t offset, int flags)');
const flockCall = libc.func('int flock(int fd, int operation)');
const ioctlCall = libc.func('int ioctl(int fd, unsigned long request, _Inout_ int *value)');
const getsockoptCall = libc.func('int getsockopt(int fd, int level, int name, _Out_ void *value, _Inout_ uint32_t *length)');
const prctlCall = libc.func('int prctl(int option, unsigned long first, unsigned long second, unsigned long third, unsigned long fourth)');
const fcntlCall = libc.func('int fcntl(int fd, int command, _Inout_ void *lock)');

/** linux/falloc.h */
export const fallocateModes = { extend: 0, keepSizePunchHole: 0x01 | 0x02 } as const;
/** unistd.h, lseek(2) */
const whence = { data: 3, hole: 4 } as const;
/** fcntl.h, sync_file_range(2): SYNC_FILE_RANGE_WRITE */
const startWriting = 2;
/** fcntl.h: POSIX_FADV_DONTNEED */
const willNotNeed = 4;
/** linux/fs.h: RWF_NOWAIT */
const withoutWaiting = 8;
/** sys/file.h: LOCK_EX | LOCK_NB */
const lockExclusiveNow = 2 | 4;

/** fcntl.h: F_OFD_GETLK, F_OFD_SETLK; F_RDLCK, F_WRLCK, F_UNLCK */
const lockCommands = { ask: 36, set: 37 } as const;
const lockKinds = { shared: 0, exclusive: 1, none: 2 } as const;
/** As QEMU locks images (block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE): a byte for each permission that is used, and one for each that is not shared. */
const lockBytes = { writes: 101, sharesNoWriting: 201 } as const;

/** linux/fs.h: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS (as on 64-bit Linux), FS_IMMUTABLE_FL */
const fileFlags = { get: 0x8008_6601, set: 0x4008_6602, immutable: 0x10 } as const;
/** linux/prctl.h: PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER; linux/capability.h */
const ambient = { prctl: 47, lower: 3 } as const;
export const capabilities = { linuxImmutable: 9 } as const;
/** asm-generic/socket.h: SOL_SOCKET, SO_PEERCRED; struct ucred is pid, uid and gid, 32 bits each. */
const peerCredentials = { level: 1, name: 17, bytes: 12 } as const;

const errnoNames = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));

function call(name: string, func: ReturnType<typeof libc.func>, ...args: readonly number[]): Promise<number> {
  return new Promise((resolve, reject) => {
    func.async(...args, (error: Error | null, result: number) => {
      if (error !== null) return reject(error);
      if (result !== -1) return resolve(result);
      const errno = koffi.errno();
      const code = errno === koffi.os.errno.EAGAIN ? 'EWOULDBLOCK' : errnoNames.get(errno) ?? `errno ${errno}`;
      return reject(Object.assign(new Error(`${code}: ${name}(${args.join(', ')})`), { code, errno: -errno, syscall: name }));
    });
  });
}

export async function fallocate(fd: number, mode: number, offset: number, length: number): Promise<void> {
  await call('fallocate', fallocateCall, fd, mode, offset, length);
}

/** ENXIO when there is none at or after `offset`. */
export function seekData(fd: number, offset: number): Promise<number> {
  return call('lseek', lseekCall, fd, offset, whence.data);
}

export function seekHole(fd: number, offset: number): Promise<number> {
  return call('lseek', lseekCall, fd, offset, whence.hole);
}

/** The kernel begins to write out what is dirty in the range. Promises nothing: what fails is said by the next sync (sync_file_range(2), "Warning"). */
export async function beginWriteOut(fd: number, offset: number, length: number): Promise<void> {
  await call('sync_file_range', syncFileRangeCall, fd, offset, length, startWriting);
}

/** Pages of the range that are durable leave the page cache (posix_fadvise(2), POSIX_FADV_DONTNEED). Best effort, and promises nothing. */
export async function dropFromCache(fd: number, offset: number, length: number): Promise<void> {
  await call('posix_fadvise', fadviseCall, fd, offset, length, willNotNeed);
}

/** Bytes read from the page cache, on this thread; null when they are not there, or the file system cannot say (preadv2(2), "RWF_NOWAIT"). */
export function readCached(fd: number, into: Buffer, length: number, offset: number): number | null {
  const read = Number(preadCall(fd, [{ base: into, length }], 1, offset, withoutWaiting));
  return read < 0 ? null : read;
}

/** EWOULDBLOCK when another open file has the lock. */
export async function flockExclusive(fd: number): Promise<void> {
  await call('flock', flockCall, fd, lockExclusiveNow);
}

/**
 * Keeps every program that goes by QEMU's image locks from opening the file for writing, for as long as this descriptor is open, or until it is let go.
 * False: one has it open for writing already, and nothing is kept. Those who read are not kept out.
 */
export function barWriters(fd: number, isBarred: boolean): boolean {
  setLock(fd, isBarred ? lockKinds.shared : lockKinds.none, lockBytes.sharesNoWriting);
  if (!isBarred) return true;
  const asked = lockOf(lockKinds.exclusive, lockBytes.writes);
  if (fcntlCall(fd, lockCommands.ask, asked) === -1) throw failed('fcntl', fd);
  if (asked.readInt16LE(0) === lockKinds.none) return true;
  setLock(fd, lockKinds.none, lockBytes.sharesNoWriting);
  return false;
}

/** Whether the file behind this descriptor has the immutable attribute. Waits for nothing but the inode, which is in memory while it is open. */
export function isImmutable(fd: number): boolean {
  return (flagsOf(fd) & fileFlags.immutable) !== 0;
}

/** ioctl_iflags(2). EPERM without CAP_LINUX_IMMUTABLE, ENOTTY or EOPNOTSUPP where the file system has none. */
export function setImmutable(fd: number, isSet: boolean): void {
  const flags = flagsOf(fd);
  const wanted = isSet ? flags | fileFlags.immutable : flags & ~fileFlags.immutable;
  if (wanted !== flags && ioctlCall(fd, fileFlags.set, [wanted]) === -1) throw failed('ioctl', fd);
}

function flagsOf(fd: number): number {
  const flags = [0];
  if (ioctlCall(fd, fileFlags.get, flags) === -1) throw failed('ioctl', fd);
  return flags[0]!;
}

/** Programs that this thread starts from now on go without the capability, which a service manager may have given as ambient; this process keeps it (capabilities(7)). */
export function keepFromChildren(capability: number): void {
  if (prctlCall(ambient.prctl, ambient.lower, capability, 0, 0) === -1) throw failed('prctl', capability);
}

/** Who connected to this unix socket, or listens at its other end, as the kernel noted it then (unix(7), SO_PEERCRED). Null: it is closed. */
export function peerOfSocket(socket: Socket): { readonly pid: number; readonly uid: number } | null {
  const { fd = -1 } = (socket as unknown as { _handle?: { fd?: number } | null })._handle ?? {};
  if (fd < 0) return null;
  const found = Buffer.alloc(peerCredentials.bytes);
  if (getsockoptCall(fd, peerCredentials.level, peerCredentials.name, found, [found.length]) === -1) throw failed('getsockopt', fd);
  return { pid: found.readInt32LE(0), uid: found.readUInt32LE(4) };
}

function setLock(fd: number, kind: number, at: number): void {
  if (fcntlCall(fd, lockCommands.set, lockOf(kind, at)) === -1) throw failed('fcntl', fd);
}

/** struct flock: l_type, l_whence, l_start, l_len, l_pid, in the layout of 64-bit Linux. */
function lockOf(kind: number, at: number): Buffer {
  const lock = Buffer.alloc(32);
  lock.writeInt16LE(kind, 0);
  lock.writeBigInt64LE(BigInt(at), 8);
  lock.writeBigInt64LE(1n, 16);
  return lock;
}

function failed(name: string, fd: number): Error {
  const errno = koffi.errno();
  const code = errnoNames.get(errno) ?? `errno ${errno}`;
  return Object.assign(new Error(`${code}: ${name}(${fd})`), { code, errno: -errno, syscall: name });
}
