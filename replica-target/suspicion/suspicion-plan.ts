/**
 * When a guest's changes look as if something were encrypting it: decided from what each point changed (point-changes.ts) against
 * the guest's own past. Pure; it reads no clock and keeps nothing.
 *
 * Three things are evidence, and all only as long as the new bytes cannot be told from a cipher's:
 * - *turned*: blocks that had structure and are noise now. Unpacking, copying and dumping write noise too, but over blank blocks,
 *   or over what was noise already.
 * - *scattered*: the same, counted and not weighed: so many separate pieces of the disk turned, each beside something that stayed
 *   as it was. Of a thousand files that lose their first 4 KiB each that is all that shows, and beside a busy database as well.
 * - *replaced*: noise in blank blocks while about as many structured blocks are given back: files are written anew and deleted.
 *
 * A compressor's output looks like noise block by block, and mostly does not in the sum: gzip, zstd, JPEG leave byte values
 * unequally frequent by a little, which shows over some hundred blocks. xz often cannot be told from a cipher: a large one written
 * over old files is a false alarm. Evidence leaks away, so that what comes in small portions
 * over hours does not add up; what the guest does of it as a matter of course is taken off.
 */
import { comparePoints, type PointId } from '../../journal/point.ts';
import { noiseDeviation, noiseMean } from './block-shape.ts';
import type { PointChanges } from './point-changes.ts';

export const sensitivities = ['low', 'normal', 'high'] as const;
export type Sensitivity = (typeof sensitivities)[number];

export interface SuspicionPolicy {
  /** `off`: nothing is looked at. */
  readonly sensitivity: Sensitivity | 'off';
  /** How long points from before are kept without being asked for, ms. */
  readonly holdMs: number;
}

export const defaultSuspicion: SuspicionPolicy = { sensitivity: 'normal', holdMs: 7 * 86_400_000 };

export interface SampledPoint extends PointId { readonly cutAtMs: number; readonly changes: PointChanges }

/** Of one kind, gathered over points, bytes. */
export interface Evidence {
  /** The point with which it began; null: there is as good as none. */
  readonly first: PointId | null;
  /** While there is no `first`: the last point, if it gave any, too little to begin with. An attack begins in the midst of a point. */
  readonly lead: PointId | null;
  readonly bytes: number;
  /** Of what was changed since it began, all that could have been evidence. */
  readonly changedBytes: number;
  /** Of all points that gave any: chi-square, bytes under it, how many statistics it is the sum of. */
  readonly chi: number;
  readonly pooled: number;
  readonly pools: number;
}

export interface Gathering {
  readonly turned: Evidence;
  /** First blocks of pieces that turned. */
  readonly scattered: Evidence;
  readonly fresh: Evidence;
  /** What had structure and was given back, bytes. */
  readonly wipedBytes: number;
  /** Of the last point, ms. */
  readonly cutAtMs: number;
}

const nothing: Evidence = { first: null, lead: null, bytes: 0, changedBytes: 0, chi: 0, pooled: 0, pools: 0 };
export const nothingGathered: Gathering = { turned: nothing, scattered: nothing, fresh: nothing, wipedBytes: 0, cutAtMs: 0 };

/** What is usual for a guest: from the points of its past. */
export interface Usual {
  /** Of a point, bytes: what may turn without being evidence. */
  readonly turnedBytes: number;
  readonly firstBytes: number;
  /** Median share of what differs that is noise; null without a past. */
  readonly incompressibleShare: number | null;
  readonly points: number;
}

export const suspicionKinds = ['turned', 'scattered', 'replaced'] as const;
/** `bytes`: of `scattered` those of the pieces' first blocks, of {@link shapeBlockBytes} each. */
export interface Suspicion { readonly kind: (typeof suspicionKinds)[number]; readonly first: PointId; readonly bytes: number; readonly changedBytes: number }

/** Evidence that is an alarm, bytes. */
const alarmBytes: Readonly<Record<Sensitivity, number>> = { low: 32 * 1024 ** 2, normal: 8 * 1024 ** 2, high: 2 * 1024 ** 2 };
/** Writing anew is what honest programs do, too: so much more of it is asked for. */
const replacedFactor = 2;
/**
 * First blocks of pieces that are an alarm, as a part of it: 256 pieces at `normal`. Measured: honest work up to 63, none of
 * them like a cipher's; in-place and first-block attacks 10 to 50 a second.
 */
