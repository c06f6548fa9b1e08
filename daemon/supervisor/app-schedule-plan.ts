/** When the next application-consistent point is due by schedule. Pure; by the wall clock, as it must hold over restarts. */

/** `everyMs` null: never. A guest that has none yet is due at once, and so is one whose last is in the future: the clock was set back. */
export function isAppDue(everyMs: number | null, lastAppAtMs: number | null, nowMs: number): boolean {
  if (everyMs === null) return false;
  return lastAppAtMs === null || nowMs - lastAppAtMs >= everyMs || lastAppAtMs > nowMs;
}
