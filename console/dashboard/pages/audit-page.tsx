/** The audit trail: who asked for what, newest first, and whether the chain holds. */
import type { Actor, AuditEntry } from '../../../host/audit-format.ts';
import { absent, formatInstant } from '../../render/units.ts';
import { useFetched } from '../fetched.ts';

const entriesShown = 200;

/** Of GET /v1/audit. */
interface AuditPageShape { readonly entries: readonly AuditEntry[]; readonly entryCount: number; readonly flaw: string | null }

export function AuditPage() {
  const { value, trouble, isLoading, again } = useFetched<AuditPageShape>(`/v1/audit?limit=${entriesShown}`);
  return (
    <>
      <header class="page-head"><h1 tabIndex={-1}>Audit trail</h1><button type="button" class="secondary" onClick={again} aria-busy={isLoading}>Again</button></header>
      {trouble !== null && <p role="alert" class="bad-text">{trouble}</p>}
      {value !== null && <p class={value.flaw === null ? 'good-text' : 'bad-text'}>{value.flaw === null ? `The chain of ${value.entryCount} entries is whole.` : value.flaw}</p>}
      <div class="table-wrap"><table>
        <thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th><th scope="col">Of what</th><th scope="col">Outcome</th></tr></thead>
        <tbody>{(value?.entries ?? []).map((entry) => <tr key={entry.n}><td>{formatInstant(entry.atMs)}</td><td>{nameOf(entry.who)}</td><td>{entry.act}</td><td>{entry.on ?? absent}</td><td>{entry.outcome}</td></tr>)}</tbody>
      </table></div>
    </>
  );
}

function nameOf(who: Actor): string {
  switch (who.kind) {
    case 'local': return `user ${who.uid} of this host`;
    case 'token': return `token ${who.name}`;
    case 'source': return `source ${who.sourceId.slice(0, 8)}`;
    case 'itself': return 'the daemon itself';
    default: return who satisfies never;
  }
}
