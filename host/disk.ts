/**
 * Files as a seam (the target's store sees no other disk). The real one is host/node/disk.ts; the simulated one of
 * the tests loses what was not synced, in any subset of sectors, and can fail or stop at any operation.
 *
 * Durability: file content is durable after `sync` of the file; a file's being there, or its new name, after
 * `syncFolder` of its folder. Errors are Node's (`error.code`: ENOSPC, EIO, ENOENT, …).
 */
export interface Disk {
  /** `create`: fails with EEXIST if there. `readWrite` and `read` fail with ENOENT if not there. */
  open(path: string, mode: 'read' | 'readWrite' | 'create'): Promise<DiskFile>;
  /** Names in a folder, unsorted. ENOENT if the folder is not there. */
  list(folder: string): Promise<string[]>;
  makeFolder(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** A file, or an empty folder. Also one that is immutable. */
  remove(path: string): Promise<void>;
  /** Sets or clears the attribute with which nobody can change, rename or remove a file (chattr(1), "i"). False: the file system or this user's rights do not allow it, and nothing has changed. Not every disk can. */
  setImmutable?(path: string, isImmutable: boolean): Promise<boolean>;
  syncFolder(path: string): Promise<void>;
  /** Bytes free for us on the file system of this folder. */
  freeBytes(folder: string): Promise<number>;
  /** Takes the exclusive lock of this path (a file, made if needed). EWOULDBLOCK when someone has it. The end of the process releases it, however it ends. */
  lock(path: string): Promise<DiskLock>;
}

export interface DiskLock {
  release(): Promise<void>;
}

export interface DiskFile {
  readonly path: string;
  /** Bytes read; fewer than `length` only at the end of the file. */
  read(into: Buffer, intoAt: number, length: number, at: number): Promise<number>;
  /** As `read`, at once, when that takes no waiting for a disk; null when it might. Not every disk can say. */
  readNow?(into: Buffer, length: number, at: number): number | null;
  /** All of `bytes` at `at`, or an error (then any part may be there). */
  write(bytes: Buffer, at: number): Promise<void>;
  /** As `write` of all of them back to back, without putting them together first. */
  writeMany(buffers: readonly Buffer[], at: number): Promise<void>;
  /** fdatasync. After it failed once, what was written since the last success counts as lost. */
  sync(): Promise<void>;
  sizeBytes(): Promise<number>;
  /** Bytes of space that the file takes: less than its size where it has holes. */
  allocatedBytes(): Promise<number>;
  /** Sets the length: cut off, or grown with zeroes. */
  truncate(sizeBytes: number): Promise<void>;
  /** Reads as zero afterwards and takes no space (FALLOC_FL_PUNCH_HOLE | KEEP_SIZE). Writes zeroes where the file system cannot. */
  punch(at: number, length: number): Promise<void>;
  /** Space for [0, sizeBytes), length grown to it, new bytes zero. Best effort where the file system cannot. ENOSPC is thrown. */
  preallocate(sizeBytes: number): Promise<void>;
  /** Next range with data at or after `at` (SEEK_DATA/SEEK_HOLE), or null when there is none. */
  nextData(at: number): Promise<{ start: number; end: number } | null>;
  /** What of the range is durable need not stay in memory: nothing will read it soon. A hint, never waited for. Not every disk has a memory. */
  dropCached?(at: number, length: number): void;
  /** Keeps programs that go by QEMU's image locks from opening it for writing, while it is open here; false: one has it open so already. Not every disk can. */
  barWriters?(isBarred: boolean): boolean;
  close(): Promise<void>;
}
