/**
 * What an operator can ask of a running source, and what it takes to start one: plain typed values, so that the role knows
 * neither config files nor HTTP, and whatever faces the operator knows no capture. Every operation throws `Fault`s.
 */
import type { CaptureChoice } from './capture/capture.ts';
import type { Logger } from 'pino';
import type { AuditNoter } from '../host/audit-trail.ts';
import type { WitnessOptions } from '../host/node/etcd-witness.ts';
import type { Consistency } from './joint/joint-capture.ts';
import type { PointId } from '../journal/point.ts';
import type { TlsPaths } from '../host/node/tls-files.ts';
import type { SourcePairingsReport, SourceRotationReport } from './pairing/paired-targets.ts';
import type { OnLeaseLost } from './lease/guest-leases.ts';
import type { MarkedPoint, SourceReport } from './report.ts';
import type { RateLimit } from './stream/throttle-plan.ts';

export interface SourceOptions {
  /** How this source names itself to its targets (journal/wire.ts `safeName`). */
  readonly name: string;
  /** Absolute. Identity, pairings and protected guests; survives restarts. Exists or is made (mode 0700). */
  readonly dataFolder: string;
  /** Certificates of the operator's own; absent: the source makes its own, and pins those of its targets. */
  readonly tls?: TlsPaths;
  readonly spool: {
    /** Absolute; on a local file system. Delta images and nothing else. */
    readonly folder: string;
    /** Upper bound of all that is in it. */
    readonly budgetBytes: number;
    /** What is left free on its file system, whatever the budget says. */
    readonly keepFreeBytes: number;
  };
  /** Of single guests, by name; they need not be protected yet. */
  readonly guests?: Readonly<Record<string, GuestOptions>>;
  /** What may leave for targets, and when; absent: no limit. */
  readonly limits?: readonly RateLimit[];
  /** Absent: no leases are held. */
  readonly witness?: WitnessOptions & { readonly onLeaseLost: OnLeaseLost };
}

export interface GuestOptions {
  /** Absolute path of its agent's socket; absent: asked of its QEMU. */
  readonly agentPath?: string | undefined;
  /** How long its file systems may be frozen for a point; absent: 5 s. */
  readonly freezeLimitMs?: number | undefined;
  /** How often an application-consistent point is taken by itself; absent: only when asked for. */
  readonly appEveryMs?: number | undefined;
  /** Of a group of several: whether all are paused around a cut (the default), and for how long at most; absent: 1 s. */
  readonly consistency?: Consistency | undefined;
  readonly pauseMsMax?: number | undefined;
  /** In place of the choice for all guests. */
  readonly onLeaseLost?: OnLeaseLost | undefined;
}

/** What of each disk changed between two points of the target of this host. Faults: POINT_UNKNOWN, DAEMON_UNREACHABLE. */
export type AskChanges = (controlPath: string, groupId: string, since: PointId, point: PointId) => Promise<readonly { readonly disk: number; readonly extents: readonly { readonly start: number; readonly end: number }[] }[]>;

export interface SourceDeps {
  /** What the role does by itself is noted here, and its alarms are the role's. */
  readonly audit?: AuditNoter;
  /** Asks the target of this host; absent: no points are sent on. */
  readonly askChanges?: AskChanges;
  readonly log: Logger;
  /** The release, for reports. */
  readonly version: string;
}

/** One of several guests that fail over together. */
export interface GroupMember { readonly name: string; readonly qmpPath: string }

export interface ProtectRequest {
  /** The guest's name; also the name of its group (journal/wire.ts `safeName`). */
  readonly name: string;
  /** Absolute path of the guest's QMP socket; with `dmLogPath`, of the device. */
  readonly qmpPath: string;
  /** The guests of a group of several, which share one line of points; `qmpPath` is then that of the first. Their names are like no other guest's here. */
  readonly members?: readonly GroupMember[] | undefined;
  /** Absolute path of what the kernel's dm-log-writes target logs the device's writes to: a disk that no QEMU serves. */
  readonly dmLogPath?: string | undefined;
  /** 1 s to 1 h; from 100 ms on with a write log. */
  readonly rpoMs: number;
  /** Absent: `cbt`. */
  readonly capture?: CaptureChoice | undefined;
  /** Name of a paired target; may be left out when there is exactly one. */
  readonly target?: string | undefined;
  /** Limit of full passes, bytes per second; 0 or absent: none. */
  readonly rateBytesPerSecond?: number | undefined;
  /** Begins no full pass before `resume`: time to put an existing image under the group at the target. */
  readonly isPaused?: boolean | undefined;
  /** Node names of the disks when `qmpPath` is a qemu-storage-daemon, which has no devices to find them by. */
  readonly storageDaemonDisks?: readonly string[] | undefined;
}

/** The target role of this host, where it runs as another user than the source and is not trusted with more than that user has (neighbour-plan.ts). */
export interface Neighbour {
  readonly uid: number;
  /** What that target is called. */
  readonly targetName: string;
}

