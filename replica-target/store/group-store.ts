/**
 * One group's store: decides what may be taken, in which order things become durable, and who may write what. The journal
 * takes records, the applier and the first sync write the replica; this file holds them together and does no bytes itself.
 * Nothing is handed out as durable before a power cut could not take it away.
 */
import assert from 'node:assert/strict';
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import { Fault } from '../../journal/fault.ts';
import type { RecordView } from '../../journal/record.ts';
import type { PointId } from '../../journal/point.ts';
import type { GroupAnnouncement, GroupHolding } from '../../journal/wire.ts';
import { FileGroupPoints } from '../points/group-points.ts';
import { HistorySet } from '../points/history-set.ts';
import type { Retention } from '../points/retention.ts';
import { Applier, type AppliedBatch } from './applier.ts';
import { announcedDisks, announcementFault, handedOver, ownedBy } from './announcement-plan.ts';
import type { Catalog, CatalogLevel, PointFacts } from './catalog.ts';
import type { GroupFacts } from './group-facts.ts';
import type { GroupFolder } from './group-folder.ts';
import { GroupPast } from './group-past.ts';
import { groupHolding, groupReport } from './group-report.ts';
import { openGroup, type OpenedGroup } from './group-opening.ts';
import { Journal } from './journal.ts';
import type { JournalPosition } from './journal-recovery.ts';
import { KeptFacts } from './kept-facts.ts';
import { follow, type Chain, type Following } from './record-order-plan.ts';
import { deltaRecordFault, misplaced, seedRecordFault } from './record-admission-plan.ts';
import { pointFacts } from './point-facts.ts';
import { Replica } from './replica.ts';
import { SeedIntake } from './seed-intake.ts';
import { SpaceWatch } from './space-watch.ts';
import type { Durable, GroupStore, GroupStoreReport, StoredPoint } from './store.ts';
import type { GroupStoreDeps } from './store-options.ts';
import { storeFault } from './store-fault.ts';
import type { TouchedBlocks } from './touched-blocks.ts';

export class FileGroupStore implements GroupStore {
  readonly groupId: string;
  readonly restorePoints: FileGroupPoints;
  readonly #d: GroupStoreDeps;
  readonly #folder: GroupFolder;
  readonly #journal: Journal;
  readonly #applier: Applier;
  readonly #replica: Replica;
  readonly #catalog: Catalog;
  /** Of the target's own: thinning, scrubbing. */
  readonly history: HistorySet;
  readonly #past: GroupPast;
  readonly #space: SpaceWatch;
  readonly #touched: TouchedBlocks;
  readonly #listeners = new Set<(applied: PointId) => void>();
  readonly #kept: KeptFacts;
  #newest: PointFacts | null;
  /** Where the chain will stand when all that was handed to the journal is written. */
  #incoming: Chain;
  #openStart: JournalPosition | null;
  #openDataBytes: number;
  /** The delta whose records were lost by a failure, and by which: what still arrives of it is answered by the same. */
  #lost: { readonly deltaId: bigint; readonly fault: Fault } | null = null;
  /** Never rejects: what a cut could not do, the next write does first. */
  #cutting: Promise<void> | null = null;
  #seeding: SeedIntake | null = null;
  /** Ends when the last record that came was admitted or refused. Never rejects. */
  #admitting: Promise<void> = Promise.resolve();
  /** Appends that were taken and are not answered yet. Never reject. */
  readonly #underWay = new Set<Promise<void>>();
  /** The images may hold less than was synced: a sync of theirs failed. Durable with the facts as `isSeedDistrusted`. */
  #isDistrusted = false;
  /** An image from outside is being copied under a disk. */
  #isFilling = false;
  /** A failover is under way or done: nothing more is taken. */
  #isFenced: boolean;
  #replicaBytes = 0;

