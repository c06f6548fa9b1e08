/** What of a target's report is an alarm. Pure: each says what the report says elsewhere, in one list, so that nobody who tells people of it has to know where to look. */
import type { Alarm } from '../journal/alarm.ts';
import { suspicionAlarms } from './suspicion/suspicion-alarms.ts';
import type { TargetReport } from './report.ts';

/** `more`: alarms that no other part of the report says. */
export function targetAlarms({ groups, checks = [], automatic = [] }: Pick<TargetReport, 'groups' | 'checks' | 'automatic'>, more: readonly Alarm[] = []): readonly Alarm[] {
  return [
    ...more,
    ...suspicionAlarms(groups),
    ...groups.flatMap(({ name, held }): Alarm[] => (held === null ? [] : [{ group: name, ...held }])),
    ...checks.flatMap(({ group, findingCount, findings, lastAtMs }): Alarm[] => (
      findingCount === 0 ? [] : [{ code: 'STORE_CORRUPT', group, message: `what is stored of ${group} is damaged in ${findingCount} places, the first in ${findings[0]?.path ?? 'its folder'}`, sinceMs: lastAtMs ?? 0 }])),
    ...automatic.flatMap(({ group, lastFault }): Alarm[] => (lastFault === null ? [] : [{ code: lastFault.code, group, message: lastFault.message, sinceMs: lastFault.atMs }])),
  ];
}