const scatteredFactor = 1 / 8;
/** So many bytes of first blocks must have been sampled, some 18: in a large point each stands for hundreds, and a single one proves nothing. */
const scatteredPooledMin = 64 * 1024;
/** Evidence halves in this time, ms. */
const halfLifeMs = 10 * 60_000;
/** Below this share of the alarm it is as good as none and begins anew; a point that brings less than the second is not where it begins, unless the next one is. */
const forgottenShare = 1 / 64;
const beginningShare = 1 / 512;
/** Of what changed meanwhile so much at least must be evidence: an update that reuses blocks of old files stays below, whatever its size. */
const turnedShareMin = 0.25;
const replacedShareMin = 0.5;
/** How unequal byte values may be, (chi-square - 255) / bytes, for noise to pass for a cipher's. Measured: AES 0 ± 0.2, xz 0 to 3, bzip2 6, zstd and gzip 9, JPEG 90, in 1e-4. */
const cipherMax = 1e-4;
/**
 * Below this many sampled bytes nothing is decided: the statistic's own deviation would be larger than what it is to tell apart.
 * Of one pool; the deviation of a sum of pools grows with the root of their number.
 */
const pooledBytesMin = 128 * 1024;
/** What is usual is learnt from points this old, six half-lives: what goes on now must not teach that it is usual. An attack of 1 MiB a point once did, ms. */
const learntAfterMs = 3_600_000;
/** From at least and at most so many points; what an attacker can teach is bounded by a part of the alarm, too. */
const usualPointsMin = 16;
export const usualPoints = 512;
const usualShareMax = 1 / 4;

/** Oldest first: the points that may teach what is usual when one of `nowMs` is judged: old ones, and those that a person has dismissed (up to `dismissedMs`; 0: never). */
export function learnable<Point extends { readonly cutAtMs: number }>(points: readonly Point[], nowMs: number, dismissedMs: number): readonly Point[] {
  const untilMs = Math.max(nowMs - learntAfterMs, dismissedMs);
  return points.slice(0, points.findLastIndex(({ cutAtMs }) => cutAtMs <= untilMs) + 1).slice(-usualPoints);
}

/** `past`: of the points that may teach ({@link learnable}). */
export function usualOf(past: readonly PointChanges[], sensitivity: Sensitivity): Usual {
  const sampled = past.filter(({ sampledBlocks }) => sampledBlocks > 0).slice(-usualPoints);
  if (sampled.length === 0) return { turnedBytes: 0, firstBytes: 0, incompressibleShare: null, points: 0 };
  const upTo = (values: readonly number[], most: number): number => {
    const middle = median(values);
    // 1.4826: the median of absolute deviations in units of a standard deviation, of a normal distribution.
    const spread = 1.4826 * median(values.map((bytes) => Math.abs(bytes - middle)));
    return sampled.length < usualPointsMin ? 0 : Math.min(middle + 4 * spread, most * usualShareMax);
  };
  return {
    turnedBytes: upTo(sampled.map(({ turnedBytes }) => turnedBytes), alarmBytes[sensitivity]),
    firstBytes: upTo(sampled.map(({ firstBytes }) => firstBytes), alarmBytes[sensitivity] * scatteredFactor),
    incompressibleShare: median(sampled.map(({ noiseBytes, bytes, sameBytes }) => (bytes <= sameBytes ? 0 : Math.min(1, noiseBytes / (bytes - sameBytes))))),
    points: sampled.length,
  };
}