  private constructor(d: GroupStoreDeps, folder: GroupFolder, facts: GroupFacts, opened: OpenedGroup) {
    this.groupId = facts.groupId;
    this.#d = d;
    this.#folder = folder;
    this.#kept = new KeptFacts(d.disk, folder, facts);
    this.#newest = opened.newest;
    this.#incoming = opened.journal.chain;
    this.#openStart = opened.journal.open?.start ?? null;
    this.#openDataBytes = opened.journal.open?.dataBytes ?? 0;
    this.#touched = opened.touched;
    this.#catalog = opened.catalog;
    this.#isFenced = facts.state === 'failed-over';
    this.#replica = new Replica(d.disk, folder);
    this.history = new HistorySet({ disk: d.disk, folder, log: d.log }, opened.history, opened.mark.applied);
    const { segmentBytes, freeBytesMin, isApplierStalled } = d.options;
    this.#space = new SpaceWatch({ disk: d.disk, clock: d.clock, folder: folder.path, freeBytesMin, segmentBytes });
    this.#journal = new Journal({ disk: d.disk, folder, groupId: facts.groupId, segmentBytes, freeBytesMin, onLost: (fault) => this.#onLost(fault) }, opened.journal);
    this.#applier = new Applier({
      disk: d.disk, clock: d.clock, folder, groupId: facts.groupId, replica: this.#replica, history: this.history, segmentBytes, limits: d.options, isStalled: isApplierStalled, sampling: () => (this.#past.suspicion?.isOn === true ? d.options.suspicion!.random : null),
      onApplied: (batch) => this.#onApplied(batch), onTrouble: (fault) => this.#onTrouble(fault),
    }, opened.mark, opened.pending, opened.redo);
    this.restorePoints = new FileGroupPoints({
      ...d, folder, groupId: facts.groupId, segmentBytes, history: this.history, replica: this.#replica, catalog: this.#catalog, mark: () => this.#applier.mark,
      nameOf: (disk) => this.#facts.disks.find((one) => one.disk === disk)?.name ?? `disk${disk}`,
    }, opened.journal.sealed);
    this.#past = new GroupPast({
      ...d, folder, groupId: facts.groupId, name: () => this.#facts.name, journal: this.#journal, catalog: this.#catalog, history: this.history,
      points: this.restorePoints, space: this.#space, newest: () => this.#newest,
    });
  }

  static async open(d: GroupStoreDeps, folder: GroupFolder, facts: GroupFacts): Promise<FileGroupStore> {
    const opened = await openGroup({ disk: d.disk, folder, groupId: facts.groupId, segmentBytes: d.options.segmentBytes, level: d.level, log: d.log });
    let store: FileGroupStore | null = null;
    try {
      store = new FileGroupStore(d, folder, facts, opened);
      // Before anything makes it anew: an image that is gone must not come back empty.
      for (const { disk } of opened.mark.disks) await store.#replica.checkThere(disk);
      if (facts.seed !== 'none') await store.#measureReplica();
      await store.restorePoints.load();
      await store.#past.begin();
    } catch (error) {
      // A group that refuses holds nothing open.
      await (store ?? opened.catalog).close();
      throw error;
    }
    // After a failover a guest runs on overlays over the images: they are not touched before a roll-back.
    if (facts.state === 'failed-over') await store.#applier.pause();
    else store.#applier.start();
    return store;
  }

  /** Of the target's own: null without a policy. */
  get retention(): Retention | null { return this.#past.retention; }
  get facts(): GroupFacts { return this.#facts; }
  get #facts(): GroupFacts { return this.#kept.current; }

  lockedForMs(): number { return this.restorePoints.pins.longestLockMs(this.#newest); }

  holding(): GroupHolding {
    return groupHolding(this.#facts, this.#journal.durable, this.#applier.applied);
  }

  async announce(sourceId: string, announcement: GroupAnnouncement): Promise<void> {
    const refused = announcementFault(this.#facts, this.#isFenced, sourceId, announcement);
    if (refused !== null) throw refused;
    await this.cutTorn();
    // A first sync that broke off is begun anew, with seedBegin.
    await this.#seeding?.settle();
    this.#seeding = null;
    await this.#keepFacts({
      name: announcement.name,
      term: Math.max(this.#facts.term, announcement.term),
      rpoMs: announcement.rpoMs,
      disks: announcedDisks(announcement),
      hardware: announcement.hardware,
    });
  }

  append(record: RecordView): Promise<Durable | null> {
    const admitted = this.#inTurn(() => this.#admit(record));
    const appended = admitted.then(({ written }) => written);
    const settled = appended.then(() => undefined, () => undefined);
    this.#underWay.add(settled);
    void settled.then(() => this.#underWay.delete(settled));
    return appended;
  }

  /** Records are admitted one after the other, in the order in which they came, whatever the admission of one waits for. */
  #inTurn<T>(admit: () => Promise<T>): Promise<T> {
    const admitted = this.#admitting.then(admit);
    this.#admitting = admitted.then(() => undefined, () => undefined);
    return admitted;
  }

  /** Resolves when the record's place in the journal is taken; `written` when it is there. */
  async #admit(record: RecordView): Promise<{ readonly written: Promise<Durable | null> }> {
    while (this.#cutting !== null || this.#kept.isUnsure) await (this.#cutting ?? this.#keepFacts({}));
    const { header } = record;
    this.#checkMayTake(record);
    if (header.kind === 'open' && this.#incoming.open?.parts === 0) {
      await this.cutTorn();
      this.#checkMayTake(record);
    }
    const following = this.#follow(record);
    this.#incoming = following.chain;
    const written = this.#write(record, following);
    // Whoever appended is told.
    written.catch(() => undefined);
    return { written };
  }

  /** Up to its first wait it takes the record's place in the journal. */
  async #write(record: RecordView, following: Extract<Following, { ok: true }>): Promise<Durable | null> {
    const { header } = record;
    switch (following.event) {
      case 'open':
        this.#touched.clear();
        this.#openDataBytes = 0;
        this.#lost = null;
        this.#openStart = (await this.#journal.append(record.bytes, following.chain, false)).start;
        return null;
      case 'run':
        this.#touched.add(header.disk, header.offset, header.length);
        if (header.kind === 'data') this.#openDataBytes += header.length;
        await this.#journal.append(record.bytes, following.chain, false);
        return null;
      case 'part':
        await this.#journal.append(record.bytes, following.chain, true);
        this.#space.release();
        return { term: header.term, point: header.point, part: following.part };
      case 'seal': {
        const dataBytes = this.#openDataBytes;
        const { end } = await this.#journal.append(record.bytes, following.chain, true);
        this.#space.release();
        const id = { term: header.term, point: header.point };
        const facts = pointFacts({ id, seal: following.seal }, this.#newest, this.#d.clock.nowMs());
        this.#newest = facts;
        this.#catalog.putPoint(facts);
        this.restorePoints.places.push({ id, seal: following.seal, start: this.#openStart, end });
        this.#applier.push({ id, seal: following.seal, start: this.#openStart, end, dataBytes, facts });
        this.#openStart = null;
        return id;
      }
      default: return following satisfies never;
    }
  }

  async cutTorn(): Promise<void> {
    while (this.#cutting !== null) await this.#cutting;
    const { open } = this.#incoming;
    if (open === null || (open.isAtPart && this.#journal.durable.open?.nextSequence === open.nextSequence)) return;
    const cut = this.#journal.cut(new Fault('STORE_SYNC', 'the rest of a delta was cut off', { group: this.#facts.name }));
    this.#cutting = cut.then(() => undefined, () => undefined).then(() => {
      this.#incoming = this.#journal.durable;
      this.#cutting = null;
    });
    try {
      await cut;
    } catch (error) {
      throw this.#taken(error, 'cutting off the rest of a delta');
    } finally {
      await this.#cutting;
    }
  }

  async seedBegin(deltaId: string): Promise<void> {
    this.#checkNotFenced();
    if (this.#journal.durable.newest !== null) throw new Fault('RECORD_MISPLACED', `${this.#facts.name} has points: a first sync would overwrite them`, { group: this.#facts.name });
    // A fault that lets the source come again when the copy is done.
    if (this.#isFilling) throw new Fault('STORE_SYNC', `an image is being copied under ${this.#facts.name}`, { group: this.#facts.name });
    await this.#seeding?.settle();
    const { disks } = this.#facts;
    try {
      await this.#keepFacts({ seed: 'partial', seedDeltaId: deltaId, isSeedDistrusted: this.#facts.isSeedDistrusted || this.#isDistrusted });
      // Parts of a first delta were meant for the images as they were.
      await this.#journal.reset();
      this.#incoming = this.#journal.durable;
      this.#touched.clear();
      for (const { disk, sizeBytes } of disks) await this.#replica.resize(disk, sizeBytes);
      await this.#syncReplica(disks.map(({ disk }) => disk));
    } catch (error) {
      throw this.#taken(error, 'preparing the replica');
    }
    this.#seeding = new SeedIntake(this.#replica, deltaId, !this.#isSeedDistrusted());
  }

  async seedRecord(record: RecordView): Promise<void> {
    const { taken } = await this.#inTurn(() => this.#takeSeed(record));
    await taken;
  }

  async #takeSeed(record: RecordView): Promise<{ readonly taken: Promise<void> }> {
    this.#checkNotFenced();
    if (this.#space.full !== null) throw this.#space.full;
    const { header } = record;
    const what = `writing ${this.#replica.path(header.disk)}`;
    await this.#space.checkBefore(header.length).catch((error: unknown) => { throw this.#taken(error, what); });
    const seeding = this.#seeding;
    const refused = seedRecordFault(this.#facts, seeding?.deltaId ?? null, record);
    if (refused !== null) throw refused;
    assert(seeding !== null, 'no record is taken without a first sync');
    const taken = seeding.take(record).catch((error: unknown) => { throw this.#taken(error, what); });
    taken.catch(() => undefined);
    return { taken };
  }

  async seedEnd(): Promise<void> {
    await this.#admitting;
    this.#checkNotFenced();
    const seeding = this.#seeding;
    if (seeding === null) throw new Fault('RECORD_MISPLACED', `no first sync of ${this.#facts.name} is under way`, { group: this.#facts.name });
    const disks = this.#facts.disks.map(({ disk, sizeBytes }) => ({ disk, sizeBytes }));
    try {
      await seeding.finish(disks.map(({ disk }) => disk));
    } catch (error) {
      const fault = this.#taken(error, 'making the first sync durable');
      this.#seeding = null;
      this.#isDistrusted = true;
      // On a failing disk this may fail too; then it is in memory, and written before the next first sync begins.
      await this.#keepFacts({ isSeedDistrusted: true }).catch((second: unknown) => this.#d.log?.error({ group: this.#facts.name, err: second }, 'that the first sync is not to be trusted could not be noted yet'));
      throw fault;
    }
    try {
      await this.#applier.seeded(disks);
      await this.#keepFacts({ seed: 'done', ...(this.#facts.reclaimed === null ? {} : { reclaimed: { point: null } }), seedDeltaId: null, isSeedDistrusted: false });
    } catch (error) {
      throw this.#taken(error, 'making the first sync durable');
    }
    this.#seeding = null;
    this.#isDistrusted = false;
    this.#space.release();
    await this.#measureReplica();
  }

  async compare(disk: number, offset: number, length: number, blockBytes: number, hashes: Buffer): Promise<string> {
    this.#checkNotFenced();
    const known = this.#facts.disks.find((one) => one.disk === disk);
    const blocks = Math.ceil(length / blockBytes);
    if (known === undefined || offset + length > known.sizeBytes || hashes.length !== blocks * 32) {
      throw new Fault('RECORD_MISPLACED', `a comparison of ${length} bytes at ${offset} of disk ${disk} with ${hashes.length / 32} hashes`, { group: this.#facts.name, disk, offset, length });
    }
    if (this.#facts.seed === 'none' || (this.#facts.seed === 'partial' && this.#isSeedDistrusted())) return '1'.repeat(blocks);
    try {
      await this.#admitting;
      await this.#seeding?.settle();
      await this.#applier.applyAll();
      const bits = await this.#replica.compare(disk, offset, length, blockBytes, hashes);
      return this.#incoming.open === null ? bits : this.#touched.mark(bits, disk, offset, length, blockBytes);
    } catch (error) {
      throw storeFault(error, `comparing ${this.#replica.path(disk)}`);
    }
  }

  onApplied(listener: (applied: PointId) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  dismissSuspicion(): ReturnType<GroupStore['dismissSuspicion']> { return this.#past.dismiss(); }

  points(): Promise<readonly StoredPoint[]> { return this.restorePoints.list(); }

  report(): GroupStoreReport {
    return { ...this.#past.lockReport(), ...groupReport({
      facts: this.#facts, newest: this.#newest, applier: this.#applier, catalog: this.#catalog, history: this.history, journal: this.#journal, replica: this.#replica,
      replicaBytes: this.#replicaBytes, space: this.#space, retention: this.#past.retention, nowMs: this.#d.clock.nowMs(), suspicion: this.#past.suspicion,
    }) };
  }

  async drain(): Promise<PointId | null> {
    await this.#applier.applyAll();
    await this.#applier.pause();
    return this.#applier.applied;
  }

  async failOver(): Promise<{ readonly term: number; readonly point: PointId }> {
    if (this.#isFenced) throw new Fault('FAILOVER_STATE', `${this.#facts.name} has failed over already`, { group: this.#facts.name });
    this.#isFenced = true;
    try {
      // What was taken before the fence may still become an acknowledged point.
      await Promise.all(this.#underWay);
      await this.cutTorn();
      const point = await this.drain();
      if (point === null) throw new Fault('FAILOVER_NO_POINT', `${this.#facts.name} has no sealed point yet`, { group: this.#facts.name });
      await this.#keepFacts({ term: this.#facts.term + 1, state: 'failed-over' });
      return { term: this.#facts.term, point };
    } catch (error) {
      this.#isFenced = this.#facts.state === 'failed-over';
      if (!this.#isFenced) this.#applier.resume();
      throw storeFault(error, `failing over ${this.#facts.name}`);
    }
  }

  rollBack(): Promise<void> { return this.#unfence({ state: 'protected' }); }

  async #unfence(change: Partial<GroupFacts>): Promise<void> {
    if (this.#facts.state !== 'failed-over') throw new Fault('FAILOVER_STATE', `${this.#facts.name} has not failed over`, { group: this.#facts.name });
    await this.#keepFacts(change);
    this.#isFenced = false;
    this.#applier.resume();
  }

  commit(): Promise<void> { return this.#unfence({ state: 'committed', fencedBelow: this.#facts.term }); }

  own(sourceId: string): Promise<void> { return this.#keepFacts(ownedBy(this.#facts, sourceId)); }

  lendImages(isLent: boolean): Promise<void> { return this.#replica.bar(this.#facts.disks.map(({ disk }) => disk), !isLent); }

  async handOver(from: string, term: number, to: string): Promise<void> { return this.#keepFacts(handedOver(this.#facts, from, term, to)); }

  hardware(): Readonly<Record<string, unknown>> { return this.#facts.hardware; }

  async close(): Promise<void> {
    this.#space.stop();
    await this.#seeding?.settle();
    await this.#applier.stop();
    await this.#past.close();
    await this.#journal.close();
    await this.#replica.close();
    await this.restorePoints.close();
    await this.history.close();
    await this.#catalog.close();
  }

  /** An image was put under a disk from outside: it is compared before anything is built on it. */
  async seedFromImage(disk: number, put: (replica: Replica, sizeBytes: number) => Promise<void>): Promise<void> {
    const known = this.#facts.disks.find((one) => one.disk === disk);
    if (known === undefined) throw new Fault('REQUEST_INVALID', `${this.#facts.name} has no disk ${disk}`, { group: this.#facts.name, disk });
    if (this.#facts.seed === 'done' || this.#journal.durable.newest !== null) {
      throw new Fault('REQUEST_INVALID', `${this.#facts.name} has a replica already`, { group: this.#facts.name });
    }
    this.#checkNotFenced();
    if (this.#seeding !== null || this.#isFilling) {
      throw new Fault('REQUEST_INVALID', `a first sync of ${this.#facts.name}, or another copy, is under way`, { group: this.#facts.name });
    }
    this.#isFilling = true;
    try {
      await this.#keepFacts({ seed: 'partial' });
      await put(this.#replica, known.sizeBytes);
      await this.#syncReplica([disk]);
    } catch (error) {
      throw this.#taken(error, `filling ${this.#replica.path(disk)}`);
    } finally {
      this.#isFilling = false;
    }
  }

  #isSeedDistrusted(): boolean {
    return this.#isDistrusted || this.#facts.isSeedDistrusted;
  }

  /** For images that hold no point yet. After a sync failed once, what the page cache says of them is not believed any more. */
  async #syncReplica(disks: readonly number[]): Promise<void> {
    try {
      await this.#replica.sync(disks);
    } catch (error) {
      this.#isDistrusted = true;
      throw error;
    }
  }

  #checkNotFenced(): void {
    if (this.#isFenced) throw new Fault('GROUP_FAILED_OVER', `${this.#facts.name} has failed over and takes no deltas`, { group: this.#facts.name, term: this.#facts.term });
  }

  #checkMayTake(record: RecordView): void {
    // Of a lower term comes first: that source must learn that it lost, not that the group is busy.
    const refused = deltaRecordFault(this.#facts, record);
    if (refused?.code === 'TERM_OLD') throw refused;
    this.#checkNotFenced();
    if (this.#space.full !== null) throw this.#space.full;
    if (refused !== null) throw refused;
  }

  #follow(record: RecordView): Extract<Following, { ok: true }> {
    const following = follow(this.#incoming, this.groupId, record);
    if (following.ok) return following;
    if (this.#lost?.deltaId === record.header.deltaId) throw this.#lost.fault;
    if (following.code === 'DELTA_BASE') throw new Fault('DELTA_BASE', `${this.#facts.name}: ${following.why}`, { group: this.#facts.name });
    throw misplaced(this.#facts, following.why, record);
  }

  /** A failure while taking something in: shown, and for a full disk held until there is space. */
  #taken(error: unknown, what: string): Fault {
    const fault = storeFault(error, what);
    if (fault.code === 'STORE_FULL' || fault.code === 'STORE_SYNC') this.#space.hold(fault);
    return fault;
  }

  #onLost(fault: Fault): void {
    const deltaId = this.#incoming.open?.deltaId ?? this.#incoming.newestDeltaId;
    this.#lost = { deltaId, fault };
    this.#incoming = this.#journal.durable;
    this.#space.hold(fault);
    this.#d.log?.error({ group: this.#facts.name, code: fault.code, facts: fault.facts }, fault.message);
  }

  async #onApplied({ to, from, history, ...batch }: AppliedBatch): Promise<void> {
    this.#catalog.putHistory({ ...history, from, to });
    await this.#past.applied(batch);
    // What a report says of the images' size may be old.
    await this.#measureReplica().catch((error: unknown) => { storeFault(error, 'measuring the replica'); });
    for (const listener of this.#listeners) listener(to);
  }

  #onTrouble(fault: Fault | null): void {
    this.#space.applying(fault);
    if (fault !== null) this.#d.log?.error({ group: this.#facts.name, code: fault.code, facts: fault.facts, err: fault.cause }, fault.message);
  }

  async #measureReplica(): Promise<void> {
    this.#replicaBytes = await this.#replica.allocatedBytes(this.#facts.disks.map(({ disk }) => disk));
  }

  async #keepFacts(change: Partial<GroupFacts>): Promise<void> {
    try {
      await this.#kept.change(change);
    } catch (error) {
      throw this.#taken(error, `writing ${this.#folder.facts}`);
    }
  }
}
