/** The target's report as a page of text. Pure: everything in it comes from the report. */
import { formatPoint } from '../../journal/point.ts';
import type { EndedTest, FailedOverGuest, GroupChecked, TargetReport, TestGuest } from '../../replica-target/report.ts';
import type { RetentionReport } from '../../replica-target/points/retention.ts';
import type { GroupStoreReport } from '../../replica-target/store/store.ts';
import { formatTable, tint, type Look } from './look.ts';
import { formatLastRehearsal } from './rehearsal.ts';
import { formatHome } from './points.ts';
import { formatStartLine } from './start-check.ts';
import { absent, formatBytes, formatInstant, formatSpan, printable } from './units.ts';

export function formatTargetStatus(look: Look, report: TargetReport): string {
  const blocks = [`${tint(look, 'strong', 'target')} ${report.version}, ${formatInstant(report.atMs)}, ${printable(report.address)}, fingerprint ${report.fingerprint}`];
  blocks.push(report.sources.length === 0 ? 'no source is connected' : report.sources.map((source) =>
    `source ${printable(source.name)} (${printable(source.address)}) ${tint(look, 'good', 'connected')} for ${formatSpan(report.atMs - source.sinceMs)}, ${formatBytes(source.receivedBytes)} received`).join('\n'));
  blocks.push(report.groups.length === 0 ? 'no group is here yet' : formatGroups(look, report));
  const notes = [
    ...(report.alarms ?? []).filter(({ code }) => code === 'GUEST_SUSPECT').map(({ message, sinceMs }) => `${tint(look, 'bad', printable(message))}, noticed ${formatSpan(report.atMs - sinceMs)} ago`),
    ...report.groups.flatMap((group) => (group.held === null ? [] : [`${group.name}: ${tint(look, 'bad', 'held')} since ${formatInstant(group.held.sinceMs)} (${formatSpan(report.atMs - group.held.sinceMs)}), ${group.held.code}: ${printable(group.held.message)}`])),
    ...report.groups.flatMap((group) => (group.retention === null ? [] : [formatRetention(look, group.name, group.retention)])),
    ...report.groups.flatMap((group) => (group.locked === undefined ? [] : [formatLocks(look, group.name, group.locked)])),
    ...(report.startChecks ?? []).map((check) => formatStartLine(look, report.atMs, check)),
    ...report.failovers.map((guest) => formatFailover(look, report, guest)),
    ...report.tests.map((test) => formatTest(look, report, test)),
    ...report.endedTests.map((test) => formatEndedTest(look, report, test)),
    ...(report.rehearsals ?? []).map((rehearsal) => formatLastRehearsal(look, rehearsal, report.atMs)),
  ];
  notes.push(...(report.automatic ?? []).map((one) => formatAutomatic(look, report.atMs, one)));
  notes.push(...(report.checks ?? []).map((checked) => formatChecked(look, report.atMs, checked)), formatNbd(look, report));
  const refusals = Object.entries(report.refusals).filter(([, count]) => count > 0);
  if (refusals.length > 0) notes.push(tint(look, 'quiet', `refused since start: ${refusals.map(([code, count]) => `${printable(code)} ${count}×`).join(', ')}`));
  if (notes.length > 0) blocks.push(notes.join('\n'));
  return `${blocks.join('\n\n')}\n`;
}

function formatAutomatic(look: Look, atMs: number, { group, afterMs, why, unheldMs, lastFault }: NonNullable<TargetReport['automatic']>[number]): string {
  const now = unheldMs === null ? printable(why) : tint(look, 'bad', `${printable(why)} for ${formatSpan(unheldMs)}`);
  const failed = lastFault === null ? '' : `; ${formatSpan(atMs - lastFault.atMs)} ago ${lastFault.code}: ${printable(lastFault.message)}`;
  return tint(look, 'quiet', `${printable(group)} fails over by itself when nobody has held its lease for ${formatSpan(afterMs)}: `) + now + failed;
}

