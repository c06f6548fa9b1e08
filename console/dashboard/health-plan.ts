/**
 * How a group or a guest stands, in one word and the reasons for it: what the dashboard colours by. Pure. The thresholds are multiples of
 * the objective, as a point is due once per objective and takes its time to arrive: between two points the age of the newest grows
 * to the objective and a little more, which is as it should be.
 */
import type { GuestReport } from '../../daemon/report.ts';
import { isWindowShort } from '../../replica-target/points/window-promise-plan.ts';
import type { TargetReport } from '../../replica-target/report.ts';
import type { GroupStoreReport } from '../../replica-target/store/store.ts';
import { formatSpan } from '../render/units.ts';

/** `good`, `warn`, `bad`: green, amber, red. `other`: nothing is protected here just now, as it should be. */
export type Level = 'good' | 'warn' | 'bad' | 'other';
export interface Health { readonly level: Level; readonly word: string; readonly reasons: readonly string[] }

/** Objectives of one second jitter by more than themselves on a busy host. */
const slackMs = 2_000;
const [warnTimes, badTimes] = [2, 5] as const;
/** A rehearsal older than this proves little. */
const provenMsMax = 31 * 86_400_000;

export function exposureLevel(ageMs: number | null, rpoMs: number): Level {
  if (ageMs === null) return 'bad';
  if (ageMs > badTimes * rpoMs + slackMs) return 'bad';
  return ageMs > warnTimes * rpoMs + slackMs ? 'warn' : 'good';
}

/** `agedMs`: time since the report was made, which ages its points as well. */
export function groupHealth(report: TargetReport, group: GroupStoreReport, agedMs: number): Health {
  const found: [Level, string][] = [];
  const say = (level: Level, reason: string): void => { found.push([level, reason]); };
  if (group.held !== null) say('bad', group.held.message);
  for (const one of report.checks ?? []) if (one.group === group.name && one.findingCount > 0) say('bad', `stored data is damaged in ${one.findingCount} places`);
  for (const one of report.alarms ?? []) if (one.group === group.name) say('bad', one.message);
  const check = report.startChecks?.find((one) => one.group === group.name);
  if (check?.verdict === 'refused') say('warn', 'it could not start here');
  const rehearsal = report.rehearsals?.find((one) => one.group === group.name);
  if (rehearsal?.isPassed === false) say('warn', `its last rehearsal failed: ${rehearsal.why}`);
  else if (rehearsal !== undefined && report.atMs - rehearsal.startedAtMs > provenMsMax) say('warn', `last proven by a boot ${formatSpan(report.atMs - rehearsal.startedAtMs)} ago`);
  if (group.retention?.space === 'full') say('bad', 'journal and history are full, and all of it is promised');
  if (group.retention?.space === 'tight') say('warn', 'older points are given up before their time, for space');
  if (group.state !== 'protected') {
    const runs = report.failovers.find((one) => one.group === group.name);
    if (runs !== undefined && !runs.isRunning) say('bad', 'its guest does not run');
    return summed(group.state === 'failed-over' ? 'failed over' : 'runs here', 'other', found);
  }
  if (group.newest === null) {
    say('warn', group.seed === 'done' ? 'there is no point yet' : 'its first sync is under way');
    return summed('first sync', 'warn', found);
  }
  const ageMs = report.atMs + agedMs - group.newest.cutAtMs;
  const level = exposureLevel(ageMs, group.rpoMs);
  if (level !== 'good') say(level, `a loss would cost ${formatSpan(ageMs)}; the objective is ${formatSpan(group.rpoMs)}`);
  if (isHistoryShort(group)) say('warn', `history reaches back ${formatSpan(group.retention!.windowHadMs)}, promised are ${formatSpan(group.retention!.windowMs)}`);
  return summed('protected', 'good', found);
}

/** Less than promised, although the group is old enough to have it. */
export function isHistoryShort({ retention, oldest, newest, rpoMs }: GroupStoreReport): boolean {
  if (retention === null || oldest === null || newest === null) return false;
  return isWindowShort(retention, rpoMs) && newest.arrivedAtMs - oldest.arrivedAtMs > retention.windowMs;
}

export function guestHealth(guest: GuestReport, agedMs: number): Health {
  const found: [Level, string][] = [];
  switch (guest.phase) {
    case 'protected': break;
    case 'first-sync': case 'resync': case 'connecting': found.push(['warn', guest.detail]); break;
    case 'relinquished': case 'superseded': return { level: 'other', word: guest.phase, reasons: [guest.detail] };
    default: found.push(['bad', guest.detail]);
  }
  const { newestPointMs } = guest.clocks;
  if (guest.phase === 'protected' || newestPointMs !== null) {
    const ageMs = newestPointMs === null ? null : newestPointMs + agedMs;
    const level = exposureLevel(ageMs, guest.rpoMs);
    if (level !== 'good') found.push([level, `a loss would cost ${formatSpan(ageMs)}; the objective is ${formatSpan(guest.rpoMs)}`]);
  }
  return summed(guest.phase.replace('-', ' '), 'good', found);
}

/** The worst of them counts; the worst come first. */
function summed(word: string, atBest: Level, found: readonly (readonly [Level, string])[]): Health {
  const order: readonly Level[] = ['bad', 'warn', 'good', 'other'];
  const sorted = [...found].sort((a, b) => order.indexOf(a[0]) - order.indexOf(b[0]));
  const worst = sorted[0]?.[0];
  return { level: worst === 'bad' || worst === 'warn' ? worst : atBest, word, reasons: sorted.map(([, reason]) => reason) };
}

/** How long until what journal and history may take is used up at this rate of change; null: not in sight. */
export function fullInMs({ retention }: GroupStoreReport, bytesPerMs: number): number | null {
  if (retention === null || retention.limitBytes === null || !(bytesPerMs > 0)) return null;
  return Math.max(0, retention.limitBytes - retention.usedBytes) / bytesPerMs;
}
