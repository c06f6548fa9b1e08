/**
 * Which rate limits are in force at an instant, and until when: decided from the config's list and the source's local time alone.
 * Pure. A limit adapts to nothing: it is what a person wrote, for the hours that they wrote.
 */
export const weekdays = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const;
export type Weekday = (typeof weekdays)[number];

export interface RateLimit {
  /** Of one target, of one group, or of one group to one target; of everything that this source sends when neither is named. */
  readonly target?: string | undefined;
  readonly group?: string | undefined;
  /** Minutes after midnight, local time. To at or before from: over midnight. Absent: all day. */
  readonly hours?: { readonly fromMinute: number; readonly toMinute: number } | undefined;
  /** On which its hours begin; absent: every day. */
  readonly days?: readonly Weekday[] | undefined;
  readonly rateBytesPerSecond: number;
}

export interface LimitState {
  readonly isInForce: boolean;
  /** When that changes, wall clock, ms; null: never. */
  readonly untilMs: number | null;
}

/** Days that are looked ahead: a limit of one weekday comes again within them. */
const lookDays = 8;

export function appliesTo(limit: RateLimit, target: string, group: string | null): boolean {
  return (limit.target === undefined || limit.target === target) && (limit.group === undefined || limit.group === group);
}

export function limitState({ hours, days }: RateLimit, nowMs: number): LimitState {
  if (hours === undefined && days === undefined) return { isInForce: true, untilMs: null };
  const { fromMinute, toMinute } = hours ?? { fromMinute: 0, toMinute: 0 };
  const now = new Date(nowMs);
  let endMs: number | null = null;
  for (let day = -1; day <= lookDays; day++) {
    // By the calendar, not by 24 hours: days on which the clocks change are longer or shorter.
    const at = (minute: number, later = 0): number => new Date(now.getFullYear(), now.getMonth(), now.getDate() + day + later, 0, minute).getTime();
    if (days !== undefined && !days.includes(weekdays[new Date(at(12 * 60)).getDay()]!)) continue;
    const [startMs, stopMs] = [at(fromMinute), at(toMinute, toMinute <= fromMinute ? 1 : 0)];
    if (stopMs <= nowMs) continue;
    // What begins as the one before ends is the same to whoever waits.
    if (endMs !== null) {
      if (startMs > endMs) return { isInForce: true, untilMs: endMs };
      endMs = stopMs;
    } else if (startMs <= nowMs) endMs = stopMs;
    else return { isInForce: false, untilMs: startMs };
  }
  return endMs === null ? { isInForce: false, untilMs: null } : { isInForce: true, untilMs: days === undefined && fromMinute === toMinute ? null : endMs };
}