/** With one more point. */
export function gather(before: Gathering, point: SampledPoint, usual: Usual, sensitivity: Sensitivity): Gathering {
  const { cutAtMs, changes } = point;
  const kept = before.cutAtMs === 0 ? 0 : 2 ** (-Math.max(0, cutAtMs - before.cutAtMs) / halfLifeMs);
  const enough = alarmBytes[sensitivity];
  const { turnedBytes, turnedChi, turnedPooled, firstBytes, firstChi, firstPooled, freshBytes, freshChi, freshPooled } = changes;
  return {
    turned: added(before.turned, kept, point, { bytes: Math.max(0, turnedBytes - usual.turnedBytes), chi: turnedChi, pooled: turnedPooled }, enough),
    scattered: added(before.scattered, kept, point, { bytes: Math.max(0, firstBytes - usual.firstBytes), chi: firstChi, pooled: firstPooled }, enough * scatteredFactor),
    fresh: added(before.fresh, kept, point, { bytes: freshBytes, chi: freshChi, pooled: freshPooled }, enough),
    wipedBytes: before.wipedBytes * kept + changes.wipedBytes,
    cutAtMs: Math.max(before.cutAtMs, cutAtMs),
  };
}

/** Null: nothing to be alarmed about. */
export function judge({ turned, scattered, fresh, wipedBytes }: Gathering, sensitivity: Sensitivity): Suspicion | null {
  const enough = alarmBytes[sensitivity];
  if (turned.first !== null && turned.bytes >= enough && turned.bytes >= turned.changedBytes * turnedShareMin && isCipherLike(turned)) {
    return { kind: 'turned', first: turned.first, bytes: Math.round(turned.bytes), changedBytes: Math.round(turned.changedBytes) };
  }
  // Their first blocks are a few of what turned: by either it may be told, and by the whole sooner. Of a piece its first block is seldom the first that is sampled.
  const isWholeCipherLike = isCipherLike(turned);
  if (scattered.first !== null && scattered.bytes >= enough * scatteredFactor && scattered.pooled >= scatteredPooledMin && (isWholeCipherLike || isCipherLike(scattered))) {
    const isWholeEarlier = isWholeCipherLike && turned.first !== null && comparePoints(turned.first, scattered.first) < 0;
    return { kind: 'scattered', first: isWholeEarlier ? turned.first : scattered.first, bytes: Math.round(scattered.bytes), changedBytes: Math.round(scattered.changedBytes) };
  }
  const replaced = Math.min(fresh.bytes, wipedBytes);
  if (fresh.first !== null && replaced >= enough * replacedFactor && fresh.bytes >= fresh.changedBytes * replacedShareMin && isCipherLike(fresh)) {
    return { kind: 'replaced', first: fresh.first, bytes: Math.round(replaced), changedBytes: Math.round(fresh.changedBytes) };
  }
  return null;
}

/** Whether noise passes for a cipher's: what is measured is not above the limit by more than the measure's own deviation, twice. */
export function isCipherLike({ chi, pooled, pools }: Pick<Evidence, 'chi' | 'pooled' | 'pools'>): boolean {
  if (pooled < pooledBytesMin * Math.sqrt(Math.max(1, pools))) return false;
  return chi - noiseMean * pools - 2 * noiseDeviation * Math.sqrt(pools) <= cipherMax * pooled;
}

/**
 * What could have been evidence, of what was sent: neither blocks that are as they were, nor noise over noise, which is all that a
 * cipher leaves of files that were compressed before. With them a file system of small files, or of many compressed ones, would hide
 * the attack: of each 64 KiB that are sent, a small file takes 4.
 */
function tellingBytes({ bytes, sameBytes, noiseBytes, turnedBytes, freshBytes }: PointChanges): number {
  return Math.max(turnedBytes, freshBytes, bytes - sameBytes - (noiseBytes - turnedBytes - freshBytes));
}

function added(before: Evidence, kept: number, { term, point, changes }: SampledPoint, more: { readonly bytes: number; readonly chi: number; readonly pooled: number }, enough: number): Evidence {
  const bytes = before.bytes * kept;
  const begins = more.bytes >= enough * beginningShare;
  const old = before.first === null || (bytes < enough * forgottenShare && !begins) ? nothing : before;
  if (old.first === null && !begins) return more.bytes > 0 ? { ...nothing, lead: { term, point } } : nothing;
  return {
    first: old.first ?? before.lead ?? { term, point },
    lead: null,
    bytes: old.bytes * kept + more.bytes,
    changedBytes: old.changedBytes * kept + tellingBytes(changes),
    chi: old.chi * kept + more.chi,
    pooled: old.pooled * kept + more.pooled,
    pools: old.pools * kept + (more.pooled > 0 ? 1 : 0),
  };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
