/** What of a source's report is an alarm: guests that are not protected and will not be by themselves, or not for now. Pure. */
import type { Alarm } from '../journal/alarm.ts';
import type { GuestPhase, SourceReport } from './report.ts';

const phaseCodes: Partial<Record<GuestPhase, string>> = { held: 'STORE_FULL', superseded: 'TERM_OLD', refused: 'GROUP_FOREIGN' };

/** `more`: alarms that no other part of the report says. */
export function sourceAlarms({ guests }: Pick<SourceReport, 'guests'>, more: readonly Alarm[] = []): readonly Alarm[] {
  return [...more, ...guests.flatMap(({ name, phase, detail, phaseSinceMs, lastFault }): Alarm[] => {
    const code = phaseCodes[phase];
    // What the target said is the better code; without one, what such a phase most often comes of.
    return code === undefined ? [] : [{ code: lastFault?.code ?? code, group: name, message: detail, sinceMs: phaseSinceMs }];
  })];
}