function formatChecked(look: Look, atMs: number, { group, lastAtMs, findingCount, findings, underWay }: GroupChecked): string {
  const last = lastAtMs === null ? 'never checked' : findingCount === 0 ? `sound ${formatSpan(atMs - lastAtMs)} ago` : `${tint(look, 'bad', 'damaged')} in ${findingCount} places (${printable(findings[0]?.path ?? '')}), found ${formatSpan(atMs - lastAtMs)} ago: afterimage verify ${printable(group)}`;
  const now = underWay === null ? '' : `; being checked, ${formatBytes(underWay.doneBytes)} of about ${formatBytes(underWay.totalBytes)}`;
  const line = `stored data of ${printable(group)}: ${last}${now}`;
  return findingCount === 0 ? tint(look, 'quiet', line) : line;
}

function formatNbd(look: Look, { nbd }: TargetReport): string {
  const clientCount = Object.values(nbd.clients).reduce((sum, count) => sum + count, 0);
  return tint(look, 'quiet', `points over NBD: ${printable(nbd.socketPath)}${nbd.address === null ? '' : `, ${printable(nbd.address)} (TLS)`}; ${clientCount === 0 ? 'nobody reads' : `${clientCount} connections read ${nbd.viewCount} points`}`);
}

function formatGroups(look: Look, report: TargetReport): string {
  return formatTable(look, [
    { head: 'GROUP' }, { head: 'STATE' }, { head: 'DISKS', align: 'right', isExtra: true }, { head: 'SIZE', align: 'right', isExtra: true }, { head: 'POINTS', align: 'right' },
    { head: 'NEWEST', align: 'right' }, { head: 'AGE', align: 'right' }, { head: 'RPO', align: 'right' }, { head: 'APPLIED', align: 'right' },
    { head: 'REPLICA', align: 'right', isExtra: true }, { head: 'JOURNAL', align: 'right', isExtra: true }, { head: 'HISTORY', align: 'right', isExtra: true },
  ], report.groups.map((group) => [
    printable(group.name),
    formatState(look, group, report.tests.some((test) => test.group === group.name)),
    String(group.disks.length),
    formatBytes(group.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0)),
    String(group.pointCount),
    group.newest === null ? absent : formatPoint(group.newest),
    group.newest === null ? absent : formatSpan(report.atMs - group.newest.cutAtMs),
    formatSpan(group.rpoMs),
    group.applied === null ? absent : formatPoint(group.applied),
    formatBytes(group.replicaBytes),
    formatBytes(group.journalBytes),
    formatBytes(group.historyBytes),
  ]));
}

/** What is promised, what there is of it, and the space that it takes. */
function formatRetention(look: Look, group: string, { windowMs, windowHadMs, usedBytes, limitBytes, space }: RetentionReport): string {
  const window = windowHadMs >= windowMs ? formatSpan(windowMs) : `${formatSpan(windowHadMs)} so far, ${formatSpan(windowMs)} promised`;
  const taken = `journal and history take ${formatBytes(usedBytes)}${limitBytes === null ? '' : ` of ${formatBytes(limitBytes)}`}`;
  const line = `${printable(group)}: every point of the last ${window}; ${taken}`;
  switch (space) {
    case 'ample': return tint(look, 'quiet', line);
    case 'tight': return `${line}: ${tint(look, 'working', 'older points are given up before their time when it is full')}`;
    case 'full': return `${line}: ${tint(look, 'bad', 'full of what is promised or held')}`;
    default: return space satisfies never;
  }
}

function formatLocks(look: Look, group: string, { untilMs, isImmutable }: NonNullable<GroupStoreReport['locked']>): string {
  const files = isImmutable === null ? '' : isImmutable ? '; their files are immutable' : '; their files cannot be made immutable here';
  return tint(look, 'quiet', `${printable(group)}: points are locked, the last until ${formatInstant(untilMs)}${files}`);
}

