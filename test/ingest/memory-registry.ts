/**
 * A registry of groups in memory, for tests of the wire alone: strict about order as FORMAT.md is, instant or as slow as a
 * test wants, and it says what it was given. It is no store: nothing is durable, nothing is applied.
 */
import { blake3 } from '@napi-rs/blake-hash';
import { uncompressSync } from 'snappy';
import { Fault } from '../../journal/fault.ts';
import { recordHeaderBytes } from '../../journal/limits.ts';
import type { PointId } from '../../journal/point.ts';
import type { RecordView } from '../../journal/record.ts';
import { decodePayload, partPayload, sealPayload } from '../../journal/seal.ts';
import type { GroupAnnouncement, GroupHolding } from '../../journal/wire.ts';
import type { GroupPoints } from '../../replica-target/points/points.ts';
import type { Durable, GroupRegistry, GroupStore, GroupStoreReport } from '../../replica-target/store/store.ts';

/** Records of the unsealed delta, whole; those up to `durable` survive a cut. */
interface OpenDelta { readonly deltaId: bigint; readonly point: number; readonly term: number; readonly records: RecordView[]; durable: number; parts: number }

export class MemoryStore implements GroupStore {
  readonly groupId: string;
  /** It has none. */
  readonly restorePoints: GroupPoints;
  readonly sourceId: string;
  announcement: GroupAnnouncement;
  term: number;
  newest: PointId | null = null;
  open: OpenDelta | null = null;
  seed: GroupHolding['seed'] = 'none';
  readonly disks = new Map<number, Buffer>();
  /** What was called, in order; records as `kind:sequence`. */
  readonly log: string[] = [];
  /** Awaited before each record is taken. */
  gate: () => Promise<void> = () => Promise.resolve();
  /** Thrown for each record while set. */
  failing: Fault | null = null;
  cuts = 0;
  recordsUnderWay = 0;
  bytesTaken = 0;
  readonly #listeners = new Set<(applied: PointId) => void>();
  #queue: Promise<unknown> = Promise.resolve();

  constructor(sourceId: string, announcement: GroupAnnouncement) {
    const refuse = (): Promise<never> => Promise.reject(new Fault('POINT_UNKNOWN', 'a registry in memory restores nothing'));
    this.restorePoints = { list: () => Promise.resolve([]), find: () => Promise.resolve(null), open: refuse, hold: refuse, lock: refuse, release: () => Promise.resolve(), changedSince: () => Promise.reject(new Error('not asked for')), holds: () => [] };
    this.groupId = announcement.group;
    this.sourceId = sourceId;
    this.announcement = announcement;
    this.term = announcement.term;
    for (const { disk, sizeBytes } of announcement.disks) this.disks.set(disk, Buffer.alloc(sizeBytes));
  }

  holding(): GroupHolding {
    const { open } = this;
    return {
      group: this.groupId, term: this.term, newest: this.newest, applied: this.newest, seed: this.seed,
      open: open === null ? null : { point: open.point, deltaId: open.deltaId.toString(16).padStart(16, '0'), nextSequence: open.records.length, parts: open.parts },
    };
  }

  announce(sourceId: string, announcement: GroupAnnouncement): Promise<void> {
    if (sourceId !== this.sourceId) throw new Fault('GROUP_FOREIGN', 'the group belongs to another source');
    if (announcement.term < this.term) throw new Fault('TERM_OLD', 'the group is of a higher term', { term: this.term });
    this.announcement = announcement;
    return Promise.resolve();
  }

