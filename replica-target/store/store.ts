/** What the rest of the target sees of the store. The real one is group-store.ts over host/disk.ts. */
import type { RecordView } from '../../journal/record.ts';
import type { GroupAnnouncement, GroupHolding } from '../../journal/wire.ts';
import type { PointId, PointKind } from '../../journal/point.ts';
import type { RetentionReport } from '../points/retention.ts';
import type { GroupPoints } from '../points/points.ts';
import type { CutFacts } from '../../journal/seal.ts';
import type { SuspicionFlag, SuspicionReport } from '../suspicion/group-suspicion.ts';

/** Durable when it is handed out: the caller may acknowledge it. */
export interface Durable { readonly term: number; readonly point: number; readonly part?: number }

/** `committed`: its guest runs here for good, and its changes are taken as deltas of the term. */
export type GroupState = 'protected' | 'failed-over' | 'committed';

export interface StoredPoint extends PointId, CutFacts {
  readonly kind: PointKind;
  /** Source's wall clock at the cut, and target's at arrival, ms. Neither runs backward from point to point. */
  readonly cutAtMs: number;
  readonly arrivedAtMs: number;
  readonly changedBytes: number;
  readonly isApplied: boolean;
  readonly label?: string;
}

export interface StoredDisk { readonly disk: number; readonly name: string; readonly sizeBytes: number; readonly replicaPath: string; /** Whether the newest applied point has this disk: one that was added since has an image to come. */ readonly isAtApplied: boolean }

export interface GroupStoreReport {
  readonly groupId: string;
  readonly name: string;
  readonly sourceId: string;
  /** Whose it was in earlier terms. */
  readonly formerSourceIds: readonly string[];
  readonly state: GroupState;
  readonly term: number;
  readonly rpoMs: number;
  readonly seed: GroupHolding['seed'];
  /** Its images are the guest's own old disks, in their own place. */
  readonly isReclaimed: boolean;
  readonly disks: readonly StoredDisk[];
  readonly newest: StoredPoint | null;
  readonly applied: PointId | null;
  /** Sealed points that wait to be applied; how long ago the oldest of them arrived, ms, 0 when none waits. */
  readonly apply?: { readonly pendingPoints: number; readonly lagMs: number };
  readonly pointCount: number;
  readonly oldest: StoredPoint | null;
  readonly journalBytes: number;
  readonly historyBytes: number;
  readonly replicaBytes: number;
  /** What is kept, and how much of it there is; null when nothing is ever given up. */
  readonly retention: RetentionReport | null;
  /** What of its points is locked: until when at the latest, by the wall clock, if all goes on as it does; and whether the files bear the immutable attribute (false: it cannot be had here; null: not tried yet). Absent: nothing. */
  readonly locked?: { readonly untilMs: number; readonly isImmutable: boolean | null };
  /** Whether what it changes is suspected; null: it is not looked at. Absent from older releases. */
  readonly suspicion?: SuspicionReport | null;
  /** Set while the disk is full or failing, or what is promised fills the budget. */
  readonly held: { readonly code: string; readonly sinceMs: number; readonly message: string } | null;
}

/** One group's files. All calls that write are queued in order; only one at a time touches the journal, only the applier the replica. */
export interface GroupStore {
  readonly groupId: string;
  /** Points that can be had: listing, reading, holding. Also while the group is failed over. */
  readonly restorePoints: GroupPoints;
  holding(): GroupHolding;
  /** For how much longer any of its points is locked, ms; 0: none is. Absent: of no use to whoever asks. */
  lockedForMs?(): number;
  /** Facts that may change while the group lives: name, rpo, hardware, disks (a new disk; sizes follow with the seals). Durable when it resolves. Faults: TERM_OLD, GROUP_FOREIGN, GROUP_FAILED_OVER. */
  announce(sourceId: string, announcement: GroupAnnouncement): Promise<void>;
  /**
   * Takes the next record of the group. Checks that it follows (group, term, delta, point, sequence, base, disk bounds; FORMAT.md "Order"),
   * appends its bytes as they are. Faults: RECORD_MISPLACED, DELTA_BASE, TERM_OLD, GROUP_FAILED_OVER, STORE_FULL, STORE_SYNC. For part and seal it
   * resolves once durable, with what to acknowledge; for others when written, with null. `bytes` may be reused after it resolves.
   */
  append(record: RecordView): Promise<Durable | null>;
  /** The source went away: what follows the last part or seal is cut off. */
  cutTorn(): Promise<void>;
  /** First sync: the replica's files are made (sparse) if needed, and records with point 0 are taken by `seedRecord` until `seedEnd`. */
  seedBegin(deltaId: string): Promise<void>;
  /** Data and zero records straight into the replica. */
  seedRecord(record: RecordView): Promise<void>;
  /** Replica synced, group marked `done`: durable when it resolves. */
  seedEnd(): Promise<void>;
  /** '1' for each block whose content in the replica (with all sealed points applied first) has another BLAKE3 hash. */
  compare(disk: number, offset: number, length: number, blockBytes: number, hashes: Buffer): Promise<string>;
  /** A person looked into what is suspected of it. Durable when it resolves; points from before are held no longer. Fault REQUEST_INVALID: nothing is. */
  dismissSuspicion(): Promise<SuspicionFlag>;
  /** Called after each batch. Returns the way to stop listening. */
  onApplied(listener: (applied: PointId) => void): () => void;
  /** As `restorePoints.list`. */
  points(): Promise<readonly StoredPoint[]>;
  report(): GroupStoreReport;
  /** Applies all sealed points, then stops applying. For failover. */
  drain(): Promise<PointId | null>;
  /** Raises the term and sets the state, durably, before it resolves. Ingest refuses from then on with TERM_OLD or GROUP_FAILED_OVER. */
  failOver(): Promise<{ readonly term: number; readonly point: PointId }>;
  /** Undoes `failOver` of a guest that never wrote: state protected, term stays raised. */
  rollBack(): Promise<void>;
  /** From `failed-over`: the guest that runs here needs the replica no more, so deltas are taken and applied again. Durable when it resolves. */
  commit(): Promise<void>;
  /** Only this source may announce the group from here on; the one before is told by the term that it lost. Durable when it resolves. */
  own(sourceId: string): Promise<void>;
  /** Images are locked against every other program that would write to them, but for the guest whose own they are, and which runs on them next. */
  lendImages(isLent: boolean): Promise<void>;
  /**
   * From `committed`: the guest is live elsewhere since `term`, where `to` protects it to here. Said by `from`, whose the group is, or was until it said
   * the same. Durable when it resolves. Fault GROUP_FOREIGN.
   */
  handOver(from: string, term: number, to: string): Promise<void>;
  /** What the source announced of the hardware. */
  hardware(): Readonly<Record<string, unknown>>;
  /** Stops the applier at a batch's end and closes files. */
  close(): Promise<void>;
}

/** All groups of a target's data folder. */
export interface GroupRegistry {
  groups(): readonly GroupStore[];
  find(nameOrId: string): GroupStore | null;
  /** The group's store, made when it is new. Faults as `GroupStore.announce`. */
  announce(sourceId: string, announcement: GroupAnnouncement): Promise<GroupStore>;
  /** Puts an existing raw image under a group's disk, to be compared: the group's seed becomes `partial`. */
  seedFrom(groupName: string, disk: number, imagePath: string): Promise<void>;
  /** Removes a group and its files. Faults: GROUP_UNKNOWN, POINT_LOCKED. */
  forget(groupId: string): Promise<void>;
  close(): Promise<void>;
}
