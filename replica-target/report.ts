/** The target's one report. */
import type { Alarm } from '../journal/alarm.ts';
import type { AutomaticReport } from './failover/automatic.ts';
import type { GuestReport } from './failover/group-guests.ts';
import type { RehearsalReport } from './failover/rehearsal-report.ts';
import type { StartReport } from './failover/start-finding.ts';
import type { RotationReport } from './pairing/target-pairing.ts';
import type { ChecksReport } from './points/group-checks.ts';
import type { PointServerReport } from './points/point-server.ts';
import type { GroupStoreReport } from './store/store.ts';
import type { VolumeReport } from './store/volume-watch.ts';

export interface ConnectedSource {
  readonly sourceId: string;
  readonly name: string;
  readonly address: string;
  readonly sinceMs: number;
  readonly receivedBytes: number;
}

export interface FailedOverGuest {
  readonly group: string;
  readonly term: number;
  readonly point: { readonly term: number; readonly point: number };
  readonly guests: readonly GuestReport[];
  /** Of the first of them. */
  readonly qmpPath: string;
  /** What the guest says on its first serial port. */
  readonly logPath: string;
  readonly pid: number | null;
  /** All of them. */
  readonly isRunning: boolean;
  readonly startedAtMs: number;
  /** It stands ready and does not run: its source has not said that it let go of it. */
  readonly isAwaited: boolean;
  /** Its data comes home, and then the failover is final. */
  readonly isCommitting: boolean;
  /** What is done by itself, and when (wall clock, ms). */
  readonly decision: { readonly act: 'commit' | 'roll-back'; readonly atMs: number } | null;
  /** Of a guest that was booted from an older point, or whose failover is committed: how much of its data has come home. `waiting`: it goes on when the guest runs and this target serves its point. */
  readonly home: { readonly state: 'streaming' | 'waiting' | 'home'; readonly doneBytes: number; readonly totalBytes: number } | null;
}

/** A test failover that is under way. */
export interface TestGuest {
  readonly group: string;
  readonly point: { readonly term: number; readonly point: number };
  readonly cutAtMs: number;
  readonly guests: readonly GuestReport[];
  /** Of the first of them. */
  readonly qmpPath: string;
  readonly logPath: string;
  readonly pid: number | null;
  /** Any of them. */
  readonly isRunning: boolean;
  readonly startedAtMs: number;
  readonly endsAtMs: number;
  readonly budgetBytes: number;
  readonly usedBytes: number;
  readonly network: string;
}

export interface EndedTest {
  readonly group: string;
  readonly point: { readonly term: number; readonly point: number };
  readonly endedAtMs: number;
  /** `limit`, `budget`, `space`: its own bounds. `failover`: a failover came first. `interrupted`: it never ran. */
  readonly why: 'asked' | 'limit' | 'budget' | 'space' | 'guest-ended' | 'failover' | 'interrupted';
}

export interface GroupChecked extends ChecksReport { readonly group: string }

export interface TargetReport {
  readonly role: 'target';
  readonly version: string;
  readonly atMs: number;
  readonly address: string;
  readonly fingerprint: string;
  /** The one that is shown to sources, until when it is valid, and the one that comes after it. */
  readonly certificate?: RotationReport;
  readonly sources: readonly ConnectedSource[];
  readonly groups: readonly GroupStoreReport[];
  readonly failovers: readonly FailedOverGuest[];
  readonly tests: readonly TestGuest[];
  /** The last test of each group that ended since this process started. */
  readonly endedTests: readonly EndedTest[];
  /** The last rehearsal of each group, and where its report lies. */
  readonly rehearsals?: readonly (RehearsalReport & { readonly folder: string; /** When the group last passed one. */ readonly lastPassedAtMs?: number | null })[];
  /** When what is stored of each group was last checked, and what was found. */
  readonly checks?: readonly GroupChecked[];
  /** Whether each group could start here, when that was last looked at: findings that are not fine. */
  readonly startChecks?: readonly StartReport[];
  /** Of the groups that fail over by themselves. */
  readonly automatic?: readonly AutomaticReport[];
  /** Where points are served over NBD, and to whom. */
  readonly nbd: PointServerReport;
  /** Refusals since start, by code. */
  readonly refusals: Readonly<Record<string, number>>;
  readonly memoryRssBytes: number;
  /** Of the data folder's file system, when that was last looked at. */
  readonly volume?: VolumeReport;
  /** When this target's own certificate is no longer valid, wall clock, ms. */
  readonly certificateExpiresAtMs?: number;
  /** What a person should look at now; absent from older releases. */
  readonly alarms?: readonly Alarm[];
}
