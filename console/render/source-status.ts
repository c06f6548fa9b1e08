/** The source's report as a page of text. Pure: everything in it comes from the report. */
import type { GuestPhase, GuestReport, SourceReport } from '../../daemon/report.ts';
import { formatPoint } from '../../journal/point.ts';
import { formatTable, tint, type Look, type Tone } from './look.ts';
import { formatMarked } from './marked.ts';
import { formatPass, type PassSample } from './pass-line.ts';
import { absent, formatBytes, formatInstant, formatRate, formatSpan, printable } from './units.ts';

/** Earlier progress of each guest's pass, by guest name (a watch has it). */
export type PassHistory = ReadonlyMap<string, PassSample>;

const phases = {
  connecting: { text: 'connecting', tone: 'working' },
  'first-sync': { text: 'first sync', tone: 'working' },
  resync: { text: 'resync', tone: 'working' },
  protected: { text: 'protected', tone: 'good' },
  behind: { text: 'behind', tone: 'bad' },
  held: { text: 'held', tone: 'bad' },
  yielding: { text: 'handing over', tone: 'working' },
  relinquished: { text: 'handed over', tone: 'quiet' },
  superseded: { text: 'superseded', tone: 'bad' },
  refused: { text: 'refused', tone: 'bad' },
} as const satisfies Record<GuestPhase, { text: string; tone: Tone }>;

export function formatSourceStatus(look: Look, report: SourceReport, history: PassHistory = new Map()): string {
  const blocks = [`${tint(look, 'strong', 'source')} ${report.version}, ${formatInstant(report.atMs)}`];
  blocks.push(report.targets.length === 0
    ? 'no target is paired: run `afterimage target invite` there, then `afterimage pair TOKEN` here'
    : report.targets.map((target) => formatTarget(look, report, target)).join('\n'));
  blocks.push(report.guests.length === 0 ? 'no guest is protected: `afterimage protect GUEST --qmp PATH`' : formatGuests(look, report.guests));
  if ((report.limits ?? []).length > 0) blocks.push(report.limits!.map((limit) => formatLimit(look, report.atMs, limit)).join('\n'));
  if (report.relays.length > 0) blocks.push(`on the way back to where they came from:\n${formatGuests(look, report.relays)}`);
  const notes = [...report.guests, ...report.relays].flatMap((guest) => formatNotes(look, report, guest, history.get(guest.name) ?? null));
  if (notes.length > 0) blocks.push(notes.join('\n'));
  return `${blocks.join('\n\n')}\n`;
}

function formatTarget(look: Look, report: SourceReport, target: SourceReport['targets'][number]): string {
  const head = `target ${target.name} (${printable(target.address)})`;
  const sinceMs = report.atMs - target.sinceMs;
  switch (target.state) {
    case 'up': {
      const { isOn, ratio, why } = target.compression;
      const compression = isOn ? `compressed to ${Math.round(ratio * 100)} %` : 'not compressed';
      return `${head} ${tint(look, 'good', 'up')} for ${formatSpan(sinceMs)}, ${formatBytes(target.sentBytes)} sent, ${compression} (${printable(why)})`;
    }
    case 'connecting': case 'down': {
      const behind = report.guests.filter((guest) => guest.target === target.name);
      const bytes = behind.reduce((sum, guest) => sum + guest.behindBytes, 0);
      const ages = behind.map((guest) => guest.clocks.newestPointMs).filter((age) => age !== null);
      const how = behind.length === 0 ? 'nothing to send' : `${formatBytes(bytes)} and ${ages.length === 0 ? 'all of it' : formatSpan(Math.max(...ages))} behind`;
      const why = target.lastFault === null ? '' : ` (${target.lastFault.code}: ${printable(target.lastFault.message)})`;
      return `${head} ${tint(look, 'bad', target.state === 'down' ? 'down' : 'down, connecting')} since ${formatInstant(target.sinceMs)} (${formatSpan(sinceMs)}), ${how}${why}`;
    }
    default: return target.state satisfies never;
  }
}

/** `limit to bravo: 20 MiB/s until 18:00, …`. */
function formatLimit(look: Look, atMs: number, { target, group, rateBytesPerSecond, isInForce, untilMs, isHolding, heldMs, passedBytes }: NonNullable<SourceReport['limits']>[number]): string {
  const of = `${group === null ? '' : ` of ${printable(group)}`}${target === null ? '' : ` to ${printable(target)}`}`;
  const head = `limit${of === '' ? ' of all that is sent' : of}: ${formatRate(rateBytesPerSecond)}`;
  if (!isInForce) return tint(look, 'quiet', `${head}, ${untilMs === null ? 'never in force' : `from ${formatInstant(untilMs)} on (in ${formatSpan(untilMs - atMs)})`}`);
  const held = heldMs === 0 ? 'held nothing back' : `held something back for ${formatSpan(heldMs)}`;
  return `${head} ${tint(look, isHolding ? 'working' : 'good', isHolding ? 'holds back' : 'in force')}${untilMs === null ? '' : ` until ${formatInstant(untilMs)} (${formatSpan(untilMs - atMs)})`}, ${formatBytes(passedBytes)} went under it, ${held}`;
}

