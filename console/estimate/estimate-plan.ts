/**
 * What it takes to protect a guest that changes as was measured: bytes a point, the link, spool and space, the first sync, the
 * capture that fits. Pure, and only arithmetic upon what was seen: a guest that does other things at night changes otherwise at night.
 * Invariant: every figure of bytes is of uncompressed bytes, and where it cannot be exact it is too high rather than too low.
 */
import assert from 'node:assert/strict';
import { planCapture, type CapturePlan } from '../../daemon/capture/writelog/capture-plan.ts';
import type { RetentionPolicy } from '../../replica-target/points/retention-plan.ts';

/** From one cut to the next. */
export interface MeasuredCycle {
  readonly ms: number;
  /** In whole blocks of 64 KiB, as dirty bitmaps have them; a block that was written often counts once. */
  readonly changedBytes: number;
}

export interface MeasuredWindow {
  /** What was aimed at; the cycles say what it came to. */
  readonly windowMs: number;
  readonly cycles: readonly MeasuredCycle[];
}

export interface ChangeMeasurement {
  readonly forMs: number;
  /** Of all disks. */
  readonly sizeBytes: number;
  /** What the guest's devices were told to write in that time; null: not known. */
  readonly written: { readonly bytes: number; readonly operations: number } | null;
  /** Shortest first; each with one cycle at least. */
  readonly windows: readonly MeasuredWindow[];
}

export interface EstimateRequest {
  readonly rpoMs: number;
  readonly linkBytesPerSecond: number;
  readonly retention: RetentionPolicy;
}

export interface WindowEstimate {
  readonly windowMs: number;
  readonly cycles: number;
  readonly medianBytes: number;
  readonly p95Bytes: number;
  readonly maxBytes: number;
  /** Over all cycles. */
  readonly bytesPerSecond: number;
}

/** `afterimage estimate --json`. Members are added, never changed. */
export interface Estimate {
  readonly forMs: number;
  readonly sizeBytes: number;
  readonly written: { readonly bytesPerSecond: number; readonly operationsPerSecond: number; readonly meanBytes: number } | null;
  readonly windows: readonly WindowEstimate[];
  readonly capture: CapturePlan;
  readonly rpo: {
    readonly rpoMs: number;
    /** The window that the figures are from: the longest that is no longer than the RPO. */
    readonly windowMs: number;
    /** Less than this, and the target falls behind for ever. */
    readonly leastBytesPerSecond: number;
    /** With this, 95 of 100 deltas are away before the next one is cut. */
    readonly wantedBytesPerSecond: number;
    readonly linkBytesPerSecond: number;
    /** What a loss at the worst moment costs in 95 of 100 cycles; null: the link cannot keep up. */
    readonly expectedMs: number | null;
  };
  /** For the largest delta that was seen. */
  readonly spoolBytes: number;
  /** At the link's rate, if every byte had to go: zeroes and holes do not. */
  readonly firstSyncMs: number;
  readonly space: {
    /** Of the journal, at the RPO's pace. */
    readonly bytesPerHour: number;
    readonly bytesPerDay: number;
    /** Journal and history of the retention's window. */
    readonly windowMs: number;
    readonly windowBytes: number;
    /** History before the window, at most, by what keeps it: each point holds what was changed until the next kept one, as if the guest went on so and never came back to a block. */
    readonly older: Readonly<Record<keyof typeof periodsMs, number>>;
    readonly olderBytes: number;
    /** The replica, if no block of it were a hole. */
    readonly replicaBytes: number;
    readonly totalBytes: number;
    /** The retention's own bound on journal and history; null: the volume. */
    readonly budgetBytes: number | null;
  };
}

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** Months count as their longest. */
const periodsMs = { hourly: hourMs, daily: dayMs, weekly: 7 * dayMs, monthly: 31 * dayMs } as const;
/** A delta image is planned larger than the dirty bytes, and beside the next one it needs room again (cycle-plan.ts). */
const spoolFactor = 2;

