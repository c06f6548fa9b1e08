/** How long to wait before connecting again. Pure. */

export const backoffMsMin = 250;
export const backoffMsMax = 15_000;
/** A session that stood this long was sound: the next failure starts over at the shortest pause. */
export const stableSessionMs = 10_000;

export interface Backoff { readonly failures: number }

export const noFailures: Backoff = { failures: 0 };

/** `sessionMs`: how long the connection stood, 0 when it never did. `fraction`: in [0, 1), so that many sources do not come back at once. */
export function planBackoff(before: Backoff, sessionMs: number, fraction: number): { readonly next: Backoff; readonly delayMs: number } {
  const failures = sessionMs >= stableSessionMs ? 0 : before.failures;
  const ceilingMs = Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(failures, 16));
  return { next: { failures: failures + 1 }, delayMs: ceilingMs / 2 + (ceilingMs / 2) * fraction };
}
