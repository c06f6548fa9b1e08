/** Whether what is shown is of now; and if not, how old it is. */
import { agedMs, isConnected, report, trouble } from '../live.ts';
import { formatSpan } from '../../render/units.ts';

export function Connection() {
  if (isConnected.value) return <span class="connection good-text">live</span>;
  return <span class="connection bad-text" role="status">{report.value === null ? trouble.value || 'connecting' : `data from ${formatSpan(agedMs.value)} ago: ${trouble.value}`}</span>;
}
