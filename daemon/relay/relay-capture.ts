/**
 * The capture of a guest whose points are at the target of this host already: what changed between two of them is read from that target, over NBD, and
 * sent on to another. So the guest's QEMU is asked nothing twice, both targets have the same points under the same numbers, and a target that was away
 * gets in one delta what it missed. It reads points only: it cuts none, and knows no bitmaps.
 */
import type { Clock } from '../../host/clock.ts';
import { splitListener } from '../../host/listener-path.ts';
import type { Extent } from '../../journal/extents.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { recordHeaderBytes, runBytesMax } from '../../journal/limits.ts';
import { comparePoints, formatPoint, isSamePoint, type PointId, type PointKind } from '../../journal/point.ts';
import type { AgentChannel } from '../../qemu/agent-channel.ts';
import { connectNbd, type NbdClient } from '../../qemu/nbd-client.ts';
import type { Capture, CapturedDelta, CapturedDisk, CapturedGuest, CapturedRun, CaptureFigures, CaptureStanding, FullPassOptions, FullPassSink, GuestPower } from '../capture/capture.ts';
import { piecesOf, type Piece } from './pieces.ts';

/** A point that the target of this host holds. */
export interface RelayedPoint extends PointId {
  readonly kind: PointKind;
  readonly cutAtMs: number;
}

/** The guest, as the supervisor that protects it to the target of this host sees it. */
export interface RelayedGuest {
  /** The newest point that target holds; null: none is known. */
  newest(): RelayedPoint | null;
  /** Resolves when there is a newer one than `since`. Rejects with the signal's reason. */
  awaitNewer(since: PointId, signal: AbortSignal): Promise<void>;
  disks(): readonly CapturedDisk[];
  hardware(): Readonly<Record<string, unknown>>;
  power(): GuestPower;
  /** Resolves when that target holds the final point of a guest that stands still. */
  takeFinal(): Promise<void>;
}

export interface RelayCaptureOptions {
  readonly groupId: string;
  /** Points of this term and later are sent on. */
  readonly term: number;
  /** Unix socket on which the target of this host serves points: its path, or `user://UID/PATH` (host/node/listener.ts). */
  readonly pointsPath: string;
  /** What changed between two points of the target of this host, by disk. Fault POINT_UNKNOWN: it cannot say any more. */
  readonly changes: (since: PointId, point: PointId) => Promise<readonly { readonly disk: number; readonly extents: readonly Extent[] }[]>;
  readonly guest: RelayedGuest;
  readonly clock: Clock;
}

/** Reads under way of one disk. */
const readsMax = 8;
/** Runs of a pass that are read ahead. */
const aheadMax = 4;

export class RelayCapture implements Capture {
  readonly #o: RelayCaptureOptions;
  readonly #over = new Set<(fault: Fault) => void>();
  #disks: readonly CapturedDisk[] = [];
  /** What a full pass reads, or has read. */
  #passed: RelayedPoint | null = null;
  #isPassSettled = false;
  #clients: NbdClient[] = [];
  #figures = { cycles: 0, droppedCycles: 0 };

  constructor(options: RelayCaptureOptions) {
    this.#o = options;
  }

