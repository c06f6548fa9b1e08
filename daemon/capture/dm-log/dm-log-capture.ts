/**
 * The capture for a disk that no QEMU serves: a device of the kernel's dm-log-writes target, whose log is read. Nothing is put into
 * anybody's path: the log is there already, and only grows. One disk, named by its device.
 *
 * A cut is a barrier in the log (log-barrier.ts): the device's state as a power failure right then would leave it. A full pass reads
 * the device while it is written; a barrier is raised before, and the cut after it takes all that was logged since, which makes
 * right whatever the pass read too late or torn. The same is done with the few places where the log does not tell which of two writes
 * came last (out-of-order.ts). Of a discarded range the kernel promises nothing until it is written again; the
 * replica goes on with what it has there.
 *
 * Invariant: the note on disk names every point that the target may hold as its newest, each with the place in the log up to which
 * that point has everything. A place counts only while the mark behind which it lies stands in the log where it stood.
 */
import assert from 'node:assert/strict';
import { mkdir, rm } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { z } from 'zod';
import type { Clock } from '../../../host/clock.ts';
import { readJson, replaceJson } from '../../../host/node/json-file.ts';
import type { Random } from '../../../host/random.ts';
import { Fault } from '../../../journal/fault.ts';
import { recordHeaderBytes } from '../../../journal/limits.ts';
import { isSamePoint, type PointId, type PointKind } from '../../../journal/point.ts';
import type { AgentChannel } from '../../../qemu/agent-channel.ts';
import type { Capture, CapturedDelta, CapturedDisk, CapturedGuest, CaptureFigures, CaptureStanding, CutHold, FullPassOptions, FullPassSink, GuestPower } from '../capture.ts';
import { SpooledDelta } from '../spooled-delta.ts';
import { logFlags, type LogEntry } from '../writelog/dm-log.ts';
import { KeptWindows, LogPart } from '../writelog/log-part.ts';
import type { LogSource } from '../writelog/log-stretch.ts';
import { WrittenRanges } from '../writelog/written-ranges.ts';
import { DirectFile } from './direct-file.ts';
import { findDoubtful } from './out-of-order.ts';
import { isPlaceOf, markByDmsetup, raiseBarrier, type Barrier, type LogPlace, type MarkWriter } from './log-barrier.ts';

export interface DmLogCaptureOptions {
  /** The device of the dm-log-writes target, and the one that it logs to. */
  readonly devicePath: string;
  readonly logPath: string;
  /** Where the note of places is kept. */
  readonly notePath: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Absent: `dmsetup message`. */
  readonly writeMark?: MarkWriter;
}

const place = z.object({ term: z.number().int(), point: z.number().int(), at: z.number().int(), markAt: z.number().int(), mark: z.string() });
const note = z.object({ places: z.array(place) });
type NotedPlace = z.infer<typeof place>;

/** Held in memory for one cut. */
const seenBytesMax = 64 * 1024 * 1024;
/** Read at once in a full pass. */
const passBytes = 1024 * 1024;
/** Between two calls of onProgress, ms. */
const tellMs = 200;
/** Between two looks at whether a pass goes on, ms. */
const pauseLookMs = 50;

interface Opened { readonly device: DirectFile; readonly log: DirectFile; readonly disk: CapturedDisk; closed(fault: Fault): void; readonly over: Promise<Fault> }

export class DmLogCapture implements Capture {
  readonly #o: DmLogCaptureOptions;
  #opened: Opened | null = null;
  #places: readonly NotedPlace[] = [];
  /** The target's newest point, as it was reconciled. Null: reconcile first. */
  #standing: NotedPlace | null = null;
  #passed: LogPlace | null = null;
  #delta: SpooledDelta | null = null;
  #isPaused = false;
  #figures = { logBytes: 0, dirtyBytes: 0, cutMs: 0, cycles: 0, droppedCycles: 0 };

  constructor(options: DmLogCaptureOptions) {
    this.#o = options;
  }

  async connect(): Promise<CapturedGuest> {
    await this.close();
    const { devicePath, logPath } = this.#o;
    const device = await DirectFile.open(devicePath);
    try {
      const sizeBytes = await device.sizeBytes();
      if (sizeBytes === 0 || sizeBytes % 512 !== 0) throw new Fault('GUEST_UNSUITED', `${devicePath} has ${sizeBytes} bytes, which is no disk`, { devicePath });
      let closed: (fault: Fault) => void = () => undefined;
      const over = new Promise<Fault>((resolve) => { closed = resolve; });
      this.#opened = { device, log: await DirectFile.open(logPath), disk: { disk: 0, name: basename(devicePath), sizeBytes }, closed, over };
    } catch (error) {
      await device.close();
      throw error;
    }
    this.#places = (await readJson(this.#o.notePath, note))?.places ?? [];
    return { disks: this.disks(), hardware: {} };
  }

