/** What of a target's groups is suspected, as alarms. Pure. */
import type { Alarm } from '../../journal/alarm.ts';
import { formatPoint } from '../../journal/point.ts';
import type { GroupStoreReport } from '../store/store.ts';
import { shapeBlockBytes } from './block-shape.ts';
import type { Suspicion } from './suspicion-plan.ts';

const mib = 1024 * 1024;

export function suspicionAlarms(groups: readonly Pick<GroupStoreReport, 'name' | 'suspicion'>[]): readonly Alarm[] {
  return groups.flatMap(({ name, suspicion }): Alarm[] => {
    const active = suspicion?.active ?? null;
    if (active === null) return [];
    const { first, before, sinceMs, again } = active;
    return [{
      code: 'GUEST_SUSPECT', group: name, sinceMs,
      message: `something may be encrypting ${name}: ${whatOf(active)} since point ${formatPoint(first)}${again === null ? '' : `, and ${whatOf(again)} since point ${formatPoint(again.first)}`}; ${before === null ? 'there is no point from before' : `the point before it began is ${formatPoint(before)} (--at before-suspicion)`}`,
    }];
  });
}

function whatOf({ kind, bytes }: { readonly kind: Suspicion['kind']; readonly bytes: number }): string {
  switch (kind) {
    case 'turned': return `${Math.round(bytes / mib)} MiB of what it holds became like encrypted data`;
    case 'scattered': return `${Math.round(bytes / shapeBlockBytes)} separate pieces of what it holds became like encrypted data`;
    case 'replaced': return `${Math.round(bytes / mib)} MiB was written anew like encrypted data, and what was there before given back,`;
  }
}