export function planEstimate(measured: ChangeMeasurement, request: EstimateRequest): Estimate {
  const { forMs, sizeBytes, written } = measured;
  const windows = measured.windows.map(summarise);
  const [longest, shortest] = [windows.at(-1), windows[0]];
  assert(longest !== undefined && shortest !== undefined, 'a measurement has a window');
  const ofRpo = windows.findLast(({ windowMs }) => windowMs <= request.rpoMs) ?? shortest;

  // Both over the same time, as the pattern of a daemon is over the same cuts.
  const pattern = written === null || written.bytes === 0 ? null : { writtenBytes: written.bytes, changedBytes: ofRpo.bytesPerSecond * (forMs / 1000) };
  const capture = planCapture({ choice: 'auto', rpoMs: request.rpoMs, now: 'cbt', pattern });
  // A log carries sectors as they were written, never more than those; a copy carries whole blocks.
  const share = capture.capture === 'writelog' && pattern !== null && pattern.changedBytes > 0 ? Math.min(1, pattern.writtenBytes / pattern.changedBytes) : 1;
  const rate = ofRpo.bytesPerSecond * share;
  const link = request.linkBytesPerSecond;

  const { retention } = request;
  const windowBytes = 2 * rate * (retention.windowMs / 1000);
  const ofStep = (step: keyof typeof periodsMs): number => Math.ceil(retention[step] * Math.min(sizeBytes, longest.bytesPerSecond * (periodsMs[step] / 1000)));
  const older = { hourly: ofStep('hourly'), daily: ofStep('daily'), weekly: ofStep('weekly'), monthly: ofStep('monthly') };
  const olderBytes = older.hourly + older.daily + older.weekly + older.monthly;
  return {
    forMs, sizeBytes, windows, capture,
    written: written === null ? null : {
      bytesPerSecond: Math.round(written.bytes / (forMs / 1000)), operationsPerSecond: written.operations / (forMs / 1000),
      meanBytes: written.operations === 0 ? 0 : Math.round(written.bytes / written.operations),
    },
    rpo: {
      rpoMs: request.rpoMs, windowMs: ofRpo.windowMs, linkBytesPerSecond: link,
      leastBytesPerSecond: Math.ceil(rate), wantedBytesPerSecond: Math.ceil(Math.max(rate, ofRpo.p95Bytes * share / (ofRpo.windowMs / 1000))),
      expectedMs: rate >= link ? null : Math.round(request.rpoMs + 1000 * (ofRpo.p95Bytes * share * Math.max(1, request.rpoMs / ofRpo.windowMs)) / link),
    },
    spoolBytes: Math.ceil(spoolFactor * ofRpo.maxBytes * Math.max(1, request.rpoMs / ofRpo.windowMs)),
    firstSyncMs: Math.round(1000 * sizeBytes / link),
    space: {
      bytesPerHour: Math.ceil(rate * 3600), bytesPerDay: Math.ceil(rate * 86_400), windowMs: retention.windowMs,
      windowBytes: Math.ceil(windowBytes), older, olderBytes, replicaBytes: sizeBytes, totalBytes: Math.ceil(sizeBytes + windowBytes + olderBytes), budgetBytes: retention.budgetBytes,
    },
  };
}

function summarise({ windowMs, cycles }: MeasuredWindow): WindowEstimate {
  assert(cycles.length > 0, 'a window has a cycle');
  const sizes = cycles.map(({ changedBytes }) => changedBytes).sort((a, b) => a - b);
  const ms = cycles.reduce((sum, cycle) => sum + cycle.ms, 0);
  assert(ms > 0, 'a cycle takes time');
  return { windowMs, cycles: cycles.length, medianBytes: rank(sizes, 0.5), p95Bytes: rank(sizes, 0.95), maxBytes: sizes.at(-1)!, bytesPerSecond: sizes.reduce((sum, size) => sum + size, 0) / (ms / 1000) };
}

/** Nearest rank. */
function rank(sorted: readonly number[], share: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)]!;
}

/** What is read of a restore point. */
export interface EstimatedPoint { readonly term: number; readonly cutAtMs: number; readonly changedBytes: number; readonly keptBy: string }

/**
 * A measurement from the points of a guest that is protected: of each pair of neighbours of which nothing between was given up, the
 * later one's delta. `points`: newest last. Null when there is no such pair cut at or after `sinceMs` (source's wall clock, ms).
 */
export function measurementOfPoints(points: readonly EstimatedPoint[], sizeBytes: number, sinceMs: number): ChangeMeasurement | null {
  const cycles = points.flatMap((point, at): MeasuredCycle[] => {
    const before = points[at - 1];
    if (before === undefined || before.term !== point.term || before.keptBy !== 'all' || point.keptBy !== 'all' || before.cutAtMs < sinceMs) return [];
    const ms = point.cutAtMs - before.cutAtMs;
    // A clock that was set back says nothing.
    return ms > 0 ? [{ ms, changedBytes: point.changedBytes }] : [];
  });
  if (cycles.length === 0) return null;
  const spans = cycles.map(({ ms }) => ms).sort((a, b) => a - b);
  return { forMs: spans.reduce((sum, ms) => sum + ms, 0), sizeBytes, written: null, windows: [{ windowMs: rank(spans, 0.5), cycles }] };
}
