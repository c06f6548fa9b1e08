/** What is kept of a rehearsal, and whether it passed: pure. */
import { z } from 'zod';
import { pointKinds } from '../../journal/point.ts';
import type { StartedState } from './group-start.ts';

const count = z.number().int();

/** Members are added, never changed: reports outlive releases. */
export const rehearsalReport = z.object({
  group: z.string(),
  groupId: z.string(),
  /** What was booted. */
  point: z.object({ term: count, point: count, kind: z.enum(pointKinds), cutAtMs: z.number() }),
  /** Wall clock of the target. */
  startedAtMs: z.number(),
  endedAtMs: z.number(),
  by: z.enum(['person', 'schedule']),
  version: z.string(),
  isPassed: z.boolean(),
  /** For people; empty when it passed. */
  why: z.string(),
  /** From the request until the first processors ran; until all guests were ready. Null: that was not reached. */
  rtoMs: z.number().nullable(),
  readyMs: z.number().nullable(),
  accel: z.enum(['kvm', 'tcg']).nullable(),
  network: z.string().nullable(),
  guests: z.array(z.object({
    name: z.string(),
    state: z.enum(['waiting', 'running', 'ready', 'late']),
    readyMs: z.number().nullable(),
    checks: z.array(z.object({ check: z.enum(['agent', 'serial', 'command']), what: z.string(), isReady: z.boolean(), tookMs: z.number(), why: z.string() })),
    /** Files beside the report. Null: there is none, for `screenWhy`. */
    screen: z.string().nullable(),
    screenWhy: z.string(),
    serial: z.string(),
  })),
});
export type RehearsalReport = z.infer<typeof rehearsalReport>;

/** `ended`: why the test ended before it was looked at; null: it had not. */
export function judgeRehearsal(guests: readonly StartedState[], ended: string | null): { readonly isPassed: boolean; readonly why: string; readonly readyMs: number | null } {
  if (ended !== null) return { isPassed: false, why: `the test ended before its end: ${ended}`, readyMs: null };
  const late = guests.filter(({ state }) => state !== 'ready');
  if (late.length === 0 && guests.length > 0) return { isPassed: true, why: '', readyMs: Math.max(...guests.map(({ readyMs }) => readyMs ?? 0)) };
  const whys = late.map(({ name, state, checks }) => {
    const failed = checks.filter(({ isReady }) => !isReady).map(({ what, why }) => `${what}: ${why}`);
    return `${name} ${state === 'waiting' ? 'was not started' : 'was not ready in time'}${failed.length === 0 ? '' : ` (${failed.join('; ')})`}`;
  });
  return { isPassed: false, why: whys.join('; '), readyMs: null };
}
