/** What somebody has to look at, worst first; nothing where there is nothing. */
import { formatSpan } from '../../render/units.ts';
import { daemonMs, report } from '../live.ts';
import { groupHref } from '../route.ts';

export function AlarmList() {
  const alarms = report.value?.alarms ?? [];
  if (alarms.length === 0) return null;
  return (
    <section class="alarms" aria-label="Alarms">
      <h2>{alarms.length === 1 ? '1 alarm' : `${alarms.length} alarms`}</h2>
      <ul>{alarms.map(({ code, group, message, sinceMs }) => (
        <li key={`${code} ${group ?? ''}`}><code>{code}</code> {message} <span class="quiet">for {formatSpan(Math.max(0, daemonMs.value - sinceMs))}</span>{group !== null && report.value?.role === 'target' && <> <a href={groupHref(group)}>{group}</a></>}</li>
      ))}</ul>
    </section>
  );
}
