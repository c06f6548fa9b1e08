/** What a failover would lose or has done, as text. Pure. The points themselves: timeline.ts. */
import { formatPoint } from '../../journal/point.ts';
import type { FailoverResult, TestResult } from '../../replica-target/operations.ts';
import type { FailedOverGuest } from '../../replica-target/report.ts';
import type { GroupStoreReport, StoredPoint } from '../../replica-target/store/store.ts';
import { tint, type Look } from './look.ts';
import { formatRefusals } from './start-check.ts';
import { formatBytes, formatInstant, formatSpan, printable } from './units.ts';

/** What a person is shown before they say yes. */
export function formatFailoverOutlook(look: Look, group: GroupStoreReport, atMs: number, chosen?: StoredPoint, isPlanned = false): string {
  const point = chosen ?? group.newest;
  if (point === null) return `${printable(group.name)} has no point yet: there is nothing to boot`;
  if (isPlanned) {
    return [
      `${tint(look, 'strong', printable(group.name))} would be shut down where it runs, and boot here from its final point, in term ${group.term + 1}.`,
      'Nothing would be lost. If anything fails before it runs here, it is started again where it was.',
    ].join('\n');
  }
  return [
    `${tint(look, 'strong', printable(group.name))} would boot here from point ${formatPoint(point)} (${point.kind}), cut ${formatInstant(point.cutAtMs)}.`,
    `What the guest wrote in the last ${tint(look, 'bad', formatSpan(atMs - point.cutAtMs))} (since that point) would be lost.`,
    'The old source is fenced out by a new term. Make sure that the old guest no longer runs.',
  ].join('\n');
}

/** A line for each guest. */
function formatStarted({ guests, accel }: Pick<FailoverResult, 'guests' | 'accel'>): string[] {
  return guests.map(({ name, pid, qmpPath, logPath }) => `${guests.length === 1 ? '' : `${printable(name)}: `}pid ${pid} (${accel}), QMP ${printable(qmpPath)}, log ${printable(logPath)}`);
}

export function formatFailoverResult(look: Look, result: FailoverResult): string {
  return [
    `${tint(look, 'good', `${printable(result.group)} runs here`)} from point ${formatPoint(result.point)}, in term ${result.term}, ${formatSpan(result.rtoMs)} after it was asked for.`,
    result.downtimeMs === undefined ? `Lost at most: the ${formatSpan(result.lostMs)} after that point.` : `Nothing was lost; no guest ran for ${formatSpan(result.downtimeMs)}.`,
    ...formatStarted(result),
    ...result.overlayPaths.map((path) => `overlay ${printable(path)}`),
    ...formatRefusals(look, result.startCheck),
    ...(result.isComingHome ? ['It reads from this target until its data has come home behind it: see `afterimage status`.'] : []),
  ].join('\n') + '\n';
}

export function formatHome(look: Look, { state, doneBytes, totalBytes }: NonNullable<FailedOverGuest['home']>): string {
  if (state === 'home') return `${tint(look, 'good', 'all data has come home')} (${formatBytes(totalBytes)}): the guest depends on its own images alone`;
  const percent = totalBytes === 0 ? 0 : Math.floor((doneBytes / totalBytes) * 100);
  return `${state === 'waiting' ? tint(look, 'working', 'waiting to come home') : tint(look, 'working', 'coming home')}: ${percent} %, ${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`;
}

export function formatTestResult(look: Look, result: TestResult, atMs: number): string {
  return [
    `${tint(look, 'good', `A test of ${printable(result.group)} runs`)} from point ${formatPoint(result.point)}, cut ${formatInstant(result.point.cutAtMs)} (${formatSpan(result.ageMs)} ago), ${formatSpan(result.rtoMs)} after it was asked for.`,
    `Protection goes on. ${result.network === 'none' ? 'Its network has no cable' : 'Its network leads nowhere'}; it may write ${formatBytes(result.budgetBytes)}; it ends and goes in ${formatSpan(result.endsAtMs - atMs)}.`,
    ...formatStarted(result),
    ...formatRefusals(look, result.startCheck),
    `End it: afterimage test-failover ${printable(result.group)} --stop`,
  ].join('\n') + '\n';
}