  closed(): Promise<Fault> {
    return this.#open().over;
  }

  measureDirtyBytes(): Promise<number> {
    return Promise.resolve(this.#figures.dirtyBytes);
  }

  async reconcile(held: PointId | null): Promise<CaptureStanding> {
    assert(this.#delta === null, 'a delta is ended before it is reconciled');
    const { log } = this.#open();
    this.#standing = null;
    const noted = held === null ? undefined : this.#places.find((known) => isSamePoint(known, held));
    if (noted === undefined) return { standing: 'resync', why: `where in the log ${log.path} the target stands is not known` };
    if (!await isPlaceOf(log, noted)) return { standing: 'resync', why: `the log ${log.path} is not the one that was read before` };
    this.#standing = noted;
    return { standing: 'ready' };
  }

  disks(): readonly CapturedDisk[] {
    return [this.#open().disk];
  }

  async cut(base: PointId, next: PointId, kind: PointKind, hold?: CutHold): Promise<CapturedDelta> {
    const { log, disk } = this.#open();
    const standing = this.#standing;
    assert(standing !== null && isSamePoint(standing, base) && this.#delta === null, 'reconciled with its base');
    await this.#refuseChange();
    await hold?.begin();
    const begunMs = this.#o.clock.monotonicMs();
    let reached: NotedPlace;
    const ranges = new WrittenRanges();
    const seen: Buffer[] = [];
    // What was completed by now is in the cut.
    const cutAtMs = this.#o.clock.nowMs();
    let heldKind = kind;
    try {
      reached = { ...next, ...await this.#collect(standing, ranges, seen) };
      heldKind = await hold?.release(true) ?? kind;
    } catch (error) {
      await hold?.release(false);
      this.#standing = null;
      throw error;
    }
    // Before anything is sent: the target may hold it whatever becomes of this process.
    await this.#note([standing, reached]);
    const part = new LogPart(0, ranges.pieces(), [sourceOf(log), memoryOf(Buffer.concat(seen))].map((source) => ({ source, kept: new KeptWindows(), release: () => Promise.resolve() })));
    this.#figures.cutMs = this.#o.clock.monotonicMs() - begunMs;
    this.#figures.dirtyBytes = part.bytes;
    this.#figures.logBytes = reached.at - standing.at;
    const delta = new SpooledDelta({
      isRound: false, kind: heldKind, cutAtMs, cutMonotonicMs: begunMs, disks: [disk], parts: [part],
      settle: async (outcome) => {
        this.#delta = null;
        if (outcome === 'acknowledged') {
          this.#standing = reached;
          this.#figures.cycles += 1;
          this.#figures.dirtyBytes = this.#figures.logBytes = 0;
          await this.#note([reached]);
        } else {
          this.#figures.droppedCycles += 1;
          if (outcome === 'unknown') this.#standing = null;
        }
      },
    });
    this.#delta = delta;
    return delta;
  }

  async fullPass(sink: FullPassSink, options: FullPassOptions): Promise<void> {
    const { device, disk: { sizeBytes } } = this.#open();
    await this.#refuseChange();
    this.#standing = null;
    // Behind the newest place that is this log's, if there is one: a whole log may be long.
    const known = this.#places.at(-1);
    this.#passed = (await this.#barrier(known !== undefined && await isPlaceOf(this.#open().log, known) ? known : null)).place;
    const begunMs = this.#o.clock.monotonicMs();
    let toldMs = 0;
    for (let at = 0; at < sizeBytes; at += passBytes) {
      while (this.#isPaused) await this.#o.clock.delay(pauseLookMs, options.signal);
      options.signal.throwIfAborted();
      const length = Math.min(passBytes, sizeBytes - at);
      const buffer = sink.buffers?.take(length) ?? Buffer.allocUnsafe(recordHeaderBytes + length);
      const bytes = buffer.subarray(recordHeaderBytes);
      if (await device.read(bytes, at) < length) throw new Fault('GUEST_CHANGED', `${device.path} ends before ${at + length}`, { at });
      // Zeroes too go as data: a comparison wants their hash, and the encoder sees to what travels.
      await sink.write(0, at, buffer, recordHeaderBytes);
      const now = this.#o.clock.monotonicMs();
      if (options.rateBytesPerSecond > 0) await this.#o.clock.delay(Math.max(0, begunMs + ((at + length) / options.rateBytesPerSecond) * 1000 - now), options.signal);
      if (now - toldMs < tellMs && at + length < sizeBytes) continue;
      toldMs = now;
      options.onProgress({ doneBytes: at + length, totalBytes: sizeBytes });
    }
  }

  async settlePass(base: PointId): Promise<void> {
    assert(this.#passed !== null, 'a pass comes before');
    this.#standing = { term: base.term, point: base.point, ...this.#passed };
    this.#passed = null;
    await this.#note([this.#standing]);
  }

  pausePass(isPaused: boolean): Promise<void> {
    this.#isPaused = isPaused;
    return Promise.resolve();
  }

  figures(): CaptureFigures {
    const { cycles } = this.#figures;
    return { capture: 'writelog', captureWhy: `the log ${this.#o.logPath} of dm-log-writes is followed`, ...this.#figures, spoolBytes: 0, spoolBudgetBytes: 0, inPathMs: 0, logCuts: cycles, rounds: 0 };
  }

  begin(): Promise<void> {
    return Promise.reject(noGuest());
  }

  power(): GuestPower {
    throw noGuest();
  }

  agentChannel(): Promise<AgentChannel> {
    return Promise.resolve({ kind: 'none', why: 'no QEMU serves this disk' });
  }

  /** There is one way only. */
  choose(): void { /* whatever is chosen, the log is followed */ }

  rest(): Promise<void> {
    return Promise.resolve();
  }

  park(): Promise<void> {
    return Promise.resolve();
  }

  async release(): Promise<void> {
    await this.close();
    await rm(this.#o.notePath, { force: true });
  }

  async close(): Promise<void> {
    const opened = this.#opened;
    if (opened === null) return;
    this.#opened = null;
    this.#standing = null;
    opened.closed(new Fault('QMP_CLOSED', 'closed by us'));
    await Promise.all([opened.device.close(), opened.log.close()]);
  }

  #open(): Opened {
    if (this.#opened === null) throw new Fault('QMP_CLOSED', `${this.#o.devicePath} is not open`);
    return this.#opened;
  }

  #barrier(from: LogPlace | null): Promise<Barrier> {
    const { device, log } = this.#open();
    const { clock, random, writeMark } = this.#o;
    return raiseBarrier({ clock, random, writeMark: writeMark ?? markByDmsetup }, device, log, from);
  }

  /** Puts all writes since `from` into `ranges`, and what had to be read from the device for it into `seen`. */
  async #collect(from: LogPlace, ranges: WrittenRanges, seen: Buffer[]): Promise<LogPlace> {
    const { device, disk } = this.#open();
    let seenBytes = 0;
    let reached = from;
    for (;;) {
      const barrier = await this.#barrier(reached);
      for (const entry of barrier.entries) addWrite(ranges, entry, disk.sizeBytes);
      reached = barrier.place;
      const doubtful = findDoubtful(barrier.entries);
      if (doubtful.length === 0) return reached;
      // As in a full pass: read now, made right by what is logged up to another barrier.
      for (const { offset, length } of doubtful) {
        if (seenBytes + length > seenBytesMax) throw new Fault('CUT_BLURRED', `more than ${seenBytesMax} bytes of ${device.path} were written in an order that its log does not tell`, {});
        const bytes = Buffer.allocUnsafe(length);
        await device.read(bytes, offset);
        ranges.add(offset, length, 1, seenBytes);
        seen.push(bytes);
        seenBytes += length;
      }
    }
  }

  async #refuseChange(): Promise<void> {
    const { device, disk } = this.#open();
    const sizeBytes = await device.sizeBytes();
    if (sizeBytes !== disk.sizeBytes) throw new Fault('GUEST_CHANGED', `${device.path} has ${sizeBytes} bytes, and had ${disk.sizeBytes}`, { sizeBytes });
  }

  async #note(places: readonly NotedPlace[]): Promise<void> {
    await mkdir(dirname(this.#o.notePath), { recursive: true, mode: 0o711 });
    await replaceJson(this.#o.notePath, { places });
    this.#places = places;
  }
}

function addWrite(ranges: WrittenRanges, { at, dataAt, offset, length, flags }: LogEntry, diskBytes: number): void {
  if (offset + length > diskBytes) throw new Fault('LOG_IMPLAUSIBLE', `the entry at ${at} lies at ${offset} + ${length}, beyond the disk`, { at });
  if ((flags & logFlags.discard) === 0) ranges.add(offset, length, 0, dataAt);
}

function noGuest(): Fault {
  return new Fault('GUEST_UNSUITED', 'no QEMU serves this disk: there is no guest to start or to stop');
}

function memoryOf(bytes: Buffer): LogSource {
  return { sizeBytes: bytes.length, read: (into, intoAt, length, at) => { bytes.copy(into, intoAt, at, at + length); return Promise.resolve(); } };
}

function sourceOf(log: DirectFile): LogSource {
  return {
    sizeBytes: Number.MAX_SAFE_INTEGER,
    read: async (into, intoAt, length, at) => {
      const read = await log.read(into.subarray(intoAt, intoAt + length), at);
      if (read < length) throw new Fault('LOG_IMPLAUSIBLE', `the log ${log.path} ends within data at ${at}`, { at });
    },
  };
}