/** A guest that the target role of this host has just started, and that stands still. */
export interface AdoptRequest {
  readonly name: string;
  readonly groupId: string;
  readonly qmpPath: string;
  /** Of a group of several guests. */
  readonly members?: readonly GroupMember[] | undefined;
  /** What its disks hold. Null: not known, so that both sides are compared. */
  readonly base: { readonly term: number; readonly point: number } | null;
  readonly term: number;
  readonly rpoMs: number;
  /** Null: the one that it was protected to before it was handed over. */
  readonly target: { readonly name: string; readonly fingerprint: string } | null;
  /** Where that target serves points, which are sent on from there to where the guest came from. Null: they are not. */
  readonly points: { readonly nbdPath: string; readonly controlPath: string } | null;
  /** To pair with that target. */
  readonly token: string | null;
}

/** The old images of a guest that is live elsewhere. */
export interface SurrenderedGuest {
  /** What they hold. Null: somebody wrote to them since. */
  readonly point: { readonly term: number; readonly point: number } | null;
  readonly images: readonly { readonly disk: number; readonly path: string; readonly format: string; readonly sizeBytes: number }[];
}

export interface MarkRequest {
  readonly name: string;
  /** The guest freezes its file systems for it: kind `app`, or `crash` with a reason where that fails. Else kind `mark`. */
  readonly isApp?: boolean | undefined;
  /** At most `labelCharactersMax` (journal/limits.ts), no control characters. */
  readonly label?: string | undefined;
  /** How long to wait for the target to have it; absent: 60 s. */
  readonly limitMs?: number | undefined;
}

export interface PairedTarget {
  readonly name: string;
  /** host:port */
  readonly address: string;
  readonly fingerprint: string;
}

/** Faults: GROUP_UNKNOWN for a guest that is not protected here, beside those that are named. */
export interface SourceOperations {
  report(): SourceReport;
  /** Resolves once the target of the token has pinned this source's certificate, and was reached by it. Faults: PAIRING_*, WIRE_*, TARGET_UNREACHABLE. */
  pair(token: string): Promise<PairedTarget>;
  pairings(): SourcePairingsReport;
  /** Ends the connection to a target, and makes none before it is paired anew. `which`: name, or the beginning of its fingerprint. Fault PAIRING_UNKNOWN. */
  revoke(which: string): Promise<{ readonly name: string }>;
  /** Begins to give this source another certificate: used when all targets have it, or at once. Faults: REQUEST_INVALID, CONFIG_INVALID. */
  rotate(isNow: boolean): Promise<SourceRotationReport>;
  /** Resolves once the guest was reached and found suited; the first sync goes on in the background. Faults: QMP_*, GUEST_UNSUITED, GUEST_TAKEN, TARGET_UNPAIRED. */
  protect(request: ProtectRequest): Promise<{ readonly name: string; readonly groupId: string; readonly target: string }>;
  /**
   * Follows a guest from the instant at which it stands, in the place of whatever was followed as this group before. Faults: QMP_*, GUEST_UNSUITED,
   * GUEST_TAKEN (another group has its name), TARGET_UNPAIRED (a token is needed). `from`: who asks, if that is not the daemon's own user or root; then also ADOPTION_REFUSED.
   */
  adopt(request: AdoptRequest, from?: Neighbour): Promise<void>;
  /** Its QEMU is gone: it is followed no more. A group that is not known is fine. `from`: as for `adopt`. */
  abandon(groupId: string, from?: Neighbour): Promise<void>;
  /** What this host has of a guest that is live elsewhere in `term`: handed over, or lost to a failover. Null: nothing, or its QEMU here still runs. */
  surrender(groupId: string, term: number): Promise<SurrenderedGuest | null>;
  /** Takes everything of ours out of the guest. `isForgotten`: the target removes its group too. */
  unprotect(name: string, isForgotten: boolean): Promise<void>;
  /** The guest runs under another QMP socket from now on. What its new QEMU knows of the last point counts; else both sides are compared. Faults: GUEST_TAKEN. */
  setQmpPath(name: string, qmpPath: string): Promise<void>;
  pause(name: string): Promise<void>;
  resume(name: string): Promise<void>;
  /** Takes effect with the next cut, which goes on from the same point. Fault REQUEST_INVALID: the guest's pace needs a write log. */
  setCapture(name: string, capture: CaptureChoice): Promise<void>;
  /** Compares the whole guest with its replica by hash, after the next point, and sends what differs: mends a replica that was found damaged. */
  resync(name: string): Promise<void>;
  /** Takes a point now; resolves once the target has acknowledged it. Faults: MARK_NOT_TAKEN. */
  mark(request: MarkRequest): Promise<MarkedPoint>;
  /** 0: no limit. */
  setRate(name: string, rateBytesPerSecond: number): Promise<void>;
}

/** What `startSource(options, deps)` of source.ts resolves to. */
export interface RunningSource {
  readonly operations: SourceOperations;
  report(): SourceReport;
  /** Ends supervision, leaves the bitmaps in the guests, closes everything. */
  close(): Promise<void>;
}

export type StartSource = (options: SourceOptions, deps: SourceDeps) => Promise<RunningSource>;
