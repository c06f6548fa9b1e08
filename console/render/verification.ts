/** What a check of a group's stored bytes found, as text. Pure. */
import type { Verification } from '../../replica-target/points/verify.ts';
import { tint, type Look } from './look.ts';
import { formatBytes, formatSpan, printable } from './units.ts';

/** Findings that a person is shown; `--json` has more. */
const shownMax = 20;

export function formatVerification(look: Look, group: string, verified: Verification): string {
  const { startedAtMs, endedAtMs, journalBytes, historyBytes, replicaBytes, replicaComparedBytes, read, findings, findingsLeftOff, points } = verified;
  const lines = [
    `journal ${formatBytes(journalBytes)}, history ${formatBytes(historyBytes)}, replica ${formatBytes(replicaBytes)} read in ${formatSpan(endedAtMs - startedAtMs)}${read === null ? '' : `; point ${read.point} read whole, ${formatBytes(read.bytes)}`}`,
    `of the replica ${formatBytes(replicaComparedBytes)} could be compared with the pass before; what was written since is compared by the next`,
  ];
  if (findings.length === 0) return `${printable(group)}: ${tint(look, 'good', 'sound')}, ${points.count} points\n${lines.join('\n')}\n`;
  const count = findings.length + findingsLeftOff;
  for (const { path, offset, detail, touched } of findings.slice(0, shownMax)) {
    const needed = touched.count === 0 ? 'no point needs it' : touched.count === 1 ? `point ${touched.oldest ?? ''} needs it` : `${touched.count} points need it, ${touched.oldest ?? ''} to ${touched.newest ?? ''}`;
    lines.push(`${printable(path)}, offset ${offset}: ${printable(detail)}; ${needed}`);
  }
  if (count > shownMax) lines.push(`and ${count - shownMax} more`);
  lines.push(points.goodCount === 0 ? 'no point is free of it' : `${points.goodCount} of ${points.count} points remain good, the newest of them ${points.newestGood ?? ''}`);
  return `${printable(group)}: ${tint(look, 'bad', 'damaged')}, ${count} ${count === 1 ? 'place' : 'places'}\n${lines.join('\n')}\n`;
}
