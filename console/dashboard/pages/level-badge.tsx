/** How something stands, by colour and by word: never by colour alone. */
import type { Health } from '../health-plan.ts';

export function LevelBadge({ health }: { readonly health: Health }) {
  return <span class={`badge ${health.level}`} title={health.reasons.join('\n')}><i aria-hidden="true" />{health.word}</span>;
}
