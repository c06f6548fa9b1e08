/**
 * The seam between the captures and all that follows: whatever the capture, what comes out is a delta.
 * Nothing here knows QEMU, the wire or the journal's bytes.
 */
import type { Fault } from '../../journal/fault.ts';
import type { PointId, PointKind } from '../../journal/point.ts';
import type { JointFacts } from '../../journal/seal.ts';
import type { AgentChannel } from '../../qemu/agent-channel.ts';
import type { GuestImage } from '../../qemu/guest-images.ts';
import type { RunState, ShutDownOptions } from '../../qemu/guest-power.ts';

/** One run of bytes of one disk, at most journal/limits.ts `runBytesMax` long when it is data. */
export type CapturedRun =
  | { readonly kind: 'zero'; readonly disk: number; readonly offset: number; readonly length: number }
  | {
    readonly kind: 'data'; readonly disk: number; readonly offset: number; readonly length: number;
    /** Reads the run's bytes into `into` at `at`. Valid until the delta is ended. */
    read(into: Buffer, at: number): Promise<void>;
  };

export interface DiskSize { readonly disk: number; readonly sizeBytes: number }

/** A delta (or, when `isRound`, a part of one that is not sealed yet) that the capture holds until it is ended. */
export interface CapturedDelta {
  /** Where the point has its number already; else it gets the one that follows. */
  readonly id?: PointId;
  /** True: send the runs as a part, never as a point. */
  readonly isRound: boolean;
  readonly kind: PointKind;
  /** Wall clock and monotonic clock of the source at the cut, ms. */
  readonly cutAtMs: number;
  readonly cutMonotonicMs: number;
  /** Of a cut of several guests. */
  readonly about?: JointFacts;
  readonly disks: readonly DiskSize[];
  /** Bytes of all runs, known before the first is read. */
  readonly changedBytes: number;
  /** In order of disk and offset. */
  runs(): Iterable<CapturedRun>;
  /**
   * `acknowledged`: the target holds it durably; what was kept for it is released. `dropped`: it is certainly not there; what
   * it held goes into the next delta. `unknown`: the connection was lost before the acknowledgement; the spool is freed, both
   * bitmaps stay until `reconcile` is told what the target holds. Resolves when that is done.
   */
  end(outcome: 'acknowledged' | 'dropped' | 'unknown'): Promise<void>;
}

/** Somebody who wants the guest to stand still around the instant of a cut, and says by that what kind of point it is. */
export interface CutHold {
  /** Before the cut's last preparations: resolves when the guest stands still, or will not. Never rejects. */
  begin(): Promise<void>;
  /** After them, with nothing left to do before the instant. Rejects with CUT_PAUSED when it is not to come: nothing was cut then, and the next cut may. */
  still?(): Promise<void>;
  /** QEMU itself has stopped the guest from `still` to `release`: which comes when the guest may go on without harm to its QEMU. */
  readonly isPausing?: boolean;
  /** Aborted when the guest must go on. */
  readonly signal?: AbortSignal;
  /** What may be copied meanwhile; more goes in rounds, for which no guest is held. */
  readonly heldBytesMax?: number;
  /**
   * The instant has passed (`isCut`), or is not to come. The first call counts; it acts at once, and the copy goes on meanwhile.
   * Resolves, when the guest goes on, with the kind of the point. Never rejects.
   */
  release(isCut: boolean): Promise<PointKind>;
}

/** How changes are captured: dirty bitmaps and copies, or a write log; `auto`: whichever suits. */
export type CaptureChoice = 'cbt' | 'writelog' | 'auto';

/** Figures for `status`. */
export interface CaptureFigures {
  /** How changes are captured just now, and why so. */
  readonly capture: 'cbt' | 'writelog';
  readonly captureWhy: string;
  /** What the guest has written into its write logs and the target does not have yet, about. */
  readonly logBytes: number;
  readonly dirtyBytes: number;
  readonly spoolBytes: number;
  readonly spoolBudgetBytes: number;
  /** Time that our job was in the guest's path in the last cycle, ms. */
  readonly inPathMs: number;
  readonly cutMs: number;
  readonly cycles: number;
  /** Of the cycles: those that were read from write logs. */
  readonly logCuts: number;
  readonly droppedCycles: number;
  readonly rounds: number;
}

/** What the capture found in the guest, compared with what the target holds. */
export type CaptureStanding =
  /** Bitmaps fit the target's newest point: deltas can be cut. */
  | { readonly standing: 'ready' }
  /** No bitmap, or none that fits: the disks must be compared or copied whole. `why` is for people. */
  | { readonly standing: 'resync'; readonly why: string };

/** One disk of a full pass (first sync, resync) as QEMU's mirror job writes it. */
export interface FullPassSink {
  /** Where the buffers of `write` should come from, if the sink gives them back for use again (NbdListenOptions.buffers). */
  readonly buffers?: { take(bytes: number): Buffer; takenBytes(bytes: number): number };
  /** Takes over `bytes` (one whole run; the first `headroomBytes` are free for a header). Resolves when there is room for more. */
  write(disk: number, offset: number, buffer: Buffer, headroomBytes: number): Promise<void>;
  zero(disk: number, offset: number, length: number): Promise<void>;
}

export interface FullPassProgress { readonly doneBytes: number; readonly totalBytes: number }

