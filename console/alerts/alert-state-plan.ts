/**
 * What is to be told, given what is wrong now and what was told before: pure. Invariants: one alert is told once when it is raised,
 * once more when it becomes an error, at the pace of repeats while it lasts, and once when it is over; what was never told is never
 * told to be over; a restart changes none of it, for the state is kept.
 */
import { z } from 'zod';
import type { Condition, NoticeEvent, QuietHours, Severity } from './alert-options.ts';

const ms = z.number();
const severity = z.enum(['warning', 'error']);

export const keptAlert = z.object({
  key: z.string(), code: z.string(), group: z.string().nullable(), severity, message: z.string(),
  /** Wall clock: since when it has been wrong without a break, and since when it has not been any more. */
  sinceMs: ms, goneSinceMs: ms.nullable(),
  /** It has lasted long enough. */
  isRaised: z.boolean(),
  /** When it was told last, and as what; null: never. */
  told: z.object({ atMs: ms, severity }).nullable(),
});
export type KeptAlert = z.infer<typeof keptAlert>;

/** What is to be told of one alert. */
export interface Telling { readonly event: Exclude<NoticeEvent, 'test'>; readonly alert: KeptAlert }

export interface AlertClock {
  readonly nowMs: number;
  readonly settleMs: number;
  readonly repeatEveryMs: number | null;
  readonly isQuiet: (severity: Severity) => boolean;
}

export function planAlerts(kept: readonly KeptAlert[], conditions: readonly Condition[], clock: AlertClock): { readonly kept: KeptAlert[]; readonly tell: Telling[] } {
  const before = new Map(kept.map((alert) => [alert.key, alert]));
  const next: KeptAlert[] = [];
  const tell: Telling[] = [];
  for (const condition of conditions) {
    const alert = ongoing(before.get(condition.key), condition, clock.nowMs);
    before.delete(condition.key);
    const event = due(alert, clock);
    const told = event === null ? alert.told : { atMs: clock.nowMs, severity: alert.severity };
    next.push({ ...alert, told });
    if (event !== null) tell.push({ event, alert });
  }
  for (const alert of before.values()) {
    // Never raised, and gone: it was nothing.
    if (!alert.isRaised) continue;
    const gone = { ...alert, goneSinceMs: alert.goneSinceMs ?? clock.nowMs };
    const isOver = clock.nowMs - gone.goneSinceMs >= clock.settleMs;
    if (isOver && gone.told === null) continue;
    if (!isOver || clock.isQuiet(gone.severity)) next.push(gone);
    else tell.push({ event: 'recovered', alert: gone });
  }
  return { kept: next, tell };
}

function ongoing(known: KeptAlert | undefined, { key, code, group, severity, message, forMs }: Condition, nowMs: number): KeptAlert {
  // A clock that was set back must not keep an alert waiting for ever.
  const sinceMs = Math.min(known?.sinceMs ?? nowMs, nowMs);
  return { key, code, group, severity, message, sinceMs, goneSinceMs: null, isRaised: known?.isRaised === true || nowMs - sinceMs >= forMs, told: known?.told ?? null };
}

function due({ isRaised, told, severity }: KeptAlert, { nowMs, repeatEveryMs, isQuiet }: AlertClock): 'raised' | 'repeated' | null {
  if (!isRaised || isQuiet(severity)) return null;
  if (told === null || (told.severity === 'warning' && severity === 'error')) return 'raised';
  return repeatEveryMs !== null && nowMs - told.atMs >= repeatEveryMs ? 'repeated' : null;
}

const minutesOfDay = 1440;

/** By the clock on the wall of this host: `at` in its local time. */
export function isQuietAt(quiet: QuietHours | null, at: Date, severity: Severity): boolean {
  if (quiet === null || (severity === 'error' && quiet.errors === 'pass')) return false;
  const minute = at.getHours() * 60 + at.getMinutes();
  const [day, dayBefore] = [at.getDay(), (at.getDay() + 6) % 7];
  const { fromMinute, toMinute, days } = quiet;
  const isOn = (which: number): boolean => days.includes(which);
  // From and to the same: the whole day.
  const length = (toMinute - fromMinute + minutesOfDay) % minutesOfDay || minutesOfDay;
  return (isOn(day) && minute >= fromMinute && minute < fromMinute + length) || (isOn(dayBefore) && minute + minutesOfDay < fromMinute + length);
}
