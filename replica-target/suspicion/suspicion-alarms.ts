/** What of a target's groups is suspected, as alarms. Pure. */
import type { Alarm } from '../../journal/alarm.ts';
import { formatPoint } from '../../journal/point.ts';
import type { GroupStoreReport } from '../store/store.ts';

const mib = 1024 * 1024;

export function suspicionAlarms(groups: readonly Pick<GroupStoreReport, 'name' | 'suspicion'>[]): readonly Alarm[] {
  return groups.flatMap(({ name, suspicion }): Alarm[] => {
    const active = suspicion?.active ?? null;
    if (active === null) return [];
    const { first, before, bytes, kind, sinceMs } = active;
    const what = kind === 'turned' ? 'of what it holds became like encrypted data' : 'was written anew like encrypted data, and what was there before given back,';
    return [{
      code: 'GUEST_SUSPECT', group: name, sinceMs,
      message: `something may be encrypting ${name}: ${Math.round(bytes / mib)} MiB ${what} since point ${formatPoint(first)}; ${before === null ? 'there is no point from before' : `the point before it began is ${formatPoint(before)} (--at before-suspicion)`}`,
    }];
  });
}
