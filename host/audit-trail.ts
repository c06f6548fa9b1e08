/**
 * The audit trail of a daemon: who did what, on what, with what outcome, and when. One append-only file, in which each entry carries the hash of all before it, and a second one with the
 * newest entry's number and hash, so that entries which are changed, removed, inserted or cut off at the end are noticed (journal/FORMAT.md, "Audit trail"). An entry is durable when `note`
 * resolves. The trail never keeps an act from being done: what cannot be written is kept in memory, is written with the next, and is an alarm meanwhile.
 *
 * It holds no secrets, as nobody hands it any. Whoever may write to the data folder can write another trail: a head that is kept elsewhere tells the two apart.
 */
import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import type { Logger } from 'pino';
import type { Alarm } from '../journal/alarm.ts';
import { Fault } from '../journal/fault.ts';
import { encodeEntry, hashOf, readTrail, type AuditEntry, type AuditHead, type TrailReading } from './audit-format.ts';
import type { Clock } from './clock.ts';
import type { Disk, DiskFile, DiskLock } from './disk.ts';

/** Entries that wait for a disk that fails. */
const unwrittenMax = 1000;
/** What one source does over and over is noted once in this time, with how often it was, ms: a peer must not fill the disk with its refusals. */
const repeatMs = 10 * 60_000;
/** Kinds of repeats that are remembered. */
const repeatsMax = 1000;

export type NewEntry = Omit<AuditEntry, 'n' | 'atMs'>;

/** What whoever acts sees of the trail. */
export interface AuditNoter {
  /** Durable when it resolves, unless the disk fails. Never rejects. */
  note(entry: NewEntry): Promise<void>;
  alarms(): readonly Alarm[];
}

export interface AuditTrailOptions { readonly disk: Disk; readonly clock: Clock; readonly folder: string; readonly log: Logger | null }

export class AuditTrail implements AuditNoter {
  readonly #o: AuditTrailOptions;
  readonly #lock: DiskLock;
  readonly #file: DiskFile;
  #end: number;
  #head: AuditHead;
  readonly #broken: Alarm | null;
  #unwritten: NewEntry[] = [];
  #unwrittenAtMs: number[] = [];
  #lostCount = 0;
  #failing: Alarm | null = null;
  readonly #repeats = new Map<string, { atMs: number; count: number }>();
  #writing: Promise<void> = Promise.resolve();

  private constructor(o: AuditTrailOptions, lock: DiskLock, file: DiskFile, end: number, head: AuditHead, broken: Alarm | null) {
    this.#o = o;
    this.#lock = lock;
    this.#file = file;
    this.#end = end;
    this.#head = head;
    this.#broken = broken;
  }