  async connect(): Promise<CapturedGuest> {
    await this.#closeClients();
    this.#disks = this.#o.guest.disks();
    this.#newest();
    return { disks: this.#disks, hardware: this.#o.guest.hardware() };
  }

  closed(): Promise<Fault> {
    return new Promise((resolve) => { this.#over.add(resolve); });
  }

  disks(): readonly CapturedDisk[] { return this.#disks; }
  measureDirtyBytes(): Promise<number> { return Promise.resolve(0); }
  power(): GuestPower { return this.#o.guest.power(); }
  begin(): Promise<void> { return Promise.reject(new Fault('REQUEST_INVALID', 'points that are sent on begin where the other target stands')); }
  agentChannel(): Promise<AgentChannel> { return Promise.resolve({ kind: 'none', why: 'its points are sent on from the target of this host' }); }
  choose(): void { /* whatever captures them, points are points */ }
  pausePass(): Promise<void> { return Promise.resolve(); }
  rest(): Promise<void> { return Promise.resolve(); }
  park(): Promise<void> { return Promise.resolve(); }

  figures(): CaptureFigures {
    return {
      capture: 'cbt', captureWhy: 'its points are sent on from the target of this host', logBytes: 0, dirtyBytes: 0, spoolBytes: 0, spoolBudgetBytes: 0,
      inPathMs: 0, cutMs: 0, logCuts: 0, rounds: 0, ...this.#figures,
    };
  }

  /** A point that both targets have is a base as long as the one of this host can say what changed since. */
  async reconcile(held: PointId | null): Promise<CaptureStanding> {
    await this.#closeClients();
    this.#disks = this.#o.guest.disks();
    if (held === null) return { standing: 'resync', why: 'the other target holds nothing of this guest' };
    if (this.#isPassSettled && this.#passed !== null && held.point === 0) return { standing: 'ready' };
    // What was passed over is sealed, or is no longer all that the delta would need.
    this.#isPassSettled = false;
    const newest = this.#newest();
    if (held.point === 0 || comparePoints(held, newest) > 0) return { standing: 'resync', why: `${formatPoint(held)} is no point of the target of this host` };
    const known = await this.#changes(held, newest);
    return known === null ? { standing: 'resync', why: `what changed since ${formatPoint(held)} is not known any more` } : { standing: 'ready' };
  }

  passPoint(): PointId {
    this.#isPassSettled = false;
    this.#passed = this.#newest();
    return this.#passed;
  }

  /** Of a point, which does not change meanwhile. Where the other side's images are known to be those of a point, only what changed since is read. */
  async fullPass(sink: FullPassSink, { onProgress, signal, rateBytesPerSecond, images }: FullPassOptions): Promise<void> {
    const point = this.#passed ?? this.#newest();
    const pieces: Piece[] = [];
    const changes = images == null ? null : await this.#changes(images, point);
    for (const disk of this.#disks) pieces.push(...await this.#pieces(disk, point, changes));
    const totalBytes = pieces.reduce((sum, { length }) => sum + length, 0);
    const begunMs = this.#o.clock.monotonicMs();
    let doneBytes = 0;
    const underWay: Promise<void>[] = [];
    try {
      for (const piece of pieces) {
        signal.throwIfAborted();
        if (rateBytesPerSecond > 0) await this.#o.clock.delay(Math.max(0, (doneBytes / rateBytesPerSecond) * 1000 - (this.#o.clock.monotonicMs() - begunMs)), signal);
        if (underWay.length >= aheadMax) await underWay.shift();
        const passing = this.#pass(sink, piece);
        passing.catch(() => undefined);
        underWay.push(passing);
        doneBytes += piece.length;
        onProgress({ doneBytes, totalBytes });
      }
      await Promise.all(underWay);
    } finally {
      await Promise.allSettled(underWay);
      await this.#closeClients();
    }
  }

  settlePass(): Promise<void> {
    this.#isPassSettled = true;
    return Promise.resolve();
  }

  awaitChange(base: PointId, signal: AbortSignal): Promise<void> {
    return this.#isPassSettled ? Promise.resolve() : this.#o.guest.awaitNewer(base, signal);
  }

  async cut(base: PointId, _next: PointId, kind: PointKind): Promise<CapturedDelta> {
    const passed = this.#isPassSettled ? this.#passed : null;
    // The pass left the other target with exactly this point; all that is missing is its seal.
    if (passed !== null) return this.#deltaOf(passed, []);
    if (kind === 'final') await this.#o.guest.takeFinal();
    const point = this.#newest();
    if (isSamePoint(point, base)) throw new Fault('GUEST_CHANGED', `there is no newer point than ${formatPoint(base)}`);
    if (JSON.stringify(this.#o.guest.disks()) !== JSON.stringify(this.#disks)) throw new Fault('GUEST_CHANGED', 'the disks are not what they were');
    const changes = await this.#changes(base, point);
    if (changes === null) throw new Fault('GUEST_CHANGED', `what changed since ${formatPoint(base)} is not known any more`);
    const pieces: Piece[] = [];
    try {
      for (const disk of this.#disks) pieces.push(...await this.#pieces(disk, point, changes));
    } catch (error) {
      await this.#closeClients();
      throw error;
    }
    return this.#deltaOf(point, pieces);
  }

  async release(): Promise<void> { await this.close(); }

  async close(): Promise<void> {
    await this.#closeClients();
    const fault = new Fault('QMP_CLOSED', 'points are not sent on any more');
    for (const over of this.#over) over(fault);
    this.#over.clear();
  }

  #deltaOf(point: RelayedPoint, pieces: readonly Piece[]): CapturedDelta {
    const { clock } = this.#o;
    const nowMs = clock.nowMs();
    this.#figures.cycles += 1;
    return {
      id: { term: point.term, point: point.point }, isRound: false, kind: point.kind, cutAtMs: point.cutAtMs,
      cutMonotonicMs: clock.monotonicMs() - Math.max(0, nowMs - point.cutAtMs),
      disks: this.#disks.map(({ disk, sizeBytes }) => ({ disk, sizeBytes })),
      changedBytes: pieces.reduce((sum, { length }) => sum + length, 0),
      runs: () => pieces.map(runOf),
      end: async (outcome) => {
        if (outcome === 'acknowledged') this.#isPassSettled = false;
        else this.#figures.droppedCycles += 1;
        await this.#closeClients();
      },
    };
  }

  async #pass(sink: FullPassSink, { client, disk, offset, length, isZero }: Piece): Promise<void> {
    if (isZero) return sink.zero(disk, offset, length);
    const buffer = sink.buffers?.take(length) ?? Buffer.allocUnsafe(recordHeaderBytes + length);
    await client.read(buffer, recordHeaderBytes, length, offset);
    await sink.write(disk, offset, buffer, recordHeaderBytes);
  }

  /** `changes` null: all of it. */
  async #pieces({ disk }: CapturedDisk, point: PointId, changes: Changes | null): Promise<Piece[]> {
    const extents = changes === null ? null : changes.find((one) => one.disk === disk)?.extents ?? [];
    if (extents?.length === 0) return [];
    const { path, uid } = splitListener(this.#o.pointsPath);
    const client = await connectNbd({ path, listenerUid: uid, exportName: `${this.#o.groupId}/${disk}@${formatPoint(point)}`, requestsMax: readsMax, metaContexts: ['base:allocation'] });
    this.#clients.push(client);
    return piecesOf(client, disk, extents ?? [{ start: 0, end: client.sizeBytes }], Math.min(runBytesMax, client.sizes.payloadBytesMax));
  }

  /** Null: the target of this host cannot say any more. */
  async #changes(since: PointId, point: PointId): Promise<Changes | null> {
    if (comparePoints(since, point) > 0) return null;
    try {
      return await this.#o.changes(since, point);
    } catch (error) {
      if (isFault(error, 'POINT_UNKNOWN')) return null;
      throw error;
    }
  }

  #newest(): RelayedPoint {
    const newest = this.#o.guest.newest();
    if (newest === null || newest.term < this.#o.term) throw new Fault('GROUP_UNCOMMITTED', 'the target of this host has no point of this term yet', { term: this.#o.term });
    return newest;
  }

  async #closeClients(): Promise<void> {
    await Promise.all(this.#clients.splice(0).map((client) => client.close()));
  }
}

type Changes = Awaited<ReturnType<RelayCaptureOptions['changes']>>;

function runOf({ client, disk, offset, length, isZero }: Piece): CapturedRun {
  if (isZero) return { kind: 'zero', disk, offset, length };
  return { kind: 'data', disk, offset, length, read: (into, at) => client.read(into, at, length, offset) };
}