function formatState(look: Look, group: GroupStoreReport, isTesting: boolean): string {
  if (group.state === 'failed-over') return tint(look, 'bad', 'failed over');
  if (group.state === 'committed' && group.held === null) return tint(look, 'good', 'runs here');
  if (group.isReclaimed && group.held === null) return group.newest === null ? tint(look, 'working', 'coming home') : tint(look, 'good', 'home at any time');
  if (group.held !== null) return tint(look, 'bad', 'held');
  if (group.newest === null) return tint(look, 'working', group.seed === 'done' ? 'awaits first point' : 'first sync');
  return isTesting ? `${tint(look, 'good', 'protected')}, ${tint(look, 'working', 'testing')}` : tint(look, 'good', 'protected');
}

function formatFailover(look: Look, report: TargetReport, guest: FailedOverGuest): string {
  const state = guest.isAwaited && guest.isRunning ? tint(look, 'bad', 'stands ready here, and waits for its source to let go of it')
    : guest.isRunning ? tint(look, 'good', 'runs here') : tint(look, 'bad', 'does not run');
  return `${printable(guest.group)}: failed over to point ${formatPoint(guest.point)} in term ${guest.term}, ${state} (${formatGuests(look, guest.guests)}, started ${formatSpan(report.atMs - guest.startedAtMs)} ago)${guest.home === null ? '' : `; ${formatHome(look, guest.home)}`}${formatDecision(look, report, guest)}`;
}

function formatGuests(look: Look, guests: FailedOverGuest['guests']): string {
  if (guests.length === 1) return `pid ${guests[0]!.pid ?? absent}, QMP ${printable(guests[0]!.qmpPath)}${formatStart(look, guests[0]!)}`;
  return guests.map(({ name, pid, isRunning, qmpPath }) => `${printable(name)} ${isRunning ? `pid ${pid ?? absent}` : tint(look, 'bad', 'does not run')}, QMP ${printable(qmpPath)}${formatStart(look, guests.find((one) => one.name === name)!)}`).join('; ');
}

/** Where a guest is in its group's start, if that is not over and done. */
function formatStart(look: Look, { start }: FailedOverGuest['guests'][number]): string {
  if (start === undefined) return '';
  switch (start.state) {
    case 'ready': return '';
    case 'waiting': return `, ${tint(look, 'working', 'waits for its turn to start')}`;
    case 'running': return `, ${tint(look, 'working', 'not ready yet')}`;
    case 'late': return `, ${tint(look, 'bad', `not ready in time: ${start.checks.filter(({ isReady }) => !isReady).map(({ what, why }) => printable(`${what}: ${why}`)).join('; ')}`)}`;
    default: return start.state satisfies never;
  }
}

function formatDecision(look: Look, report: TargetReport, { decision, isCommitting }: FailedOverGuest): string {
  if (isCommitting) return '; then the failover is committed';
  if (decision === null) return '';
  const when = formatSpan(Math.max(0, decision.atMs - report.atMs));
  return `; ${tint(look, 'working', decision.act === 'commit' ? `committed by itself in ${when}` : `rolled back by itself in ${when}, unless it is committed`)}`;
}

function formatTest(look: Look, report: TargetReport, test: TestGuest): string {
  const state = test.isRunning ? tint(look, 'good', 'runs') : tint(look, 'bad', 'does not run');
  return `${printable(test.group)}: a test of point ${formatPoint(test.point)} (cut ${formatInstant(test.cutAtMs)}) ${state} (${formatGuests(look, test.guests)}, ${formatBytes(test.usedBytes)} of ${formatBytes(test.budgetBytes)} written, ends in ${formatSpan(Math.max(0, test.endsAtMs - report.atMs))})`;
}

const ends: Readonly<Record<EndedTest['why'], string>> = {
  asked: 'as it was asked to', limit: 'at its time limit', budget: 'because it had written its budget', space: 'because space ran short for replication',
  'guest-ended': 'with its guest', failover: 'because a failover was asked for', interrupted: 'before its guest ran',
};

function formatEndedTest(look: Look, report: TargetReport, test: EndedTest): string {
  return tint(look, 'quiet', `${printable(test.group)}: a test of point ${formatPoint(test.point)} ended ${formatSpan(report.atMs - test.endedAtMs)} ago, ${ends[test.why]}`);
}
