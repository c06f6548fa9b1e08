/**
 * What an operator can ask of a running target, and what it takes to start one: plain typed values, so that the role knows
 * neither config files nor HTTP, and whatever faces the operator knows no store. Every operation throws `Fault`s.
 */
import type { VolumeLimits } from './ingest/source-volumes.ts';
import type { AuditNoter } from '../host/audit-trail.ts';
import type { Logger } from 'pino';
import type { Disk } from '../host/disk.ts';
import type { WitnessOptions } from '../host/node/etcd-witness.ts';
import type { PointId } from '../journal/point.ts';
import type { AutomaticFailover } from './failover/automatic-plan.ts';
import type { ShownGuest } from './failover/guest-look.ts';
import type { Hooks } from './failover/hooks.ts';
import type { GroupNetworks, NetworkName } from './failover/network-plan.ts';
import type { Invitation, InvitationRequest, RotationReport, TargetPairingsReport } from './pairing/target-pairing.ts';
import type { TlsPaths } from '../host/node/tls-files.ts';
import type { DiskChanges } from './points/points.ts';
import type { GuestManager } from './failover/managed-launch.ts';
import type { GuestStart } from './failover/readiness-plan.ts';
import type { RehearsalRequest } from './failover/rehearsal.ts';
import type { RehearsalReport } from './failover/rehearsal-report.ts';
import type { Runbook } from './failover/runbook-plan.ts';
import type { StartReport } from './failover/start-finding.ts';
import type { GroupTimeline, HeldPoint, HoldRequest, LockedPoint, LockRequest, PointDescription } from './points/point-desk.ts';
import type { PointServerOptions } from './points/point-server.ts';
import type { ScrubOptions } from './points/scrub.ts';
import type { Verification } from './points/verify.ts';
import type { TargetReport } from './report.ts';
import type { RetentionPolicy } from './points/retention-plan.ts';
import type { StoredPoint } from './store/store.ts';
import type { SuspicionFlag } from './suspicion/group-suspicion.ts';
import type { SuspicionPolicy } from './suspicion/suspicion-plan.ts';

export type AccelChoice = 'kvm' | 'tcg' | 'auto';
/** See failover/network-plan.ts. */
export type NetworkChoice = Exclude<NetworkName, 'isolated'>;

export interface TargetOptions {
  /** How this target names itself to its sources (journal/wire.ts `safeName`). */
  readonly name: string;
  /** Port 0: any free one (then `advertise` is completed with it). */
  readonly listen: { readonly host: string; readonly port: number };
  /** host:port that sources are told in tokens; port 0 stands for the one that is listened on. */
  readonly advertise: { readonly host: string; readonly port: number };
  /** Absolute. Identity, pairings and groups. Exists or is made (mode 0700). */
  readonly dataFolder: string;
  /** Certificates of the operator's own; absent: the target makes its own, and pins those of its sources. */
  readonly tls?: TlsPaths;
  readonly failover: {
    readonly accel: AccelChoice;
    readonly network: NetworkChoice;
    /** Absolute. Overlays, QMP sockets and logs of guests that run here. */
    readonly overlayFolder: string;
    /** Who defines and starts guests that were its where they ran; absent: they are started by us. */
    readonly manager?: GuestManager | undefined;
    /** By group and guest, of those that are not simply started at once; they need not be here yet. */
    readonly starts?: Readonly<Record<string, Readonly<Record<string, GuestStart>>>>;
    /** How often it is looked whether each group could start here; every 6 h when absent. */
    readonly checkEveryMs?: number;
    readonly networks?: GroupNetworks;
    readonly hooks?: Hooks;
    /** By group: those that fail over without being asked, when the witness says that nobody runs them. */
    readonly automatic?: Readonly<Record<string, AutomaticFailover>>;
  };
  /** Absent: none, and every failover is a person's decision. */
  readonly witness?: WitnessOptions;
  /** By group, how often it is rehearsed by itself, ms; others are when somebody asks. */
  readonly rehearseEveryMs?: Readonly<Record<string, number>>;
  /** Where points are served over NBD. */
  readonly nbd: PointServerOptions;
  /** What is kept of each group, and of those that are named; the default policy when absent. */
  readonly retention?: { readonly all: RetentionPolicy; readonly groups: Readonly<Record<string, RetentionPolicy>> };
  /** What a source may bring in a time, by its name or id, and of those that are not named; absent: as much as it likes. */
  readonly volumes?: VolumeLimits;
  /** How what groups change is looked at, of all and of those that are named; the default when absent. */
  readonly suspicion?: { readonly all: SuspicionPolicy; readonly groups: Readonly<Record<string, SuspicionPolicy>> };
  /** How what is stored is checked in the background; the default when absent. */
  readonly scrub?: ScrubOptions;
  /** Ingest stops, with STORE_FULL, before less than this is free on the data folder's file system. */
  readonly keepFreeBytes: number;
}