function formatGuests(look: Look, guests: readonly GuestReport[]): string {
  return formatTable(look, [
    { head: 'GUEST' }, { head: 'PHASE' }, { head: 'TARGET', isExtra: true }, { head: 'POINT', align: 'right' }, { head: 'RPO', align: 'right' },
    { head: 'CAPTURED', align: 'right' }, { head: 'RECEIVED', align: 'right' }, { head: 'APPLIED', align: 'right' }, { head: 'NEWEST POINT', align: 'right' },
    { head: 'BEHIND', align: 'right' }, { head: 'RPO P50', align: 'right', isExtra: true }, { head: 'P99', align: 'right', isExtra: true }, { head: 'SPOOL', align: 'right', isExtra: true }, { head: 'IN PATH', align: 'right', isExtra: true },
  ], guests.map((guest) => [
    guest.name,
    tint(look, phases[guest.phase].tone, phases[guest.phase].text),
    guest.target,
    guest.newestPoint === null ? absent : formatPoint(guest.newestPoint),
    formatSpan(guest.rpoMs),
    formatSpan(guest.clocks.capturedMs),
    formatSpan(guest.clocks.receivedMs),
    formatSpan(guest.clocks.appliedMs),
    formatSpan(guest.clocks.newestPointMs),
    formatBytes(guest.behindBytes),
    formatSpan(guest.rpo.p50Ms),
    formatSpan(guest.rpo.p99Ms),
    guest.capture === null ? absent : formatBytes(guest.capture.spoolBytes),
    guest.capture === null ? absent : formatSpan(guest.capture.inPathMs),
  ]));
}

function formatLease(look: Look, name: string, { state, why, isStopped }: NonNullable<GuestReport['lease']>): string {
  const stopped = isStopped ? `; ${tint(look, 'bad', 'it was stopped for that')}` : '';
  switch (state) {
    case 'held': return tint(look, 'quiet', `${name}: its lease is held ${printable(why)}`);
    case 'waiting': case 'none': return tint(look, 'quiet', `${name}: its lease is not held yet: ${printable(why)}`);
    case 'lost': return `${name}: ${tint(look, 'bad', 'its lease is lost')}: ${printable(why)}${stopped}`;
    case 'superseded': return `${name}: ${tint(look, 'bad', 'live elsewhere, by the witness')}: ${printable(why)}${stopped}`;
    default: return state satisfies never;
  }
}

/** What the table has no room for: progress, why a guest is not protected, the last failure. */
function formatNotes(look: Look, report: SourceReport, guest: GuestReport, earlier: PassSample | null): string[] {
  const notes: string[] = [];
  if (guest.pass !== null) notes.push(`${guest.name}: ${phases[guest.phase].text} ${formatPass(look, guest.pass, report.atMs, earlier)}`);
  else if (guest.phase !== 'protected') notes.push(`${guest.name}: ${phases[guest.phase].text} for ${formatSpan(report.atMs - guest.phaseSinceMs)}: ${printable(guest.detail)}`);
  if (guest.members !== undefined) notes.push(tint(look, 'quiet', `${guest.name}: a group of ${guest.members.map(({ name }) => printable(name)).join(', ')}`));
  if (guest.capture !== null && guest.capture.capture === 'writelog') notes.push(`${guest.name}: its writes are logged, ${formatBytes(guest.capture.logBytes)} in the logs (${printable(guest.capture.captureWhy)})`);
  else if (guest.capture?.captureWhy.startsWith('the write log') === true) notes.push(tint(look, 'bad', `${guest.name}: dirty bitmaps instead: ${printable(guest.capture.captureWhy)}`));
  if (guest.lease !== undefined && guest.lease.state !== 'none') notes.push(formatLease(look, guest.name, guest.lease));
  if (guest.marked !== null) notes.push(`${guest.name}: ${formatMarked(look, guest.marked)}`);
  if (guest.lastFault !== null) notes.push(tint(look, 'quiet', `${guest.name}: ${formatSpan(report.atMs - guest.lastFault.atMs)} ago ${guest.lastFault.code}: ${printable(guest.lastFault.message)}`));
  return notes;
}
