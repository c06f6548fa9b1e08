/** What is wrong, according to a role's one report: pure. How long it must last before it is told, and whether it was told, is alert-state-plan.ts's. */
import type { GuestReport, SourceReport } from '../../daemon/report.ts';
import { isWindowShort } from '../../replica-target/points/window-promise-plan.ts';
import type { TargetReport } from '../../replica-target/report.ts';
import type { GroupStoreReport } from '../../replica-target/store/store.ts';
import { formatBytes, formatInstant, formatSpan } from '../render/units.ts';
import type { AlertCode } from './alert-codes.ts';
import type { AlertThresholds, Condition, Severity } from './alert-options.ts';

/** However short an objective is, below these ages nobody needs to be woken, ms. */
const [lateMsMin, lateErrorMsMin] = [15_000, 60_000];
/** What comes and goes by itself when a daemon starts or a line breaks is not told, ms. */
const passingMs = 30_000;
/** A certificate that ends within this is an error, ms. */
const certificateErrorMs = 7 * 86_400_000;

type Found = Omit<Condition, 'key' | 'forMs'> & { readonly forMs?: number; readonly of?: string };

export function findConditions(report: SourceReport | TargetReport, thresholds: AlertThresholds): Condition[] {
  const found = report.role === 'source' ? atSource(report, thresholds) : atTarget(report, thresholds);
  const alarms: Found[] = (report.alarms ?? []).map(({ code, group, message }) => ({ code, group, severity: 'error', message }));
  const byKey = new Map<string, Condition>();
  for (const { of = '', forMs = 0, ...one } of [...found, ...alarms]) {
    const key = [one.code, one.group ?? '', of].join(' ').trimEnd();
    // What is said twice is the same.
    if (!byKey.has(key)) byKey.set(key, { key, forMs, ...one });
  }
  return [...byKey.values()];
}

function own(code: AlertCode, group: string | null, severity: Severity, message: string, more: { readonly forMs?: number; readonly of?: string } = {}): Found {
  return { code, group, severity, message, ...more };
}

function atSource(report: SourceReport, thresholds: AlertThresholds): Found[] {
  const links = report.targets.flatMap(({ name, state, lastFault }) => (state === 'up' ? [] : [
    own('TARGET_ABSENT', null, 'error', `the target ${name} is not connected: ${lastFault?.message ?? 'no answer yet'}`, { forMs: thresholds.absentMs, of: name }),
  ]));
  return [...links, ...[...report.guests, ...report.relays].flatMap((guest) => [...guestTroubles(guest), ...lateGuest(guest, thresholds)])];
}

function guestTroubles({ name, phase, detail, target, lease }: GuestReport): Found[] {
  const found: Found[] = [];
  if (phase === 'refused' || phase === 'held' || phase === 'superseded') found.push(own('NOT_PROTECTED', name, 'error', `${name} is ${phase}, and not protected to ${target}: ${detail}`, { forMs: passingMs, of: target }));
  if (lease?.state === 'lost') found.push({ code: 'LEASE_LOST', group: name, severity: 'error', message: `the lease of ${name} is lost: ${lease.why}${lease.isStopped ? '; its guests were stopped' : ''}` });
  return found;
}

function lateGuest({ name, target, phase, rpoMs, clocks: { newestPointMs } }: GuestReport, thresholds: AlertThresholds): Found[] {
  // Elsewhere it is protected by another.
  if (newestPointMs === null || ['yielding', 'relinquished', 'superseded'].includes(phase)) return [];
  return late(name, target, rpoMs, newestPointMs, thresholds);
}

function late(group: string, of: string, rpoMs: number, ageMs: number, { rpoWarn, rpoError }: AlertThresholds): Found[] {
  const isError = ageMs > Math.max(rpoMs * rpoError, lateErrorMsMin);
  if (!isError && ageMs <= Math.max(rpoMs * rpoWarn, lateMsMin)) return [];
  return [own('RPO_LATE', group, isError ? 'error' : 'warning', `the newest point of ${group} is ${formatSpan(ageMs)} old, its objective is ${formatSpan(rpoMs)}`, { of })];
}

