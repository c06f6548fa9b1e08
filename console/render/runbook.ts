/** A failover as it would go, for people. */
import type { Runbook } from '../../replica-target/failover/runbook-plan.ts';
import { formatPoint } from '../../journal/point.ts';
import { tint, type Look } from './look.ts';
import { formatKind } from './timeline.ts';
import { formatInstant, formatSpan, printable } from './units.ts';

export function formatRunbook(look: Look, { group, point, isPlanned, lostMs, steps, obstacles, measured, atMs }: Runbook): string {
  return [
    tint(look, 'strong', `${isPlanned ? 'A planned failover' : 'A failover'} of ${printable(group)}, as it would go now`),
    ...(point === null ? [] : [
      isPlanned ? 'It boots the final point; nothing is lost.' : `It boots point ${formatPoint(point)} (${formatKind(point)}), cut ${formatInstant(point.cutAtMs)}: ${tint(look, 'bad', `${formatSpan(lostMs)} would be lost`)}.`,
    ]),
    ...steps.map(({ step, tookMs }, at) => `${String(at + 1).padStart(3)}. ${printable(step)}${tookMs === null ? '' : ` (${formatSpan(tookMs)})`}`),
    ...obstacles.map((obstacle) => `${tint(look, 'bad', 'In its way')}: ${printable(obstacle)}`),
    measured === null ? `No times are known: \`afterimage rehearse ${printable(group)}\` measures them.` : tint(look, 'quiet', `Times are those of the rehearsal ${formatSpan(atMs - measured.atMs)} ago, from point ${measured.point}, which ${measured.isPassed ? 'passed' : 'failed'}.`),
  ].join('\n') + '\n';
}