  /** Takes the trail up where it ends; what a crash left of an entry is cut off. The folder is there. Faults: STORE_LOCKED. Rejects with the system's error when it cannot be read or written. */
  static async open(o: AuditTrailOptions): Promise<AuditTrail> {
    const { disk, clock, folder, log } = o;
    const lock = await takeLock(disk, join(folder, 'lock'));
    try {
      const reading = await readTrail(disk, folder);
      const file = await openOrMake(disk, trailPath(folder));
      const { last, head, tornBytes, endOfWhole } = reading;
      if (tornBytes > 0) {
        await file.truncate(endOfWhole);
        await file.sync();
      }
      // What is missing at the end is not numbered over: the gap stays to be seen.
      const from = head !== null && head.n > last.n ? head : last;
      const broken: Alarm | null = reading.broken === null ? null : { code: 'AUDIT_BROKEN', group: null, message: `the audit trail in ${folder} is broken: ${reading.broken.why}`, sinceMs: clock.nowMs() };
      if (broken !== null) log?.error({ code: broken.code, ...reading.broken }, broken.message);
      const trail = new AuditTrail(o, lock, file, endOfWhole, from, broken);
      if (tornBytes > 0) await trail.note({ who: { kind: 'itself' }, act: 'audit-torn', on: null, what: { bytes: tornBytes }, outcome: 'done' });
      return trail;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Of the newest entry. To be kept elsewhere. */
  get head(): AuditHead { return this.#head; }

  alarms(): readonly Alarm[] {
    return [this.#broken, this.#failing].filter((alarm) => alarm !== null);
  }

  note(entry: NewEntry): Promise<void> {
    const noted = this.#unrepeated(entry);
    if (noted === null) return this.#writing;
    if (this.#unwritten.length < unwrittenMax) {
      this.#unwritten.push(noted);
      this.#unwrittenAtMs.push(this.#o.clock.nowMs());
    } else this.#lostCount += 1;
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  /** Every entry anew from the disk. */
  read(onEntry?: (entry: AuditEntry) => void): Promise<TrailReading> {
    return readTrail(this.#o.disk, this.#o.folder, onEntry);
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.#file.close();
    await this.#lock.release();
  }

  /** Null: said a moment ago by the same peer, and counted. */
  #unrepeated(entry: NewEntry): NewEntry | null {
    if (entry.who.kind !== 'source') return entry;
    const key = JSON.stringify([entry.who, entry.act, entry.on, entry.outcome]);
    const nowMs = this.#o.clock.monotonicMs();
    const known = this.#repeats.get(key);
    if (known !== undefined && nowMs - known.atMs < repeatMs) {
      known.count += 1;
      return null;
    }
    this.#repeats.delete(key);
    if (this.#repeats.size >= repeatsMax) this.#repeats.delete(this.#repeats.keys().next().value!);
    this.#repeats.set(key, { atMs: nowMs, count: 0 });
    return known === undefined || known.count === 0 ? entry : { ...entry, what: { ...entry.what, repeats: known.count } };
  }

  async #write(): Promise<void> {
    const count = this.#unwritten.length;
    if (count === 0) return;
    const lines: Buffer[] = [];
    let { n, hash } = this.#head;
    for (const [at, entry] of this.#unwritten.entries()) {
      n += 1;
      const text = encodeEntry({ n, atMs: this.#unwrittenAtMs[at]!, ...entry, ...(at === count - 1 && this.#lostCount > 0 ? { what: { ...entry.what, lostBefore: this.#lostCount } } : {}) });
      hash = hashOf(hash, text);
      lines.push(Buffer.from(`${hash} ${text}\n`));
    }
    const bytes = Buffer.concat(lines);
    try {
      await this.#file.write(bytes, this.#end);
      await this.#file.sync();
      this.#end += bytes.length;
      this.#head = { n, hash };
      this.#unwritten.splice(0, count);
      this.#unwrittenAtMs.splice(0, count);
      this.#lostCount = 0;
      await writeHead(this.#o.disk, this.#o.folder, this.#head);
      this.#failing = null;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error)) throw error;
      this.#failing = { code: 'AUDIT_UNWRITTEN', group: null, message: `the audit trail in ${this.#o.folder} cannot be written: ${error.message}`, sinceMs: this.#failing?.sinceMs ?? this.#o.clock.nowMs() };
      this.#o.log?.error({ err: error, entries: this.#unwritten.slice(0, 5) }, this.#failing.message);
    }
  }
}

export function trailPath(folder: string): string { return join(folder, 'trail'); }
export function headPath(folder: string): string { return join(folder, 'head'); }

async function takeLock(disk: Disk, path: string): Promise<DiskLock> {
  try {
    return await disk.lock(path);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EWOULDBLOCK')) throw error;
    throw new Fault('STORE_LOCKED', `another process writes the audit trail in ${dirname(path)}`, { folder: dirname(path) }, error);
  }
}

async function openOrMake(disk: Disk, path: string): Promise<DiskFile> {
  try {
    return await disk.open(path, 'readWrite');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
  }
  const file = await disk.open(path, 'create');
  await file.sync();
  await disk.syncFolder(dirname(path));
  return file;
}

/** After the entry is durable: so that the head is never ahead of what a crash leaves. */
async function writeHead(disk: Disk, folder: string, { n, hash }: AuditHead): Promise<void> {
  assert(n > 0);
  const aside = `${headPath(folder)}.new`;
  await disk.remove(aside).catch((error: NodeJS.ErrnoException) => { if (error.code !== 'ENOENT') throw error; });
  const file = await disk.open(aside, 'create');
  try {
    await file.write(Buffer.from(`${n} ${hash}\n`), 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(aside, headPath(folder));
  await disk.syncFolder(folder);
}
