/** The source's one report; every renderer (table, JSON, later API and dashboard) works from it alone. */
import type { Alarm } from '../journal/alarm.ts';
import type { CaptureFigures, CapturedDisk, FullPassProgress } from './capture/capture.ts';
import type { PointId, PointKind } from '../journal/point.ts';
import type { FreezeFacts } from '../journal/seal.ts';
import type { LeaseReport } from '../host/lease-keeper.ts';
import type { LimitReport } from './stream/throttle.ts';
import type { SourceRotationReport } from './pairing/paired-targets.ts';
import type { LinkReport } from './stream/session.ts';

export type GuestPhase = 'connecting' | 'first-sync' | 'resync' | 'protected' | 'behind' | 'held' | 'yielding' | 'relinquished' | 'superseded' | 'refused';

/** The four clocks of RPO: ms between now and the cut of the newest point in that state; null when there is none yet. Monotonic source time for the first two and the last. */
export interface RpoClocks {
  readonly capturedMs: number | null;
  readonly receivedMs: number | null;
  readonly appliedMs: number | null;
  /** Age of the newest restorable (acknowledged) point: what would be lost now. */
  readonly newestPointMs: number | null;
}

/** A point that was more than due: asked for by a person, or meant to be application-consistent; acknowledged. */
export interface MarkedPoint extends PointId, FreezeFacts {
  readonly kind: PointKind;
  readonly cutAtMs: number;
  readonly label?: string | undefined;
  /** The guest was to freeze for it. If it then is no `app` point, `reason` says why. */
  readonly isAppWanted: boolean;
  readonly reason: { readonly code: string; readonly message: string } | null;
}

/** All of one figure since the process started, ms: how many were at most so long, each bound counting those below it too. */
export interface ExposureHistogram { readonly buckets: readonly { readonly leMs: number; readonly count: number }[]; readonly sumMs: number; readonly count: number }

export interface GuestReport {
  readonly name: string;
  readonly groupId: string;
  readonly qmpPath: string;
  /** Of a group of several guests. */
  readonly members?: readonly { readonly name: string; readonly qmpPath: string }[] | undefined;
  readonly target: string;
  readonly term: number;
  readonly rpoMs: number;
  readonly phase: GuestPhase;
  /** For people: why it is in this phase. */
  readonly detail: string;
  readonly phaseSinceMs: number;
  readonly disks: readonly CapturedDisk[];
  readonly newestPoint: { readonly term: number; readonly point: number; readonly cutAtMs: number } | null;
  readonly clocks: RpoClocks;
  /** Bytes dirty and not yet acknowledged. */
  readonly behindBytes: number;
  readonly pass: (FullPassProgress & { readonly rateBytesPerSecond: number; readonly isPaused: boolean; readonly startedAtMs: number; readonly sentBytes: number }) | null;
  readonly capture: CaptureFigures | null;
  /** The age that the newest durable point had reached when the next one became durable, of the last 1,000 points, ms. */
  readonly rpo: { readonly samples: number; readonly p50Ms: number | null; readonly p99Ms: number | null; readonly maxMs: number | null };
  /** As `rpo`, of all points since the process started. */
  readonly exposure?: ExposureHistogram;
  /** Points that were cut and are not yet durable at the target, and not yet applied there. */
  readonly waiting?: { readonly unacknowledgedPoints: number; readonly unappliedPoints: number };
  readonly lastFault: { readonly code: string; readonly message: string; readonly atMs: number } | null;
  readonly fullPasses: number;
  /** The last one. */
  readonly marked: MarkedPoint | null;
  /** At the witness, where there is one. */
  readonly lease?: LeaseReport;
}

export interface SourceReport {
  readonly role: 'source';
  /** Lasting; by it targets tell sources apart. */
  readonly sourceId: string;
  readonly version: string;
  readonly atMs: number;
  /** By which this source is known to its targets, until when it is valid, and the one that comes after it. */
  readonly certificate?: SourceRotationReport;
  readonly targets: readonly ({
    readonly name: string;
    readonly address: string;
    /** Whether records are compressed just now, and why. */
    readonly compression: { readonly isOn: boolean; readonly why: string; readonly ratio: number };
  } & LinkReport)[];
  readonly guests: readonly GuestReport[];
  /** Of guests that came here by a failover: their points on the way back to where they came from. */
  readonly relays: readonly GuestReport[];
  /** Rate limits of the config, in its order; absent from older releases. */
  readonly limits?: readonly LimitReport[];
  readonly memoryRssBytes: number;
  /** What a person should look at now; absent from older releases. */
  readonly alarms?: readonly Alarm[];
}
