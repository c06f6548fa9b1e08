/** What a failover would do, before it is asked for: its steps, what would be lost, how long it should take, and what stands in its way. */
import { formatPoint } from '../../../journal/point.ts';
import type { Runbook } from '../../../replica-target/failover/runbook-plan.ts';
import { formatInstant, formatSpan } from '../../render/units.ts';
import { pathOf } from '../api.ts';
import { useFetched } from '../fetched.ts';

export function RunbookView({ group, at, isPlanned }: { readonly group: string; readonly at: string; readonly isPlanned: boolean }) {
  const { value: plan, trouble } = useFetched<Runbook>(`${pathOf('groups', group, 'plan')}?${isPlanned ? 'planned=true' : `at=${encodeURIComponent(at)}`}`);
  if (trouble !== null) return <p role="alert" class="bad-text">{trouble}</p>;
  if (plan === null) return <p aria-busy="true">Looking at what it would do</p>;
  const tookMs = plan.steps.reduce<number | null>((sum, { tookMs: took }) => (took === null ? sum : (sum ?? 0) + took), null);
  return (
    <section aria-label="Plan">
      <dl class="facts">
        <div><dt>Boots</dt><dd>{plan.point === null ? 'nothing' : isPlanned ? 'a final point, cut when the guest is off' : `point ${formatPoint(plan.point)}, cut ${formatInstant(plan.point.cutAtMs)}`}</dd></div>
        <div><dt>Lost</dt><dd>{plan.lostMs === null ? 'there is nothing to boot' : plan.lostMs === 0 ? 'nothing' : `at most the last ${formatSpan(plan.lostMs)}`}</dd></div>
        <div><dt>Should take</dt><dd>{plan.measured === null || tookMs === null ? 'not measured: it was never rehearsed' : `${formatSpan(tookMs)}, as in the rehearsal of ${formatInstant(plan.measured.atMs)}`}</dd></div>
      </dl>
      {plan.obstacles.length > 0 && <ul class="obstacles" aria-label="What stands in its way">{plan.obstacles.map((one) => <li key={one}>{one}</li>)}</ul>}
      <details>
        <summary>{plan.steps.length} steps</summary>
        <ol>{plan.steps.map(({ step, tookMs: took }) => <li key={step}>{step}{took === null ? '' : <span class="quiet"> {formatSpan(took)}</span>}</li>)}</ol>
      </details>
    </section>
  );
}
