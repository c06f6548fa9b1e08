/**
 * A disk with a page cache, for the tests of the store. What is written is seen at once and is durable only after `sync`; names
 * only after `syncFolder`. A power cut at the k-th mutating operation keeps any subset of the unsynced 512-byte sectors, lengths
 * and names, drawn from a seed. A failed sync drops what was unsynced as Linux does: it is still read, and never written. Not
 * a file system: paths are keys, folders exist only so far as the store makes them.
 */
import type { Disk, DiskFile, DiskLock } from '../../host/disk.ts';
import { makeDice, type Dice } from './dice.ts';

const sector = 512;

export type Operation = 'open' | 'create' | 'list' | 'read' | 'write' | 'sync' | 'truncate' | 'punch' | 'preallocate' | 'rename' | 'remove' | 'makeFolder' | 'syncFolder';
const mutating: ReadonlySet<Operation> = new Set(['create', 'write', 'sync', 'truncate', 'punch', 'preallocate', 'rename', 'remove', 'makeFolder', 'syncFolder']);

/** Decides on a failure of one operation. `EIO` on a write lands nothing. */
export type Failing = (operation: Operation, path: string) => 'ENOSPC' | 'EIO' | undefined;

interface Content { bytes: Buffer; size: number; /** Sectors that are not holes. */ data: Set<number> }

class Inode {
  readonly isFolder: boolean;
  current: Content = { bytes: Buffer.alloc(0), size: 0, data: new Set() };
  durable: Content = { bytes: Buffer.alloc(0), size: 0, data: new Set() };
  /** Sectors changed since the last sync, and whether the length was. */
  dirty = new Set<number>();
  isSizeDirty = false;

  constructor(isFolder: boolean) {
    this.isFolder = isFolder;
  }
}

type NameChange = { readonly kind: 'add'; readonly path: string; readonly inode: Inode } | { readonly kind: 'remove'; readonly path: string; readonly inode: Inode }
  | { readonly kind: 'rename'; readonly from: string; readonly to: string; readonly inode: Inode };

export class SimulatedDisk implements Disk {
  #names = new Map<string, Inode>();
  #durableNames = new Map<string, Inode>();
  #changes = new Map<string, NameChange[]>();
  #locks = new Set<string>();
  #isOff = false;
  /** Mutating operations so far. */
  operations = 0;
  /** The power is cut at this one. */
  cutAt = Infinity;
  failing: Failing = () => undefined;
  capacityBytes = Infinity;
  readonly log: string[] = [];
  isLogging = false;

  constructor() {
    this.#names.set('/', new Inode(true));
    this.#durableNames.set('/', this.#names.get('/')!);
  }

