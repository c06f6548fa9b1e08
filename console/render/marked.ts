/** A marked or application-consistent point as one line. Pure. */
import type { MarkedPoint } from '../../daemon/report.ts';
import { formatPoint } from '../../journal/point.ts';
import { tint, type Look } from './look.ts';
import { formatInstant, formatSpan, printable } from './units.ts';

export function formatMarked(look: Look, marked: MarkedPoint): string {
  const { kind, label, frozenMs, reason } = marked;
  return [
    `point ${formatPoint(marked)} is ${tint(look, reason === null ? 'good' : 'bad', kind)}, cut ${formatInstant(marked.cutAtMs)}`,
    ...(label === undefined ? [] : [`labelled "${printable(label)}"`]),
    ...(frozenMs === undefined ? [] : [`the guest was frozen for ${formatSpan(frozenMs)}`]),
    ...(reason === null ? [] : [`not app: ${reason.code}: ${printable(reason.message)}`]),
  ].join(', ');
}