export interface FullPassOptions {
  /** 0: no limit. */
  readonly rateBytesPerSecond: number;
  readonly signal: AbortSignal;
  /** The images at the target are those of this point, or differ from it where a later point does. Null or absent: nothing is known of them. */
  readonly images?: PointId | null;
  onProgress(progress: FullPassProgress): void;
}

/** The guest's power, for a planned failover (qemu/guest-power.ts). Faults: QMP_*, GUEST_UNSUITED. */
export interface GuestPower {
  /** From here until `startAgain` its QEMU outlives the guest’s power-off, so that it can be shut down for a last point. Resolves to null, or for people to why that cannot be had. */
  keepThroughOff(): Promise<string | null>;
  /** After `keepThroughOff`. False: it still runs at the limit. */
  shutDown(options: ShutDownOptions): Promise<boolean>;
  standStill(): Promise<void>;
  /** `waitMs`: how long it may still be on its way down. */
  startAgain(waitMs: number): Promise<void>;
  /** Which files its disks are. */
  images(): Promise<readonly GuestImage[]>;
  /** Ends its QEMU, unless the guest runs. */
  end(): Promise<void>;
  runState(): Promise<RunState>;
  /** Stops its processors; all that it wrote is with QEMU then, and nothing is under way. */
  pause(): Promise<void>;
  /** On from where it stood. */
  goOn(): Promise<void>;
}

/** What the capture finds when it connects. */
export interface CapturedGuest {
  readonly disks: readonly CapturedDisk[];
  /** What it takes to start the guest elsewhere (qemu/hardware.ts `recordHardware`); empty on a storage daemon. */
  readonly hardware: Readonly<Record<string, unknown>>;
}

export interface Capture {
  /** Connects (again, when the last connection is over), lists the disks, records the hardware; changes nothing in the guest. Comes before `reconcile`. */
  connect(): Promise<CapturedGuest>;
  /** Resolves once, with why, when the connection of the last `connect` is over. */
  closed(): Promise<Fault>;
  /** Bytes dirty since what the target last acknowledged, asked of QEMU now; for `status` while the target is away. Needs `connect` only. */
  measureDirtyBytes(): Promise<number>;
  /**
   * Adopts or removes what an earlier life left behind. `held`: the target's newest sealed
   * point; with point 0 when its replica is whole but has no point yet; null when it holds nothing to build on. `heldParts`: parts of the
   * unsealed delta behind it that the target still holds and will go on with; rounds that it has are then not taken again.
   * Comes again after a `cut` that threw and after an end that was `unknown`.
   */
  reconcile(held: PointId | null, heldParts?: number): Promise<CaptureStanding>;
  /** The disks as last seen, in order of their index. */
  disks(): readonly CapturedDisk[];
  /**
   * Cuts: the delta from `base` (what the target holds, see `reconcile`) to `next`. A round instead, of the same unsealed delta, when it does not fit the spool.
   * `hold`: has its say around the instant, and then on the kind; not for a round, unless it was taken for a whole delta until the guest stood still.
   * Throws GUEST_CHANGED when the disks are not what they were: reconcile again.
   */
  cut(base: PointId, next: PointId, kind: PointKind, hold?: CutHold): Promise<CapturedDelta>;
  /**
   * A full pass over all disks: first a fresh bitmap on each (named so that no restart takes it for one that fits a point), then a
   * mirror of every disk into the sink. Resolves when every mirror has been ready and is gone. The caller then waits until the
   * target holds what was sent, and calls `settlePass`.
   */
  fullPass(sink: FullPassSink, options: FullPassOptions): Promise<void>;
  /** Of a capture that reads points: which one the next full pass reads. */
  passPoint?(): PointId;
  /** Of a capture that reads points: resolves when there is something to cut. Rejects with the signal's reason. */
  awaitChange?(base: PointId, signal: AbortSignal): Promise<void>;
  /** What the full pass sent is durable at the target: its bitmaps become those of `base`. */
  settlePass(base: PointId): Promise<void>;
  /** Pauses or resumes the mirror jobs of a full pass under way. */
  pausePass(isPaused: boolean): Promise<void>;
  figures(): CaptureFigures;
  /** The guest stands still and its disks hold exactly `base`: changes count from there, without a pass. Needs `connect` only. */
  begin(base: PointId): Promise<void>;
  /** Needs `connect` only. */
  power(): GuestPower;
  /** Where the guest's agent can be reached, as its QEMU says now. Needs `connect` only. */
  agentChannel(): Promise<AgentChannel>;
  /** Which capture is wanted from the next cut on. Both go on from the same point. */
  choose(capture: CaptureChoice): void;
  /** Nothing is cut for a while: what is kept on the disk for the next cut goes. Never rejects for what the system refuses. */
  rest(): Promise<void>;
  /** Takes out what should not stay in the guest while nobody looks after it (write logs); the bitmaps stay. Needs `connect`. */
  park(): Promise<void>;
  /** Removes everything of ours from the guest (bitmaps, nodes, jobs, exports) and closes. */
  release(): Promise<void>;
  /** Closes the connection, leaves the bitmaps. */
  close(): Promise<void>;
}

export interface CapturedDisk {
  readonly disk: number;
  /** Device id, or qdev path where it has none, or node name on a storage daemon. */
  readonly name: string;
  readonly sizeBytes: number;
}
