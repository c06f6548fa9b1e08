/**
 * The write logs of one guest: puts one over each disk, cuts all of them at one instant as part of the capture's own transaction,
 * reads what lies between two cuts, changes logs that fill up for fresh ones, gives all of it up when anything is doubtful. It
 * decides nothing about points: the capture says which point a cut may become, and which one the target holds.
 *
 * Invariants: a point has a position exactly when the logs hold every write since it, on every disk, in order; when that can no
 * longer be said the logs are taken out, and the dirty bitmaps beneath, which were there all along, have it all. What QEMU may
 * write is bounded by the files' caps, whether or not this process lives. Nothing here is durable against the loss of the host,
 * with which QEMU and its logs are gone as well.
 */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Clock } from '../../../host/clock.ts';
import { readJson, replaceJson } from '../../../host/node/json-file.ts';
import { Fault, isFault } from '../../../journal/fault.ts';
import { formatPoint, type PointId } from '../../../journal/point.ts';
import type { GuestDisk } from '../../../qemu/guest-disks.ts';
import type { QmpConnection } from '../../../qemu/qmp.ts';
import { removeBitmap, type BitmapAction } from '../bitmap-actions.ts';
import { queryNodes, unlessRefused } from '../guest-objects.ts';
import type { JobWatch } from '../job-watch.ts';
import { ownPrefix, parseLogNode, type CycleStamps } from '../object-names.ts';
import type { Spool, SpoolFile } from '../spool.ts';
import type { DeltaPart } from '../spooled-delta.ts';
import { logFlags } from './dm-log.ts';
import { addLog, allBitmap, cutBitmap, detachLogs, followSizes, logFiltersOver, loggedPath, logNode, pointDisk, removeLogNodes } from './log-nodes.ts';
import { KeptWindows, LogPart, type ReadLog } from './log-part.ts';
import { logSectorBytes, logStart, readStretch, type LogPosition, type LogSource } from './log-stretch.ts';
import { WrittenRanges } from './written-ranges.ts';

/** A log takes this much of the spool, at most a sixteenth of its budget: two for each disk are the least that can be changed. */
const logBytesMost = 256 * 1024 * 1024;
const logBytesLeast = 4 * 1024 * 1024;
/** A log that is full to this share is changed for a fresh one; to the second, and no fresh one is to be had, it is given up. */
const changeShare = 0.5;
const giveUpShare = 0.9;
/** At each so-manieth look after the logs, it is seen to that devices know of their disks' sizes. */
const looksPerSizes = 5;

interface LogFile { readonly disk: number; readonly stamp: string; readonly file: SpoolFile }
/** Of one disk: in the log of this stamp. Logs with later stamps follow it. */
type DiskPosition = LogPosition & { readonly stamp: string };

/** What another life of this daemon needs to go on with the logs. */
const logsFile = z.object({
  logs: z.array(z.object({ disk: z.number().int(), stamp: z.string(), capBytes: z.number().int() })),
  points: z.array(z.object({ point: z.string(), positions: z.array(z.object({ stamp: z.string(), at: z.number().int(), hasFlush: z.boolean() })) })),
});

export interface WriteLogsOptions {
  readonly groupId: string;
  readonly spool: Spool;
  /** Where the positions are noted for another life. */
  readonly notePath: string;
  readonly stamps: CycleStamps;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface LogGuest {
  readonly qmp: QmpConnection;
  readonly watch: JobWatch;
  readonly owner: { readonly uid: number; readonly gid: number };
  /** The disks as they are now. */
  listDisks(): Promise<readonly GuestDisk[]>;
}

export class WriteLogs {
  readonly #o: WriteLogsOptions;
  /** Of each disk, oldest first; empty: no logs. */
  #logs: LogFile[][] = [];
  #points = new Map<string, readonly DiskPosition[]>();
  /** Given up, and still in QEMU. */
  #stuck: LogFile[] = [];
  #outWhy = 'not yet put in';
  #usedBytes = 0;
  /** A cut's bitmaps may be there still. */
  #isCutBegun = false;
  /** Logs of ours, of this life or an earlier one, would not go out of QEMU. */
  #isStuck = false;
  /** What told of breaks since the logs were put in, or were looked at anew. */
  #watch: JobWatch | null = null;
  /** Of the guest, before that: of no interest. */
  #failedBefore = 0;
  #unreadable: Fault | null = null;
  #looks = 0;

