/**
 * Whether a group has less of its window than is promised (retention-plan.ts): one decision for alerts and dashboard. What is had ends at a point, before the gap that would exceed the
 * window, so that a healthy group always has a little less than is promised: what is short by no more than one gap between points is not short. Pure.
 */
import { gapMsMax } from './retention-plan.ts';

/** Points may come this many times later than they should, and nothing is wrong with history. */
const lateTimes = 3;

/** Times in ms. Whether the group is old enough to have more, the caller knows. */
export function isWindowShort({ windowMs, windowHadMs }: { readonly windowMs: number; readonly windowHadMs: number }, rpoMs: number): boolean {
  // No gap counts more than gapMsMax; of a window that is not much longer, a share, or nothing of it would ever be missed.
  const gapMs = Math.min(gapMsMax, Math.max(lateTimes * rpoMs, windowMs / 4));
  return windowHadMs + gapMs < windowMs;
}
