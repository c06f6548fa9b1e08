/** What the target's report says of one failover: from its note, and from what is under way for it. */
import type { FailedOverGuest } from '../report.ts';
import type { FailoverHost } from './failover-host.ts';
import { isAwaited, type FailoverNote } from './failover-note.ts';
import { firstOf } from './group-guests.ts';
import type { StartedState } from './group-start.ts';
import { allHome, type HomeReport } from './homecoming.ts';

/** `coming`: of what comes home just now. */
export function reportFailover(note: FailoverNote, host: Pick<FailoverHost, 'isRunning'>, starts: readonly StartedState[], coming: HomeReport | null): FailedOverGuest {
  const { group, term, point, startedAtMs, view, isCommitting, decision } = note;
  const home = view === null ? (isCommitting ? coming : null) : view.isHome ? coming ?? allHome(view.disks) : coming ?? { ...allHome(view.disks), state: 'waiting' as const, doneBytes: 0 };
  const guests = note.guests.map((guest) => ({
    name: guest.name, qmpPath: guest.qmpPath, logPath: guest.logPath, pid: guest.pid, isRunning: host.isRunning(guest), start: starts.find(({ name }) => name === guest.name),
  }));
  return { group, term, point, guests, ...firstOf(note.guests), isRunning: guests.length > 0 && guests.every(({ isRunning }) => isRunning), startedAtMs, home, isAwaited: isAwaited(note), isCommitting, decision };
}
