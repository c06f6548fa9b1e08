/** The audit trail as text. Pure. */
import type { Actor, AuditEntry, TrailReading } from '../../host/audit-format.ts';
import { formatTable, tint, type Look } from './look.ts';
import { formatInstant, printable } from './units.ts';

export function formatTrail(look: Look, entries: readonly AuditEntry[]): string {
  if (entries.length === 0) return 'nothing has been noted yet\n';
  return `${formatTable(look, [{ head: 'N', align: 'right' }, { head: 'WHEN' }, { head: 'WHO' }, { head: 'ACT' }, { head: 'ON' }, { head: 'OUTCOME' }, { head: 'WHAT' }], entries.map(({ n, atMs, who, act, on, what, outcome }) => [
    String(n), formatInstant(atMs), formatActor(who), printable(act), printable(on ?? ''), outcome === 'done' || outcome === 'begun' ? outcome : tint(look, 'bad', printable(outcome)),
    Object.entries(what).map(([key, value]) => `${printable(key)}=${printable(typeof value === 'string' ? value : JSON.stringify(value))}`).join(' '),
  ]))}\n`;
}

export function formatActor(who: Actor): string {
  switch (who.kind) {
    case 'local': return who.uid === 0 ? 'root' : `user ${who.uid}`;
    case 'token': return `token ${printable(who.name)}`;
    case 'source': return `source ${printable(who.sourceId.slice(0, 12))}`;
    case 'itself': return 'the daemon';
    default: return who satisfies never;
  }
}

export function formatVerified(look: Look, folder: string, { broken, entryCount, last, tornBytes }: TrailReading): string {
  const lines = broken === null
    ? [`${tint(look, 'good', 'whole')}: ${entryCount} entries in ${printable(folder)}`, `head ${last.n}:${last.hash}`, tint(look, 'quiet', 'keep the head elsewhere: afterimage audit verify --head N:HASH tells whether a later trail goes on from it')]
    : [`${tint(look, 'bad', 'broken')}: ${printable(broken.why)} (${printable(folder)}, line ${broken.line})`];
  if (tornBytes > 0) lines.push(tint(look, 'quiet', `${tornBytes} bytes at the end are of an entry that is being written, or that a crash left; the daemon cuts them off at its next start`));
  return `${lines.join('\n')}\n`;
}