export interface TargetDeps {
  /** What the role does by itself, and what sources are refused, is noted here; its alarms are the role's. */
  readonly audit?: AuditNoter;
  readonly log: Logger;
  /** The release, for reports. */
  readonly version: string;
  /** Unix socket of the operator's side of this very process. */
  readonly controlPath?: string;
  /** Follows guests that were started here; absent: nobody does. */
  readonly localSource?: LocalSource;
  /** In place of the machine's own disk, for a test that stalls or fails it. */
  readonly disk?: Disk;
}

/** A guest that was started here and is to be followed by the source role of this host. */
export interface AdoptedGuest {
  readonly name: string;
  readonly groupId: string;
  /** A monitor of its own; of a group of several, of the first. */
  readonly qmpPath: string;
  readonly members?: readonly { readonly name: string; readonly qmpPath: string }[];
  /** What its disks hold, as long as it stands still. Null: not known, so that both sides are compared. */
  readonly base: { readonly term: number; readonly point: number } | null;
  readonly term: number;
  readonly rpoMs: number;
  /** This target. Null: the one to which this host's source protected the guest before it handed it over. */
  readonly target: { readonly name: string; readonly fingerprint: string } | null;
  /** Where this target serves points, to be sent on to where the guest came from: over NBD, and what changed between them. Null: they are not to be. */
  readonly points: { readonly nbdPath: string; readonly controlPath: string } | null;
  /** To pair with it; null: they are paired. */
  readonly token: string | null;
}

/** A guest's old disks. */
export interface SurrenderedImages {
  /** What they hold. Null: not known. */
  readonly point: { readonly term: number; readonly point: number } | null;
  readonly images: readonly { readonly disk: number; readonly path: string; readonly format: string; readonly sizeBytes: number }[];
}

/** The source role of this host. Faults: DAEMON_UNREACHABLE beside those that are named. */
export interface LocalSource {
  sourceId(): Promise<string>;
  /** Faults: TARGET_UNPAIRED (a token is needed), QMP_*, GUEST_*. */
  adopt(guest: AdoptedGuest): Promise<void>;
  /** What this host has of a guest that is live elsewhere in `term`. Null: nothing. */
  surrender(groupId: string, term: number): Promise<SurrenderedImages | null>;
  /** The guest is not followed any more; one that is not known is fine. */
  abandon(groupId: string): Promise<void>;
}

/** `none`: no NIC is connected. `isolated`: a network with no way out of the guest. */
export type TestNetwork = NetworkName;

export interface FailoverRequest {
  readonly group: string;
  /** The point (points/point-selector.ts). In place of the newest. */
  readonly at?: string | undefined;
  /** In place of the config's. */
  readonly accel?: AccelChoice | undefined;
  readonly network?: NetworkChoice | undefined;
  /** The source shuts its guest down first, and nothing is lost. Absent: the source is taken for lost. */
  readonly planned?: PlannedOptions | undefined;
  /** After this the failover is decided by itself. Absent: by a person; a planned one is committed at once. */
  readonly decision?: { readonly act: 'commit' | 'roll-back'; readonly afterMs: number } | undefined;
  /** False: the witness is not asked; whoever says so has seen that the guest runs nowhere else. Absent: true. */
  readonly isWitnessed?: boolean | undefined;
}

