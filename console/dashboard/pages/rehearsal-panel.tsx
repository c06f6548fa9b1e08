/** The last rehearsal of a group: what an auditor asks for. */
import { useState } from 'preact/hooks';
import { formatPoint } from '../../../journal/point.ts';
import type { ShownGuest } from '../../../replica-target/failover/guest-look.ts';
import type { TargetReport } from '../../../replica-target/report.ts';
import type { GroupStoreReport } from '../../../replica-target/store/store.ts';
import { formatInstant, formatSpan } from '../../render/units.ts';
import { pathOf } from '../api.ts';
import { useFetched } from '../fetched.ts';
import { lookTakes, Shown } from './guest-console.tsx';

export function RehearsalPanel({ report, group }: { readonly report: TargetReport; readonly group: GroupStoreReport }) {
  const [isOpen, setOpen] = useState(false);
  const rehearsal = report.rehearsals?.find((one) => one.group === group.name);
  const { value, trouble, isRefused } = useFetched<{ readonly items: readonly ShownGuest[] }>(isOpen && rehearsal !== undefined ? pathOf('groups', group.groupId, 'rehearsal') : null, rehearsal?.startedAtMs);
  if (rehearsal === undefined) return null;
  return (
    <section aria-labelledby="rehearsal-title">
      <h2 id="rehearsal-title">Last rehearsal</h2>
      <p class={rehearsal.isPassed ? 'good-text' : 'bad-text'}>{rehearsal.isPassed ? `Passed, ready after ${formatSpan(rehearsal.readyMs)}` : `Failed: ${rehearsal.why}`}</p>
      <p class="quiet">Point {formatPoint(rehearsal.point)}, {formatInstant(rehearsal.startedAtMs)}, {rehearsal.by === 'schedule' ? 'by schedule' : 'asked for by a person'}; the report is at the target in {rehearsal.folder}</p>
      <div class="table-wrap"><table>
        <thead><tr><th scope="col">Guest</th><th scope="col">Ready</th><th scope="col">After</th><th scope="col">Checks</th></tr></thead>
        <tbody>{rehearsal.guests.map(({ name, state, readyMs, checks }) => <tr key={name}><th scope="row">{name}</th><td>{state}</td><td>{formatSpan(readyMs)}</td><td>{checks.map(({ what, isReady, why }) => `${what}: ${isReady ? 'yes' : why}`).join('; ') || 'none are configured'}</td></tr>)}</tbody>
      </table></div>
      <details onToggle={({ currentTarget }) => setOpen(currentTarget.open)}>
        <summary>Screen and serial port</summary>
        {trouble !== null && <p class="quiet">{isRefused ? lookTakes : trouble}</p>}
        <div class="grid">{(value?.items ?? []).map((guest) => <Shown key={guest.name} guest={guest} />)}</div>
      </details>
    </section>
  );
}