  get isOff(): boolean { return this.#isOff; }

  /** The process is gone, the machine is not: the same disk, opened anew. */
  afterKill(): SimulatedDisk {
    const next = this.#next();
    this.#isOff = true;
    next.#names = this.#names;
    next.#durableNames = this.#durableNames;
    next.#changes = this.#changes;
    return next;
  }

  /** The power is back: of what was not synced, the seed decides what landed. */
  afterPowerCut(seed: number): SimulatedDisk {
    const dice = makeDice(seed);
    const next = this.#next();
    this.#isOff = true;
    const inodes = new Set([...this.#names.values(), ...this.#durableNames.values(), ...[...this.#changes.values()].flat().map(({ inode }) => inode)]);
    const landed = new Map<Inode, Inode>([...inodes].map((inode) => [inode, land(inode, dice)]));
    const names = new Map(this.#durableNames);
    for (const changes of this.#changes.values()) {
      for (const change of changes) if (dice.chance(0.5)) applyChange(names, change);
    }
    const kept = [...names].filter(([path]) => path === '/' || isReachable(names, path));
    next.#names = new Map(kept.map(([path, inode]) => [path, landed.get(inode)!]));
    next.#durableNames = new Map(next.#names);
    return next;
  }

  async open(path: string, mode: 'read' | 'readWrite' | 'create'): Promise<DiskFile> {
    await this.#do(mode === 'create' ? 'create' : 'open', path);
    const known = this.#names.get(path);
    if (mode !== 'create') {
      if (known === undefined) throw failure('ENOENT', path);
      return new SimulatedFile(this, path, known);
    }
    if (known !== undefined) throw failure('EEXIST', path);
    this.#parent(path);
    const inode = new Inode(false);
    this.#change(path, { kind: 'add', path, inode });
    return new SimulatedFile(this, path, inode);
  }

  async list(folder: string): Promise<string[]> {
    await this.#do('list', folder);
    if (this.#names.get(folder)?.isFolder !== true) throw failure('ENOENT', folder);
    return [...this.#names.keys()].filter((path) => path !== '/' && parentOf(path) === folder).map((path) => path.slice(path.lastIndexOf('/') + 1));
  }

  async makeFolder(path: string): Promise<void> {
    await this.#do('makeFolder', path);
    if (this.#names.has(path)) throw failure('EEXIST', path);
    this.#parent(path);
    this.#change(path, { kind: 'add', path, inode: new Inode(true) });
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#do('rename', from);
    const inode = this.#names.get(from);
    if (inode === undefined) throw failure('ENOENT', from);
    if (!inode.isFolder) return this.#change(from, { kind: 'rename', from, to, inode });
    // A renamed folder takes along what is in it; the store only does that to throw a group away.
    for (const names of [this.#names, this.#durableNames]) {
      for (const [path, inner] of [...names]) {
        if (path !== from && !path.startsWith(`${from}/`)) continue;
        names.delete(path);
        names.set(to + path.slice(from.length), inner);
      }
    }
  }

  async remove(path: string): Promise<void> {
    await this.#do('remove', path);
    const inode = this.#names.get(path);
    if (inode === undefined) throw failure('ENOENT', path);
    if (inode.isFolder && [...this.#names.keys()].some((inner) => inner.startsWith(`${path}/`))) throw failure('ENOTEMPTY', path);
    this.#change(path, { kind: 'remove', path, inode });
  }

  async syncFolder(path: string): Promise<void> {
    await this.#do('syncFolder', path);
    if (this.#names.get(path)?.isFolder !== true) throw failure('ENOENT', path);
    for (const change of this.#changes.get(path) ?? []) applyChange(this.#durableNames, change);
    this.#changes.delete(path);
  }

  async freeBytes(): Promise<number> {
    if (this.#isOff) throw failure('EPOWER', 'the disk');
    return this.capacityBytes - this.usedBytes();
  }

  async lock(path: string): Promise<DiskLock> {
    if (this.#isOff) throw failure('EPOWER', path);
    if (this.#locks.has(path)) throw failure('EWOULDBLOCK', path);
    this.#locks.add(path);
    return { release: () => { this.#locks.delete(path); return Promise.resolve(); } };
  }

  usedBytes(): number {
    let used = 0;
    for (const inode of new Set(this.#names.values())) used += inode.current.data.size * sector;
    return used;
  }

  /** A file as it reads now. */
  contentOf(path: string): Buffer {
    const inode = this.#names.get(path);
    if (inode === undefined) throw failure('ENOENT', path);
    return Buffer.from(inode.current.bytes.subarray(0, inode.current.size));
  }

  /** Flips a bit of a file, as a failing medium would. */
  flip(path: string, at: number, mask = 1): void {
    const inode = this.#names.get(path);
    if (inode === undefined) throw failure('ENOENT', path);
    for (const content of new Set([inode.current, inode.durable])) if (at < content.size) content.bytes[at]! ^= mask;
  }

  paths(): string[] {
    return [...this.#names.keys()].sort();
  }

  async #do(operation: Operation, path: string): Promise<void> {
    await Promise.resolve();
    this.begin(operation, path);
  }

  /** Counts the operation, and throws what it fails with. A write at the cut has begun: its sectors may land. */
  begin(operation: Operation, path: string): void {
    if (this.#isOff) throw failure('EPOWER', path);
    if (mutating.has(operation)) {
      if (this.isLogging) this.log.push(`${this.operations} ${operation} ${path}`);
      if (this.operations++ === this.cutAt) {
        this.#isOff = true;
        if (operation !== 'write') throw failure('EPOWER', path);
      }
    }
    const fails = this.failing(operation, path);
    if (fails !== undefined && !this.#isOff) throw failure(fails, path);
  }

  end(path: string): void {
    if (this.#isOff) throw failure('EPOWER', path);
  }

  #next(): SimulatedDisk {
    const next = new SimulatedDisk();
    next.capacityBytes = this.capacityBytes;
    return next;
  }

  #parent(path: string): void {
    if (this.#names.get(parentOf(path))?.isFolder !== true) throw failure('ENOENT', path);
  }

  #change(path: string, change: NameChange): void {
    applyChange(this.#names, change);
    const folder = parentOf(path);
    const changes = this.#changes.get(folder) ?? [];
    changes.push(change);
    this.#changes.set(folder, changes);
  }
}

class SimulatedFile implements DiskFile {
  readonly path: string;
  readonly #disk: SimulatedDisk;
  readonly #inode: Inode;
  #isClosed = false;

  constructor(disk: SimulatedDisk, path: string, inode: Inode) {
    this.#disk = disk;
    this.path = path;
    this.#inode = inode;
  }

  async read(into: Buffer, intoAt: number, length: number, at: number): Promise<number> {
    await this.#do('read');
    const { bytes, size } = this.#inode.current;
    const read = Math.max(0, Math.min(length, size - at));
    bytes.copy(into, intoAt, at, at + read);
    return read;
  }

  async write(bytes: Buffer, at: number): Promise<void> {
    await this.#do('write');
    const { current, dirty } = this.#inode;
    const end = at + bytes.length;
    const added = sectorsOf(at, end).filter((index) => !current.data.has(index)).length * sector;
    if (this.#disk.usedBytes() + added > this.#disk.capacityBytes) throw failure('ENOSPC', this.path);
    if (end > current.size) this.#setSize(end);
    bytes.copy(current.bytes, at);
    for (const index of sectorsOf(at, end)) {
      current.data.add(index);
      dirty.add(index);
    }
    this.#disk.end(this.path);
  }

  writeMany(buffers: readonly Buffer[], at: number): Promise<void> {
    return this.write(Buffer.concat(buffers), at);
  }

  async sync(): Promise<void> {
    await Promise.resolve();
    const { current, durable, dirty } = this.#inode;
    try {
      this.#begin('sync');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EIO' || (error as NodeJS.ErrnoException).code === 'ENOSPC') {
        // The pages are marked clean all the same: still read, never written.
        dirty.clear();
      }
      throw error;
    }
    grow(durable, Math.max(current.size, durable.size));
    for (const index of dirty) copySector(current, durable, index);
    durable.size = current.size;
    durable.bytes.fill(0, durable.size);
    for (const index of durable.data) if (index * sector >= durable.size && !current.data.has(index)) durable.data.delete(index);
    dirty.clear();
    this.#inode.isSizeDirty = false;
  }

  async sizeBytes(): Promise<number> {
    await this.#do('read');
    return this.#inode.current.size;
  }

  async allocatedBytes(): Promise<number> {
    await this.#do('read');
    return this.#inode.current.data.size * sector;
  }

  async truncate(sizeBytes: number): Promise<void> {
    await this.#do('truncate');
    const { current, dirty } = this.#inode;
    if (sizeBytes < current.size) {
      current.bytes.fill(0, sizeBytes, current.size);
      for (const index of [...current.data]) {
        if (index * sector >= sizeBytes) current.data.delete(index);
        if ((index + 1) * sector > sizeBytes) dirty.add(index);
      }
    }
    this.#setSize(sizeBytes);
  }

  async punch(at: number, length: number): Promise<void> {
    await this.#do('punch');
    const { current, dirty } = this.#inode;
    const end = Math.min(at + length, current.size);
    if (end > at) current.bytes.fill(0, at, end);
    for (const index of sectorsOf(at, end)) {
      if (!current.data.has(index)) continue;
      dirty.add(index);
      if (index * sector >= at && (index + 1) * sector <= at + length) current.data.delete(index);
    }
  }

  async preallocate(sizeBytes: number): Promise<void> {
    await this.#do('preallocate');
    const { current } = this.#inode;
    const added = sectorsOf(0, sizeBytes).filter((index) => !current.data.has(index));
    if (this.#disk.usedBytes() + added.length * sector > this.#disk.capacityBytes) throw failure('ENOSPC', this.path);
    if (sizeBytes > current.size) this.#setSize(sizeBytes);
    for (const index of added) current.data.add(index);
  }

  async nextData(at: number): Promise<{ start: number; end: number } | null> {
    await this.#do('read');
    const { data, size } = this.#inode.current;
    const last = Math.ceil(size / sector);
    let index = Math.floor(at / sector);
    while (index < last && !data.has(index)) index++;
    if (index >= last || at >= size) return null;
    const start = Math.max(at, index * sector);
    while (index < last && data.has(index)) index++;
    return { start, end: Math.min(size, index * sector) };
  }

  async close(): Promise<void> {
    if (this.#isClosed) throw failure('EBADF', this.path);
    this.#isClosed = true;
    await Promise.resolve();
  }

  #setSize(size: number): void {
    grow(this.#inode.current, size);
    if (this.#inode.current.size !== size) this.#inode.isSizeDirty = true;
    this.#inode.current.size = size;
  }

  async #do(operation: Operation): Promise<void> {
    await Promise.resolve();
    this.#begin(operation);
  }

  #begin(operation: Operation): void {
    if (this.#isClosed) throw failure('EBADF', this.path);
    this.#disk.begin(operation, this.path);
  }
}

/** An inode after a power cut: the durable content, with any subset of what was changed since. */
function land(inode: Inode, dice: Dice): Inode {
  const landed = new Inode(inode.isFolder);
  const { current, durable } = inode;
  const content: Content = { bytes: Buffer.from(durable.bytes), size: durable.size, data: new Set(durable.data) };
  grow(content, Math.max(current.size, durable.size));
  // Often all or nothing of a file lands; the rest of the time each sector for itself.
  const share = dice.pick([0, 0.2, 0.5, 0.8, 1]);
  for (const index of inode.dirty) if (dice.chance(share)) copySector(current, content, index);
  if (inode.isSizeDirty && dice.chance(0.5)) content.size = current.size;
  content.bytes.fill(0, content.size);
  for (const index of [...content.data]) if (index * sector >= content.size) content.data.delete(index);
  landed.durable = content;
  landed.current = { bytes: Buffer.from(content.bytes), size: content.size, data: new Set(content.data) };
  return landed;
}

function copySector(from: Content, to: Content, index: number): void {
  grow(to, Math.min((index + 1) * sector, Math.max(from.bytes.length, to.bytes.length)));
  const start = index * sector;
  to.bytes.fill(0, start, Math.min(to.bytes.length, start + sector));
  from.bytes.copy(to.bytes, start, start, Math.min(from.bytes.length, start + sector));
  if (from.data.has(index)) to.data.add(index); else to.data.delete(index);
}

function grow(content: Content, size: number): void {
  const wanted = Math.ceil(size / sector) * sector;
  if (wanted <= content.bytes.length) return;
  const larger = Buffer.alloc(Math.max(wanted, content.bytes.length * 2));
  content.bytes.copy(larger);
  content.bytes = larger;
}

function applyChange(names: Map<string, Inode>, change: NameChange): void {
  switch (change.kind) {
    case 'add': names.set(change.path, change.inode); return;
    case 'remove': if (names.get(change.path) === change.inode) names.delete(change.path); return;
    case 'rename':
      if (names.get(change.from) === change.inode) names.delete(change.from);
      names.set(change.to, change.inode);
      return;
    default: change satisfies never;
  }
}

function isReachable(names: ReadonlyMap<string, Inode>, path: string): boolean {
  const parent = parentOf(path);
  return names.has(parent) && (parent === '/' || isReachable(names, parent));
}

function parentOf(path: string): string {
  const at = path.lastIndexOf('/');
  return at <= 0 ? '/' : path.slice(0, at);
}

function sectorsOf(start: number, end: number): number[] {
  const found: number[] = [];
  for (let index = Math.floor(start / sector); index * sector < end; index++) found.push(index);
  return found;
}

function failure(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