export interface PlannedOptions {
  /** How long the guest may take to shut down, ms. */
  readonly shutdownMs: number;
  /** Then: `stop`: it is stopped where it stands, as if the power had failed. `give-up`: it runs on, and there is no failover. */
  readonly onLimit: 'stop' | 'give-up';
}

/** One guest of a group that was started here. */
export interface StartedGuest {
  readonly name: string;
  readonly qmpPath: string;
  readonly pid: number;
  /** What it says on its first serial port. */
  readonly logPath: string;
}

export interface FailoverResult {
  readonly group: string;
  /** The term that the group entered by this. */
  readonly term: number;
  /** The point that was booted. */
  readonly point: StoredPoint;
  /** Age of the point when failover was asked for: what is lost at most, ms. */
  readonly lostMs: number;
  /** From the request until the guest's processors ran, ms. */
  readonly rtoMs: number;
  readonly guests: readonly StartedGuest[];
  /** Of the first of them. */
  readonly qmpPath: string;
  readonly pid: number;
  readonly logPath: string;
  readonly overlayPaths: readonly string[];
  readonly accel: 'kvm' | 'tcg';
  /** Of a planned one: how long no guest ran, ms, by the clocks of both hosts. */
  readonly downtimeMs?: number;
  /** The guest reads from a view of this target, until its data has come home behind it (`failovers` of the report). */
  readonly isComingHome: boolean;
  /** Whether it could start here, as it was found shortly before or beside it; null when that was not known in time. */
  readonly startCheck?: StartReport | null;
}

export interface TestRequest {
  readonly group: string;
  /** The point (points/point-selector.ts). In place of the newest. */
  readonly at?: string | undefined;
  /** After this it is ended and removed. In place of an hour. */
  readonly limitMs?: number | undefined;
  /** What the guest may write in all. In place of a part of what can be spared. */
  readonly budgetBytes?: number | undefined;
  /** In place of `none`. */
  readonly network?: TestNetwork | undefined;
  /** In place of the config's. */
  readonly accel?: AccelChoice | undefined;
}

export interface TestResult {
  readonly group: string;
  /** The point that was booted. */
  readonly point: StoredPoint;
  /** From the request until the guest's processors ran, ms. */
  readonly rtoMs: number;
  /** Age of the point when the test was asked for, ms. */
  readonly ageMs: number;
  readonly endsAtMs: number;
  readonly budgetBytes: number;
  readonly guests: readonly StartedGuest[];
  /** Of the first of them. */
  readonly qmpPath: string;
  readonly pid: number;
  readonly logPath: string;
  readonly accel: 'kvm' | 'tcg';
  readonly network: TestNetwork;
  /** As of a failover. */
  readonly startCheck?: StartReport | null;
}

/** Could the group start here? What is left out is as the config says. */
export interface StartRequest {
  readonly group: string;
  readonly accel?: AccelChoice | undefined;
  readonly network?: NetworkChoice | undefined;
}

/** What would a failover do? */
export interface PlanRequest { readonly group: string; readonly at?: string | undefined; readonly isPlanned?: boolean | undefined }