  append(record: RecordView): Promise<Durable | null> {
    return this.#inOrder(async () => {
      await this.gate();
      return this.#append(record);
    });
  }

  #append(record: RecordView): Durable | null {
    if (this.failing !== null) throw this.failing;
    const { header } = record;
    if (header.term < this.term) throw new Fault('TERM_OLD', 'the record is of an old term', { term: this.term });
    const { open } = this;
    if (header.kind === 'open') {
      if (open !== null || header.sequence !== 0) throw new Fault('RECORD_MISPLACED', 'a delta is open already');
      this.open = { deltaId: header.deltaId, point: header.point, term: header.term, records: [record], durable: 0, parts: 0 };
    } else {
      if (open === null || header.deltaId !== open.deltaId || header.point !== open.point || header.sequence !== open.records.length) {
        throw new Fault('RECORD_MISPLACED', `${header.kind} with sequence ${header.sequence} does not follow ${open?.records.length ?? 'nothing'}`);
      }
      const disk = this.disks.get(header.disk);
      if (disk === undefined || header.offset + header.length > disk.length) throw new Fault('RECORD_MISPLACED', 'beyond the end of the disk');
      open.records.push(record);
    }
    this.log.push(`${header.kind}:${header.sequence}`);
    this.bytesTaken += record.bytes.length;
    return this.#seal(record);
  }

  #seal({ header, bytes }: RecordView): Durable | null {
    const open = this.open!;
    if (header.kind === 'part') {
      open.durable = open.records.length;
      open.parts = decodePayload(partPayload, bytes.subarray(recordHeaderBytes))!.part;
      return { term: header.term, point: header.point, part: open.parts };
    }
    if (header.kind !== 'seal') return null;
    const seal = decodePayload(sealPayload, bytes.subarray(recordHeaderBytes))!;
    if (seal.records !== open.records.length) throw new Fault('RECORD_MISPLACED', `${open.records.length} records, the seal says ${seal.records}`);
    for (const record of open.records) this.#apply(record);
    this.open = null;
    this.newest = { term: header.term, point: header.point };
    const applied = this.newest;
    setImmediate(() => { for (const listener of this.#listeners) listener(applied); });
    return applied;
  }

  #apply({ header, bytes }: RecordView): void {
    const disk = this.disks.get(header.disk)!;
    if (header.kind === 'zero') disk.fill(0, header.offset, header.offset + header.length);
    if (header.kind !== 'data') return;
    const payload = bytes.subarray(recordHeaderBytes);
    (header.codec === 'snappy' ? uncompressSync(payload) as Buffer : payload).copy(disk, header.offset);
  }

  cutTorn(): Promise<void> {
    return this.#inOrder(() => {
      this.cuts += 1;
      this.log.push('cut');
      if (this.open === null) return;
      this.open.records.length = this.open.durable;
      if (this.open.durable === 0) this.open = null;
    });
  }

  seedBegin(deltaId: string): Promise<void> {
    return this.#inOrder(() => {
      this.seed = 'partial';
      this.log.push(`seedBegin:${deltaId}`);
    });
  }

  seedRecord(record: RecordView): Promise<void> {
    return this.#inOrder(async () => {
      await this.gate();
      if (this.failing !== null) throw this.failing;
      const { header } = record;
      if (header.offset + header.length > (this.disks.get(header.disk)?.length ?? 0)) throw new Fault('RECORD_MISPLACED', 'beyond the end of the disk');
      this.log.push(`seed-${header.kind}`);
      this.bytesTaken += record.bytes.length;
      this.#apply(record);
    });
  }

  seedEnd(): Promise<void> {
    return this.#inOrder(() => {
      this.seed = 'done';
      this.log.push('seedEnd');
    });
  }

  compare(disk: number, offset: number, length: number, blockBytes: number, hashes: Buffer): Promise<string> {
    const content = this.disks.get(disk)!.subarray(offset, offset + length);
    let bits = '';
    for (let at = 0; at < length; at += blockBytes) {
      const index = at / blockBytes;
      bits += blake3(content.subarray(at, Math.min(length, at + blockBytes))).equals(hashes.subarray(index * 32, index * 32 + 32)) ? '0' : '1';
    }
    this.log.push(`compare:${bits}`);
    return Promise.resolve(bits);
  }

  onApplied(listener: (applied: PointId) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get listenerCount(): number {
    return this.#listeners.size;
  }

  report(): GroupStoreReport {
    return {
      groupId: this.groupId, name: this.announcement.name, sourceId: this.sourceId, state: 'protected', term: this.term, rpoMs: this.announcement.rpoMs, seed: this.seed, isReclaimed: false, formerSourceIds: [],
      disks: [], newest: null, applied: this.newest, pointCount: 0, oldest: null, journalBytes: 0, historyBytes: 0, replicaBytes: 0, retention: null,
      held: this.failing === null ? null : { code: this.failing.code, sinceMs: 0, message: this.failing.message },
    };
  }

  points(): Promise<never[]> { return Promise.resolve([]); }
  drain(): Promise<PointId | null> { return Promise.resolve(this.newest); }
  failOver(): Promise<never> { return Promise.reject(new Error('a store in memory does not fail over')); }
  rollBack(): Promise<void> { return Promise.resolve(); }
  commit(): Promise<void> { return Promise.resolve(); }
  dismissSuspicion(): Promise<never> { return Promise.reject(new Error('not asked for')); }
  own(): Promise<void> { return Promise.resolve(); }
  lendImages(): Promise<void> { return Promise.resolve(); }
  handOver(): Promise<void> { return Promise.resolve(); }
  hardware(): Record<string, unknown> { return this.announcement.hardware; }
  close(): Promise<void> { return Promise.resolve(); }

  #inOrder<T>(act: () => T | Promise<T>): Promise<T> {
    this.recordsUnderWay += 1;
    const done = this.#queue.then(act).finally(() => { this.recordsUnderWay -= 1; });
    this.#queue = done.catch(() => undefined);
    return done;
  }
}

export class MemoryRegistry implements GroupRegistry {
  readonly stores = new Map<string, MemoryStore>();

  groups(): readonly GroupStore[] {
    return [...this.stores.values()];
  }

  find(nameOrId: string): MemoryStore | null {
    return [...this.stores.values()].find((store) => store.groupId === nameOrId || store.announcement.name === nameOrId) ?? null;
  }

  async announce(sourceId: string, announcement: GroupAnnouncement): Promise<GroupStore> {
    const known = this.stores.get(announcement.group);
    if (known !== undefined) {
      await known.announce(sourceId, announcement);
      return known;
    }
    const store = new MemoryStore(sourceId, announcement);
    this.stores.set(announcement.group, store);
    return store;
  }

  seedFrom(): Promise<void> { return Promise.resolve(); }

  forget(groupId: string): Promise<void> {
    this.stores.delete(groupId);
    return Promise.resolve();
  }

  close(): Promise<void> { return Promise.resolve(); }
}