  constructor(options: WriteLogsOptions) {
    this.#o = options;
  }

  get isIn(): boolean { return this.#logs.length > 0; }
  /** Why there are none just now. */
  get outWhy(): string { return this.#outWhy; }
  /** Bytes that the guest wrote into the logs that there are, as last asked. */
  get usedBytes(): number { return this.#usedBytes; }

  /** Whether the logs hold everything since this point. */
  holds(point: PointId): boolean {
    return this.isIn && this.#points.has(formatPoint(point));
  }

  /**
   * Puts a log over each disk. From the first moment on they hold every write, but of no point yet: {@link begin}, or a cut.
   * Faults: SPOOL_FULL, QMP_COMMAND (a QEMU without the filter, or a disk that will not have it), GUEST_UNSUITED, GUEST_CHANGED; nothing is left then.
   */
  async attach(guest: LogGuest, disks: readonly GuestDisk[]): Promise<void> {
    assert(!this.isIn, 'logs are attached once');
    if (this.#isStuck) await this.giveUp(guest, disks, this.#outWhy);
    if (this.#isStuck) throw new Fault('GUEST_CHANGED', 'an older write log is still in the guest: something stands upon it');
    const capBytes = await this.#capBytes(disks.length);
    const made: LogFile[] = [];
    try {
      for (const [disk, one] of disks.entries()) made.push(await this.#make(guest, disk, loggedPath(one).under, capBytes));
      for (const [disk, one] of disks.entries()) await pointDisk(guest.qmp, one, logNode(this.#place(made[disk]!), 'log-filter'));
    } catch (error) {
      this.#logs = made.map((one) => [one]);
      // With the disks as they are by now: some may have their log already.
      await this.giveUp(guest, await guest.listDisks(), 'they could not be put in');
      throw error;
    }
    this.#logs = made.map((one) => [one]);
    this.#points.clear();
    this.#isCutBegun = false;
    this.#unreadable = null;
    this.#listenTo(guest.watch);
  }

  /** The logs hold everything since `point`, as they were put in before it: of a full pass, say. */
  async begin(point: PointId): Promise<void> {
    if (!this.isIn) return;
    this.#points.set(formatPoint(point), this.#logs.map(([first]) => ({ stamp: first!.stamp, ...logStart })));
    await this.#note();
  }

  /** Actions for the transaction of a cut, behind what holds the disks still. {@link read} or {@link mark} follows. */
  async cutActions(guest: LogGuest): Promise<BitmapAction[]> {
    if (this.#isCutBegun) for (const one of this.#logs.flat()) await unlessRefused(guest.qmp.execute('block-dirty-bitmap-remove', { node: logNode(this.#place(one)), name: cutBitmap }));
    this.#isCutBegun = this.isIn;
    return this.#logs.flat().flatMap((one) => {
      const node = logNode(this.#place(one));
      return [
        { type: 'block-dirty-bitmap-add', data: { node, name: cutBitmap, granularity: logSectorBytes, disabled: true } },
        { type: 'block-dirty-bitmap-merge', data: { node, target: cutBitmap, bitmaps: [allBitmap] } },
      ];
    });
  }

  /** After a cut whose delta was copied otherwise: where it lies in the logs, so that the next can be read from them. */
  async mark(guest: LogGuest, point: PointId, disks: readonly GuestDisk[]): Promise<void> {
    const starts = this.#logs.map(([first]) => ({ stamp: first!.stamp, ...logStart }));
    await this.#read(guest, starts, point, disks, async (disk, ranges, logs) => { for (const log of logs) await log.release(); });
  }

  /**
   * After the transaction of a cut: what all disks wrote between `base` and the cut that may become `next`, each place once. Null when a
   * disk discarded something meanwhile: what it holds there depends on the image, its options and on what else was in the path
   * (a backup job's filter swallows discards), and no log says so. Faults: LOG_IMPLAUSIBLE, LOG_BROKEN: give the logs up.
   */
  async read(guest: LogGuest, base: PointId, next: PointId, disks: readonly GuestDisk[]): Promise<DeltaPart[] | null> {
    const from = this.#points.get(formatPoint(base));
    assert(from !== undefined, 'the logs hold the base');
    const parts: DeltaPart[] = [];
    try {
      const hasDiscards = await this.#read(guest, from, next, disks, (disk, ranges, logs) => { parts.push(new LogPart(disk, ranges.pieces(), logs)); });
      if (!hasDiscards) return parts;
    } catch (error) {
      for (const part of parts) await part.remove();
      throw error;
    }
    for (const part of parts) await part.remove();
    this.forget(next);
    return null;
  }

  /** What was cut as this point certainly is not at the target. */
  forget(point: PointId): void {
    this.#points.delete(formatPoint(point));
  }

  /** The target holds `point`: what lies before it is done with. */
  async advance(guest: LogGuest, point: PointId): Promise<void> {
    const positions = this.#points.get(formatPoint(point));
    if (positions === undefined) return;
    this.#points = new Map([[formatPoint(point), positions]]);
    const done = this.#logs.flatMap((logs, disk) => logs.slice(0, logs.findIndex(({ stamp }) => stamp === positions[disk]!.stamp)));
    if (done.length > 0) {
      this.#logs = this.#logs.map((logs) => logs.filter((one) => !done.includes(one)));
      try {
        await removeLogNodes(guest.qmp, new Set(this.#logs.flat().map(({ stamp }) => stamp)));
      } finally {
        for (const { file } of done) await file.remove();
      }
    }
    await this.#note();
  }

  /**
   * Looks after the logs between two cuts: changes those that fill up; true when they have to be given up, and why is in
   * {@link outWhy} then.
   */
  async tend(guest: LogGuest): Promise<boolean> {
    if (!this.isIn) return false;
    const broken = this.#broken(guest.watch);
    if (broken !== null) return this.#doubt(broken.message);
    if (this.#looks++ % looksPerSizes === 0) await followSizes(guest.qmp, await guest.listDisks());
    const { logBitmaps } = await queryNodes(guest.qmp);
    const counts = logBitmaps.filter(({ name }) => name === allBitmap);
    this.#usedBytes = counts.reduce((sum, { count }) => sum + count, 0);
    for (const [disk, logs] of this.#logs.entries()) {
      const newest = logs.at(-1)!;
      const used = counts.find(({ node }) => node === logNode(this.#place(newest)))?.count ?? Infinity;
      if (used < newest.file.capBytes * changeShare) continue;
      try {
        await this.#change(guest, disk);
      } catch (error) {
        if (!isFault(error, 'SPOOL_FULL') && !isFault(error, 'QMP_COMMAND') && !isFault(error, 'GUEST_CHANGED')) throw error;
        if (used >= newest.file.capBytes * giveUpShare) return this.#doubt(`the log of disk ${disk} is nearly full, and there is no other: ${error.message}`);
      }
    }
    return false;
  }

  /**
   * After a break, of the connection or of this daemon: whether the logs that are in the guest's path hold everything since
   * `held`. If not, they are taken out.
   */
  async reconcile(guest: LogGuest, disks: readonly GuestDisk[], held: PointId | null): Promise<void> {
    const { nodes } = await queryNodes(guest.qmp);
    if (!this.isIn && !nodes.some(({ node }) => parseLogNode(node) !== undefined)) return this.#forgetFiles();
    const why = held === null ? 'the target holds nothing to build on' : await this.#whyNot(guest, disks, held);
    if (why === null) await this.advance(guest, held!);
    else await this.giveUp(guest, disks, why);
  }

  /** Takes the logs out of the guest. What stands upon one of them keeps it; it is tried again with the next look. */
  async giveUp(guest: LogGuest, disks: readonly GuestDisk[], why: string): Promise<void> {
    if (this.isIn) this.#o.log.info({ why }, 'the write logs are taken out');
    this.#outWhy = why;
    const left = await detachLogs(guest.qmp, disks);
    const logs = [...this.#logs.flat(), ...this.#stuck];
    this.#logs = [];
    this.#points.clear();
    this.#usedBytes = 0;
    this.#unreadable = null;
    this.#isStuck = left.length > 0;
    const stamps = new Set(left.map((node) => parseLogNode(node)!.stamp));
    // A log that QEMU still has keeps its space, and its place in the budget.
    this.#stuck = logs.filter((one) => stamps.has(one.stamp));
    for (const one of logs) if (!stamps.has(one.stamp)) await one.file.remove();
    guest.watch.forgetBreaks((node) => parseLogNode(node) !== undefined);
    await rm(this.#o.notePath, { force: true });
    if (stamps.size === 0) await this.#o.spool.sweepLogs(new Set());
    if (left.length > 0) this.#o.log.warn({ left }, 'write logs that would not go: something stands upon them');
  }

  async #capBytes(diskCount: number): Promise<number> {
    const share = Math.min(this.#o.spool.budgetBytes / 16, await this.#o.spool.roomBytes() / (4 * diskCount));
    const capBytes = Math.floor(Math.min(logBytesMost, share) / logSectorBytes) * logSectorBytes;
    if (capBytes < logBytesLeast) throw new Fault('SPOOL_FULL', `the spool has no room for write logs of ${logBytesLeast} bytes`, { capBytes });
    return capBytes;
  }

  async #make(guest: LogGuest, disk: number, under: string, capBytes: number): Promise<LogFile> {
    const stamp = this.#o.stamps.next(this.#o.clock.nowMs());
    const file = await this.#o.spool.createLog(`${stamp}-${disk}`, capBytes, guest.owner);
    try {
      await addLog(guest.qmp, { groupId: this.#o.groupId, stamp, disk }, under, file.path, capBytes);
      return { disk, stamp, file };
    } catch (error) {
      await this.#unmake(guest, file);
      throw error;
    }
  }

  /** Takes out what was made of a log that is in nobody's path. */
  async #unmake(guest: LogGuest, file: SpoolFile): Promise<void> {
    try {
      await removeLogNodes(guest.qmp, new Set(this.#logs.flat().map(({ stamp }) => stamp)));
    } finally {
      await file.remove();
    }
  }

  /** A fresh log takes over; the old one stays until the target has what is in it. */
  async #change(guest: LogGuest, disk: number): Promise<void> {
    const newest = this.#logs[disk]!.at(-1)!;
    const filter = logNode(this.#place(newest), 'log-filter');
    const find = async (): Promise<{ one: GuestDisk; under: string }> => {
      const one = (await guest.listDisks())[disk];
      const path = one === undefined ? undefined : loggedPath(one);
      if (path?.filters[0] !== filter) throw new Fault('GUEST_CHANGED', `the log over disk ${disk} is not where it was put`, { disk });
      return { one: one!, under: path.under };
    };
    const { under } = await find();
    await followSizes(guest.qmp, await guest.listDisks());
    // The rest is for the copies, of this guest and of others, while a target is away.
    const takenBytes = this.#logs.flat().reduce((sum, { file }) => sum + file.capBytes, newest.file.capBytes);
    if (takenBytes > this.#o.spool.budgetBytes / 2) throw new Fault('SPOOL_FULL', `the write logs of this guest have half of the spool's budget`, { takenBytes });
    const fresh = await this.#make(guest, disk, under, newest.file.capBytes);
    try {
      // Asked again, as late as can be: an external snapshot that was put upon the log meanwhile must not be taken off.
      const now = await find();
      if (now.under !== under) throw new Fault('GUEST_CHANGED', `disk ${disk} is on ${now.under} now, not on ${under}`, { disk });
      await pointDisk(guest.qmp, now.one, logNode(this.#place(fresh), 'log-filter'));
    } catch (error) {
      await this.#unmake(guest, fresh.file);
      throw error;
    }
    this.#logs[disk]!.push(fresh);
    await unlessRefused(guest.qmp.execute('blockdev-del', { 'node-name': filter }));
    await this.#note();
  }

  async #read(
    guest: LogGuest, from: readonly DiskPosition[], point: PointId, disks: readonly GuestDisk[],
    onDisk: (disk: number, ranges: WrittenRanges, logs: readonly ReadLog[]) => void | Promise<void>,
  ): Promise<boolean> {
    const { logBitmaps } = await queryNodes(guest.qmp);
    const counts = new Map(logBitmaps.filter(({ name }) => name === cutBitmap).map(({ node, count }) => [node, count]));
    await guest.qmp.execute('transaction', { actions: this.#logs.flat().map((one) => removeBitmap(logNode(this.#place(one)), cutBitmap)) });
    this.#isCutBegun = false;
    // What QEMU reported of a log before it answered has arrived.
    const broken = this.#broken(guest.watch);
    if (broken !== null) throw broken;
    for (const [disk, one] of disks.entries()) {
      // Only we put a log over a disk: one that is there now was there all the time.
      if (!this.#isOver(one, disk)) throw new Fault('LOG_BROKEN', `somebody took the log off disk ${disk}: what it wrote since is not in there`, { disk });
    }
    const positions: DiskPosition[] = [];
    let hasDiscards = false;
    const onDiscard = (): void => { hasDiscards = true; };
    for (const [disk, files] of this.#logs.entries()) {
      const ranges = new WrittenRanges();
      const logs: ReadLog[] = [];
      try {
        positions.push(await this.#readDisk(files, from[disk]!, disks[disk]!.sizeBytes, counts, ranges, logs, onDiscard));
      } catch (error) {
        for (const log of logs) await log.release();
        throw error;
      }
      await onDisk(disk, ranges, logs);
    }
    this.#points.set(formatPoint(point), positions);
    await this.#note();
    return hasDiscards;
  }

  /** Lays what one disk's logs hold from `start` up to the cut into `ranges`, whose pieces number the logs as `logs` does. */
  async #readDisk(
    files: readonly LogFile[], start: DiskPosition, diskBytes: number, counts: ReadonlyMap<string, number>, ranges: WrittenRanges, logs: ReadLog[], onDiscard: () => void,
  ): Promise<DiskPosition> {
    const first = files.findIndex(({ stamp }) => stamp === start.stamp);
    assert(first >= 0, 'the log of a position is kept');
    let position = start;
    for (const [index, one] of files.slice(first).entries()) {
      const kept = new KeptWindows();
      const source = this.#source(one.file);
      logs.push({ source, kept, release: one.file.retain() });
      const writtenBytes = counts.get(logNode(this.#place(one)));
      if (writtenBytes === undefined) throw new Fault('LOG_BROKEN', `the log ${one.stamp} of disk ${one.disk} is gone from QEMU`, { disk: one.disk });
      const end = await readStretch(source, index === 0 ? start : logStart, writtenBytes, diskBytes, ({ offset, length, flags, dataAt }) => {
        if ((flags & logFlags.discard) === 0) ranges.add(offset, length, index, dataAt);
        else onDiscard();
      }, (window) => kept.add(window));
      position = { stamp: one.stamp, ...end };
    }
    return position;
  }

  /** Whether all that the device writes to the disk goes into its newest log, and into no other. */
  #isOver(one: GuestDisk, disk: number): boolean {
    const filters = logFiltersOver(one);
    return filters.length === 1 && filters[0] === logNode(this.#place(this.#logs[disk]!.at(-1)!), 'log-filter');
  }

  #broken(watch: JobWatch): Fault | null {
    if (this.#unreadable !== null) return this.#unreadable;
    // It is in the log like any other, and on the disk perhaps in part.
    if (watch === this.#watch && watch.failedWrites > this.#failedBefore) return new Fault('LOG_BROKEN', 'a write of the guest failed: no log says what the disk holds there');
    const found = watch.breaks(ownPrefix).find(({ node }) => parseLogNode(node) !== undefined);
    return found === undefined ? null : new Fault('LOG_BROKEN', `the write log ${found.node} did not take a ${found.type}: ${found.error}`, { ...found });
  }

  /** A log that cannot be read any more is given up like a broken one: the bitmaps have it all. */
  #source(file: SpoolFile): LogSource {
    const read: LogSource['read'] = async (into, intoAt, length, at) => {
      try {
        await file.read(into, intoAt, length, at);
      } catch (error) {
        throw this.#unreadable ??= new Fault('LOG_BROKEN', `the write log ${file.path} cannot be read: ${(error as Error).message}`, { path: file.path }, error);
      }
    };
    return { sizeBytes: file.sizeBytes, read };
  }

  /** Whether a break may have gone unheard between two connections. Within space of its own, a log does not break. */
  async #whyUnheard(watch: JobWatch): Promise<string | null> {
    if (watch === this.#watch) return null;
    const told = this.#watch === null ? null : this.#broken(this.#watch);
    if (told !== null) return told.message;
    for (const { disk, file } of this.#logs.flat()) {
      if (!await file.hasAllSpace()) return `the log of disk ${disk} has no space of its own, and nobody listened for a while`;
    }
    this.#listenTo(watch);
    return null;
  }

  #listenTo(watch: JobWatch): void {
    this.#watch = watch;
    this.#failedBefore = watch.failedWrites;
  }

  #doubt(why: string): true {
    this.#outWhy = why;
    return true;
  }

  /** Null: the logs in the path are ours, whole, and hold everything since `held`. */
  async #whyNot(guest: LogGuest, disks: readonly GuestDisk[], held: PointId): Promise<string | null> {
    if (!this.isIn) {
      const why = await this.#adopt(disks.length);
      if (why !== null) return why;
    }
    if (!this.#points.has(formatPoint(held))) return `the logs know nothing of point ${formatPoint(held)}, which the target holds`;
    if (this.#logs.length !== disks.length) return 'the guest has other disks than when the logs were put in';
    const broken = this.#broken(guest.watch);
    if (broken !== null) return broken.message;
    const unheard = await this.#whyUnheard(guest.watch);
    if (unheard !== null) return unheard;
    const { logBitmaps } = await queryNodes(guest.qmp);
    for (const [disk, logs] of this.#logs.entries()) {
      if (!this.#isOver(disks[disk]!, disk)) return `the log over disk ${disk} is not where it was put`;
      for (const one of logs) {
        const all = logBitmaps.find(({ node, name }) => name === allBitmap && node === logNode(this.#place(one)));
        if (all?.isRecording !== true) return `the log ${one.stamp} of disk ${disk} is gone from QEMU`;
        // Past its bound a log has holes, and the event that said so may have come while nobody listened.
        if (all.count + logSectorBytes > one.file.capBytes) return `the log of disk ${disk} went past its bound while nobody looked`;
      }
    }
    return null;
  }

  /** Takes over what an earlier life noted. */
  async #adopt(diskCount: number): Promise<string | null> {
    const noted = await readJson(this.#o.notePath, logsFile).catch(() => null);
    if (noted === null) return 'an earlier life of the daemon left no note of them';
    const logs: LogFile[][] = Array.from({ length: diskCount }, () => []);
    for (const { disk, stamp, capBytes } of noted.logs) {
      const file = await this.#o.spool.adoptLog(`${stamp}-${disk}`, capBytes);
      if (file === null || logs[disk] === undefined) {
        await file?.close();
        for (const one of logs.flat()) await one.file.close();
        return `the log ${stamp} of disk ${disk} is gone from the spool`;
      }
      logs[disk].push({ disk, stamp, file });
    }
    if (logs.some((files) => files.length === 0)) {
      for (const one of logs.flat()) await one.file.close();
      return 'a disk has no log';
    }
    this.#logs = logs;
    this.#isCutBegun = true;
    this.#points = new Map(noted.points.filter(({ positions }) => positions.every(({ stamp }, disk) => logs[disk]?.some((one) => one.stamp === stamp) ?? false))
      .map(({ point, positions }) => [point, positions]));
    this.#o.log.info({ points: [...this.#points.keys()] }, 'the write logs of an earlier life are gone on with');
    return null;
  }

  async #forgetFiles(): Promise<void> {
    await rm(this.#o.notePath, { force: true });
    await this.#o.spool.sweepLogs(new Set());
  }

  /** Not synced: what it is about does not outlive the host. */
  async #note(): Promise<void> {
    const logs = this.#logs.flat().map(({ disk, stamp, file }) => ({ disk, stamp, capBytes: file.capBytes }));
    const points = [...this.#points].map(([point, positions]) => ({ point, positions: positions.map((position) => ({ ...position })) }));
    await replaceJson(this.#o.notePath, { logs, points } satisfies z.infer<typeof logsFile>, false);
  }

  #place({ disk, stamp }: LogFile): { groupId: string; stamp: string; disk: number } {
    return { groupId: this.#o.groupId, stamp, disk };
  }
}