function atTarget(report: TargetReport, thresholds: AlertThresholds): Found[] {
  const { atMs, sources, volume, certificateExpiresAtMs, groups, checks, rehearsals, startChecks, automatic } = report;
  const here = new Set(sources.map(({ sourceId }) => sourceId));
  const found = groups.flatMap((group) => [...groupTroubles(report, group, here.has(group.sourceId), thresholds), ...unproven(report, group, thresholds)]);
  if (volume !== undefined) {
    const { freeBytes, keptBytes, fullInMs } = volume;
    if (freeBytes <= keptBytes) found.push(own('VOLUME_FILLS', null, 'error', `${formatBytes(freeBytes)} are free on the target’s volume, and ${formatBytes(keptBytes)} are to stay free: nothing more is taken`));
    else if (fullInMs !== null && fullInMs < thresholds.volumeFullMs) found.push(own('VOLUME_FILLS', null, 'warning', `the target’s volume will be full in ${formatSpan(fullInMs)} if it goes on as in the last hours; ${formatBytes(freeBytes)} are free`, { forMs: passingMs }));
  }
  if (certificateExpiresAtMs !== undefined && certificateExpiresAtMs - atMs < thresholds.certificateMs) {
    found.push(own('CERTIFICATE_EXPIRES', null, certificateExpiresAtMs - atMs < certificateErrorMs ? 'error' : 'warning', `the target’s certificate ends at ${formatInstant(certificateExpiresAtMs)}`));
  }
  for (const { group, findingCount, findings } of checks ?? []) {
    if (findingCount > 0) found.push(own('DATA_DAMAGED', group, 'error', `what is stored of ${group} is damaged in ${findingCount} places, the first is ${findings[0]?.path ?? 'not named'}`));
  }
  for (const { group, isPassed, why, endedAtMs, folder } of rehearsals ?? []) {
    if (!isPassed) found.push(own('REHEARSAL_FAILED', group, 'error', `the rehearsal of ${group} at ${formatInstant(endedAtMs)} failed: ${why}; its report is in ${folder}`));
  }
  for (const { group, verdict, findings } of startChecks ?? []) {
    if (verdict !== 'refused') continue;
    const reasons = findings.filter((one) => one.verdict === 'refused').map((one) => `${one.check}: ${one.found}`);
    found.push(own('START_REFUSED', group, 'error', `${group} could not start here: ${reasons.join('; ')}`));
  }
  for (const { group, lastFault, unheldMs } of automatic ?? []) {
    if (lastFault !== null && unheldMs !== null) found.push(own('AUTOMATIC_FAILED', group, 'error', `${group} could not fail over by itself: ${lastFault.message}`));
  }
  return found;
}

function groupTroubles({ atMs, failovers }: TargetReport, group: GroupStoreReport, isConnected: boolean, thresholds: AlertThresholds): Found[] {
  const { name, state, newest, rpoMs, held, retention } = group;
  const found: Found[] = [];
  if (held !== null) found.push({ code: held.code, group: name, severity: 'error', message: `${name} takes nothing more, or is not applied: ${held.message}` });
  if (state === 'failed-over') {
    const { isRunning = false } = failovers.find((one) => one.group === name) ?? {};
    found.push(own('FAILED_OVER', name, 'error', `${name} has failed over to here and ${isRunning ? 'runs' : 'does not run'}; it is not decided whether it stays`));
    return found;
  }
  if (newest !== null && !isConnected) found.push(own('SOURCE_ABSENT', name, 'error', `the source of ${name} is not connected; the newest point arrived ${formatSpan(atMs - newest.arrivedAtMs)} ago`, { forMs: thresholds.absentMs }));
  if (newest !== null && isConnected) found.push(...late(name, '', rpoMs, atMs - newest.arrivedAtMs, thresholds));
  if (retention === null) return found;
  // A young group has less than is promised, and nothing is wrong with it: one that is short for longer than the window is not young.
  if (isConnected && isWindowShort(retention, rpoMs)) {
    found.push(own('HISTORY_SHORT', name, 'warning', `${name} has every point of ${formatSpan(retention.windowHadMs)}, and ${formatSpan(retention.windowMs)} are promised`, { forMs: Math.round(retention.windowMs * 1.1) }));
  }
  if (retention.space === 'tight') found.push(own('SPACE_TIGHT', name, 'warning', `journal and history of ${name} take ${formatBytes(retention.usedBytes)}${retention.limitBytes === null ? '' : ` of ${formatBytes(retention.limitBytes)}`}`, { forMs: passingMs }));
  return found;
}

function unproven({ atMs, rehearsals }: TargetReport, { name, newest, state }: GroupStoreReport, { provenMs }: AlertThresholds): Found[] {
  if (provenMs === null || newest === null || state === 'failed-over') return [];
  const passedAtMs = rehearsals?.find(({ group }) => group === name)?.lastPassedAtMs ?? null;
  if (passedAtMs !== null && atMs - passedAtMs < provenMs) return [];
  const last = passedAtMs === null ? 'none ever has' : `the last that has is ${formatSpan(atMs - passedAtMs)} ago`;
  // A new group gets as long as an old one.
  return [own('BOOT_UNPROVEN', name, 'warning', `no rehearsal of ${name} has passed for ${formatSpan(provenMs)}: ${last}`, { forMs: passedAtMs === null ? provenMs : 0 })];
}
