/** When a group is looked at again for whether it could start here, and what of a look is news. Pure. */
import type { StartFinding, StartVerdict } from './start-finding.ts';

/** What is refused is looked at more often, so that the alarm ends soon after it was mended, ms. */
const refusedEveryMs = 5 * 60_000;

export interface GroupLook {
  readonly nowMs: number;
  readonly everyMs: number;
  readonly isProtected: boolean;
  readonly hasPoint: boolean;
  readonly hasHardware: boolean;
  /** Null: not looked at yet. */
  readonly last: { readonly atMs: number; readonly verdict: StartVerdict; readonly isSameHardware: boolean } | null;
}

export function isGroupDue({ nowMs, everyMs, isProtected, hasPoint, hasHardware, last }: GroupLook): boolean {
  // Nothing could be booted of it, or it runs here already.
  if (!isProtected || !hasPoint || !hasHardware) return false;
  if (last === null || !last.isSameHardware) return true;
  const ageMs = nowMs - last.atMs;
  // A clock that was set back must not put it off.
  return ageMs < 0 || ageMs >= (last.verdict === 'refused' ? Math.min(everyMs, refusedEveryMs) : everyMs);
}

const ranks: Readonly<Record<StartVerdict, number>> = { fine: 0, warning: 1, refused: 2 };

/** Those of `now` whose check was better before, or not made. */
export function worseFindings(before: readonly StartFinding[], now: readonly StartFinding[]): StartFinding[] {
  return now.filter(({ check, verdict }) => ranks[verdict] > Math.max(0, ...before.filter((one) => one.check === check).map((one) => ranks[one.verdict])));
}
