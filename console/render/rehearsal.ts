/** A rehearsal's report in a few lines, and in one for `status`. */
import type { RehearsalReport } from '../../replica-target/failover/rehearsal-report.ts';
import { formatPoint } from '../../journal/point.ts';
import { tint, type Look } from './look.ts';
import { formatInstant, formatSpan, printable } from './units.ts';

type Kept = RehearsalReport & { readonly folder: string };

export function formatRehearsal(look: Look, report: Kept): string {
  const { group, point, isPassed, why, rtoMs, readyMs, guests, folder } = report;
  return [
    `${tint(look, isPassed ? 'good' : 'bad', `A rehearsal of ${printable(group)} ${isPassed ? 'passed' : 'failed'}`)}, from point ${formatPoint(point)} (${point.kind}), cut ${formatInstant(point.cutAtMs)}${isPassed ? '' : `: ${printable(why)}`}.`,
    ...(rtoMs === null ? [] : [`Its processors ran after ${formatSpan(rtoMs)}${readyMs === null ? '' : `, all of it was ready after ${formatSpan(readyMs)}`}.`]),
    ...guests.flatMap(({ name, state, checks }) => [
      `${printable(name)}: ${state === 'ready' ? 'ready' : state === 'waiting' ? 'not started' : 'not ready'}`,
      ...checks.map(({ what, isReady, tookMs, why: reason }) => `  ${isReady ? tint(look, 'good', 'met') : tint(look, 'bad', 'not met')} after ${formatSpan(tookMs)}: ${printable(what)}${isReady ? '' : `: ${printable(reason)}`}`),
    ]),
    `The report: ${printable(folder)}/report.html`,
  ].join('\n') + '\n';
}

export function formatLastRehearsal(look: Look, { group, point, startedAtMs, isPassed, why }: Kept, atMs: number): string {
  const when = `${formatSpan(atMs - startedAtMs)} ago, from point ${formatPoint(point)}`;
  return isPassed ? tint(look, 'quiet', `${printable(group)}: rehearsed ${when}, and was ready`) : tint(look, 'bad', `${printable(group)}: a rehearsal ${when}, failed: ${printable(why)}`);
}
