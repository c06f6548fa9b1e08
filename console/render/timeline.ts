/** What a guest's points are, summed up and listed, and what an export has become, as text. Pure. */
import { formatPoint } from '../../journal/point.ts';
import type { GroupTimeline, LockedPoint, PointDescription } from '../../replica-target/points/point-desk.ts';
import type { PointRange } from '../../replica-target/points/point-ranges.ts';
import type { RestorePoint } from '../../replica-target/points/points.ts';
import type { WrittenExport } from '../export/write-export.ts';
import { formatTable, tint, type Look } from './look.ts';
import { absent, formatBytes, formatInstant, formatSpan, printable } from './units.ts';

/** Of points of one a second a screen is full in a minute; the rest is in the summary, and listed when asked for. */
const newestShown = 20;

/** All points, or the newest and those that somebody marked or holds. */
export function formatTimeline(look: Look, timeline: GroupTimeline, isAll: boolean): string {
  const { points, ranges, holds, atMs } = timeline;
  const newest = points.at(-1);
  if (newest === undefined) return 'no point yet: the first one comes with the end of the first sync\n';
  const shown = isAll ? points : points.filter((point, index) => index >= points.length - newestShown || point.isHeld || point.kind !== 'crash' || point.label !== undefined);
  const blocks = [`${tint(look, 'strong', printable(timeline.group))}: ${formatRanges(ranges, atMs)}`, formatPointTable(look, shown, atMs)];
  if (shown.length < points.length) blocks.push(tint(look, 'quiet', `${points.length - shown.length} older ones are not shown: --all`));
  if (holds.length > 0) blocks.push(holds.map(({ point, reason, takenAtMs, untilMs, lock }) => (
    `${lock === undefined ? 'held' : 'locked'}: ${formatPoint(point)} since ${formatInstant(takenAtMs)}${untilMs === null ? '' : `, until ${formatInstant(untilMs)}`}: ${printable(reason)}`)).join('\n'));
  return `${blocks.join('\n\n')}\n`;
}

const stepWords: Readonly<Record<PointRange['keptBy'], string>> = { all: 'every point', some: 'some', hourly: 'hourly', daily: 'daily', weekly: 'weekly', monthly: 'monthly', held: 'held ones' };

/** `every point from … to …; then hourly back to …`. */
export function formatRanges(ranges: readonly PointRange[], atMs: number): string {
  return ranges.map(({ keptBy, from, to, pointCount }, index) => {
    if (keptBy === 'all' && from.point === to.point && index === 0) return `the point of ${formatInstant(to.cutAtMs)}, ${formatSpan(atMs - to.cutAtMs)} ago`;
    if (index > 0) return `then ${stepWords[keptBy]} back to ${formatInstant(from.cutAtMs)} (${pointCount})`;
    return `${stepWords[keptBy]} from ${formatInstant(from.cutAtMs)} to ${formatInstant(to.cutAtMs)}, ${formatSpan(atMs - to.cutAtMs)} ago (${pointCount})`;
  }).join('; ');
}

function formatPointTable(look: Look, points: readonly RestorePoint[], atMs: number): string {
  return formatTable(look, [
    { head: 'POINT', align: 'right' }, { head: 'KIND' }, { head: 'CUT AT' }, { head: 'AGE', align: 'right' }, { head: 'ARRIVED AFTER', align: 'right', isExtra: true },
    { head: 'CHANGED', align: 'right' }, { head: 'NOISE', align: 'right', isExtra: true }, { head: 'APPLIED', isExtra: true }, { head: 'FROZEN', align: 'right' }, { head: 'KEPT' }, { head: 'LABEL' },
  ], points.map((point) => [
    formatPoint(point), formatKind(point), formatInstant(point.cutAtMs), formatSpan(atMs - point.cutAtMs), formatSpan(point.arrivedAtMs - point.cutAtMs),
    formatBytes(point.changedBytes), formatNoise(point), point.isApplied ? 'yes' : 'not yet', formatStill(point), `${point.isSuspect === true ? `${tint(look, 'bad', 'suspect')}, ` : ''}${point.keptBy}${keptBeside(point)}${point.provenAtMs === undefined ? '' : ', proven'}`, printable(point.label ?? ''),
  ]));
}

/** Share of what changed that cannot be compressed, and of that which could be before. */
function formatNoise({ changes }: RestorePoint): string {
  if (changes === undefined || changes.incompressibleShare === null || changes.turnedShare === null) return absent;
  return `${Math.round(changes.incompressibleShare * 100)} %, turned ${Math.round(changes.turnedShare * 100)} %`;
}

/** Guests that were cut one by one are of no one instant, and a point says so wherever it is named. */
export function formatKind({ kind, spreadMs }: Pick<RestorePoint, 'kind' | 'spreadMs'>): string {
  return spreadMs === undefined ? kind : `${kind}, guest by guest within ${formatSpan(spreadMs)}`;
}

/** A lock is a hold, and says more. */
function keptBeside({ isHeld, lockedUntilMs }: RestorePoint): string {
  return lockedUntilMs === undefined ? (isHeld ? ', held' : '') : `, locked until ${formatInstant(lockedUntilMs)}`;
}

export function formatLocked(look: Look, { group, point, hold }: LockedPoint): string {
  return `${tint(look, 'good', 'locked')}: ${printable(group)} at point ${formatPoint(point)}, cut ${formatInstant(point.cutAtMs)}, until ${formatInstant(hold.untilMs ?? 0)}. Nothing ends that sooner.\n`;
}

/** How long the guest, or the guests of a group, stood still for it. */
function formatStill({ frozenMs, pausedMs }: RestorePoint): string {
  return [...(frozenMs === undefined ? [] : [formatSpan(frozenMs)]), ...(pausedMs === undefined ? [] : [`paused ${formatSpan(pausedMs)}`])].join(', ');
}

/** `GUEST at POINT (kind), cut …`. */
export function formatChosenPoint(look: Look, { group, point }: PointDescription): string {
  return `${tint(look, 'strong', printable(group))} at point ${formatPoint(point)} (${formatKind(point)}${point.label === undefined ? '' : `, ${printable(point.label)}`}), cut ${formatInstant(point.cutAtMs)}`;
}

export function formatExport(look: Look, description: PointDescription, written: WrittenExport): string {
  return [
    `${formatChosenPoint(look, description)}, ${tint(look, 'good', 'is written and verified')}:`,
    ...written.disks.map(({ name, path, sizeBytes, fileBytes }) => `  ${printable(path)}  ${printable(name)}, ${formatBytes(sizeBytes)}, takes ${formatBytes(fileBytes)}`),
    `  ${printable(written.factsPath)}`,
  ].join('\n') + '\n';
}