/** Faults: GROUP_UNKNOWN for a group that is not here, beside those that are named. `group`: name or id. */
export interface TargetOperations {
  report(): TargetReport;
  /** Newest last. */
  points(group: string): Promise<readonly StoredPoint[]>;
  /** The points that can be had, and what is held of them. */
  timeline(group: string): Promise<GroupTimeline>;
  /** Faults: POINT_UNKNOWN. */
  describePoint(group: string, at: string): Promise<PointDescription>;
  /** A durable hold of a point. Faults: POINT_UNKNOWN. */
  holdPoint(request: HoldRequest): Promise<HeldPoint>;
  /** A hold that nobody can release before its time. Faults: POINT_UNKNOWN, REQUEST_INVALID (a date that has passed), FAILOVER_STATE (its guest runs on its images). */
  lockPoint(request: LockRequest): Promise<LockedPoint>;
  /** Removes a group with all its points. Faults: POINT_LOCKED, FAILOVER_STATE (it runs here, or is tested), REQUEST_INVALID (its source is connected, and protects it). */
  forget(group: string): Promise<void>;
  /** A hold that is not there any more is fine. Fault POINT_LOCKED. */
  releasePoint(group: string, holdId: string): Promise<void>;
  /** What is suspected of the group was looked into; its points from before are held no longer. Faults: REQUEST_INVALID (nothing is). */
  dismiss(group: string): Promise<SuspicionFlag>;
  /** What changed between two points, named outright. Faults: POINT_UNKNOWN. */
  changedSince(group: string, since: PointId, point: PointId): Promise<readonly DiskChanges[]>;
  /** Checks all that is stored of the group; with `at`, reads that point whole, too. Damage is no fault. Faults: POINT_UNKNOWN, REQUEST_INVALID (a check is under way). */
  verify(group: string, at: string | null): Promise<Verification>;
  /** Looks whether the group's guest could start here, and changes nothing. What stands in its way is no fault. */
  checkStart(request: StartRequest): Promise<StartReport>;
  /** A token that pairs one source, once. Fault REQUEST_INVALID: too many wait to be used. */
  invite(request: InvitationRequest): Promise<Invitation>;
  /** The sources that are paired, and the invitations that are open. */
  pairings(): TargetPairingsReport;
  /** `which`: name, id, or the beginning of the fingerprint. Nothing more of the source is taken when it resolves. Fault PAIRING_UNKNOWN. */
  revoke(which: string): Promise<{ readonly name: string; readonly sourceId: string }>;
  /** Secrets that earlier releases gave out let nobody in any more; how many there were. */
  revokeOldSecrets(): Promise<number>;
  /** Begins to give this target another certificate: told to every source, and shown when all have noted it, or at once. Faults: REQUEST_INVALID, CONFIG_INVALID. */
  rotate(isNow: boolean): Promise<RotationReport>;
  /** Boots the newest acknowledged point, or the one that is named, on an overlay, in a new term. Faults: FAILOVER_*, POINT_UNKNOWN. */
  failover(request: FailoverRequest): Promise<FailoverResult>;
  /** Ends the guest that a failover started. `isRolledBack`: its overlay is removed and the group is protected again; else both stay. Faults: FAILOVER_STATE. */
  stopFailover(group: string, isRolledBack: boolean): Promise<void>;
  /** Makes the failover final: brings all data home, then takes what the guest writes as deltas. Resolves when it is under way. Faults: FAILOVER_STATE, COMMIT_SPACE. */
  commitFailover(group: string): Promise<void>;
  /** Boots a point with no way out of the guest, beside a protection that goes on. Faults: FAILOVER_*, POINT_UNKNOWN, TEST_SPACE. */
  testFailover(request: TestRequest): Promise<TestResult>;
  /** Says what a failover would do, and does nothing. Faults: POINT_UNKNOWN. */
  plan(request: PlanRequest): Promise<Runbook>;
  /** A test failover whose guests have to become ready, looked at and ended; resolves with its report, passed or not. Faults: those of a test failover. */
  rehearse(request: RehearsalRequest): Promise<RehearsalReport & { readonly folder: string }>;
  /** What the guests show that run here: those of a test, else those of a failover. */
  showGuests(group: string): Promise<readonly ShownGuest[]>;
  /** What the guests of the last rehearsal showed at its end. */
  showRehearsal(group: string): Promise<readonly ShownGuest[]>;
  /** Ends a test and removes every trace of it. Faults: FAILOVER_STATE. */
  stopTest(group: string): Promise<void>;
  /** Puts an existing raw image under a disk of a group without a replica, to be compared by hash. */
  seedFrom(group: string, disk: number, imagePath: string): Promise<void>;
}

/** What `startTarget(options, deps)` of target.ts resolves to. */
export interface RunningTarget {
  readonly operations: TargetOperations;
  /** The target's own, which sources pin; PEM. */
  /** As it is now; `onShown` hears of another. */
  readonly certificate: { readonly key: string; readonly cert: string; onShown(listener: (shown: { readonly key: string; readonly cert: string }) => void): void };
  report(): TargetReport;
  /** Stops taking, ends appliers at a batch's end, closes files. Guests that failover started go on. */
  close(): Promise<void>;
}

export type StartTarget = (options: TargetOptions, deps: TargetDeps) => Promise<RunningTarget>;
