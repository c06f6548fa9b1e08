/** The codes of alerts that are no faults, and what a person can do about each. Faults that last are alerts under their own codes, with the advice of the fault table. */
import { faultTable, type FaultCode } from '../../journal/fault.ts';

export const alertTable = {
  RPO_LATE: { meaning: 'The newest point of a group is much older than its objective.', operatorCan: 'See `afterimage status` at the source: it says what the group waits for. If a load is larger than the line, the age shrinks when the load does.' },
  SOURCE_ABSENT: { meaning: 'The source of a protected group is not connected to its target.', operatorCan: 'See whether the source’s host and daemon run, and whether it reaches the target. If the host is lost: `afterimage plan GROUP`, then `afterimage failover GROUP`.' },
  TARGET_ABSENT: { meaning: 'The target is not connected: nothing is being protected.', operatorCan: 'See whether the target’s host and daemon run, and whether it is reached. Guests run on; what they write is sent when it is back.' },
  NOT_PROTECTED: { meaning: 'A guest that is to be protected is not: its source cannot follow it, or is refused.', operatorCan: 'See `afterimage status` at the source; `afterimage explain CODE` says what can be done.' },
  HISTORY_SHORT: { meaning: 'Fewer points are kept than the retention promises.', operatorCan: 'See `afterimage points GROUP`; raise the budget or add space.' },
  SPACE_TIGHT: { meaning: 'Journal and history of a group have used most of their limit.', operatorCan: 'Raise the budget, add space, or shorten what is kept, before ingest has to stop.' },
  VOLUME_FILLS: { meaning: 'The target’s volume fills, or is full.', operatorCan: 'Add space, or lower budgets: at `keepFree` nothing more is taken.' },
  DATA_DAMAGED: { meaning: 'A check found stored bytes that are not what was written.', operatorCan: 'Run `afterimage verify GROUP` and see which points it concerns. Look at the disk’s health; a resync renews the replica.' },
  REHEARSAL_FAILED: { meaning: 'The last rehearsal of a group did not pass: a failover might not either.', operatorCan: 'Read its report (`afterimage status` names the folder), mend what it names, `afterimage rehearse GROUP`.' },
  BOOT_UNPROVEN: { meaning: 'No rehearsal of the group has passed for longer than the config allows.', operatorCan: 'Run `afterimage rehearse GROUP`, or let it be rehearsed by itself (`groups.GROUP.rehearse`).' },
  START_REFUSED: { meaning: 'The group’s guests could not start at the target as things stand.', operatorCan: 'The message names what is missing; `afterimage doctor` at the target looks at it again.' },
  FAILED_OVER: { meaning: 'The group has failed over, and that is not decided yet.', operatorCan: 'Look at the guest; then `afterimage commit GROUP` or `afterimage failover-stop GROUP --roll-back`.' },
  AUTOMATIC_FAILED: { meaning: 'A failover that was to happen by itself did not succeed; it is tried again.', operatorCan: 'See the message. The guest runs nowhere: `afterimage failover GROUP` does it by hand.' },
  CERTIFICATE_EXPIRES: { meaning: 'A certificate ends soon.', operatorCan: 'Renew it before that day.' },
  TEST: { meaning: 'A test: nothing has happened.', operatorCan: 'Nothing.' },
} as const;

export type AlertCode = keyof typeof alertTable;

/** Of any code that an alert may have; empty for one of another release. */
export function adviceFor(code: string): string {
  if (Object.hasOwn(alertTable, code)) return alertTable[code as AlertCode].operatorCan;
  return Object.hasOwn(faultTable, code) ? faultTable[code as FaultCode].operatorCan : '';
}
