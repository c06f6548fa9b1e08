/** What waits to be delivered on one way out: how much is kept, what is sent next, when what failed is tried again. Pure. */
import { z } from 'zod';
import type { Notice } from './alert-options.ts';

export const keptNotice: z.ZodType<Notice> = z.object({
  id: z.string(), event: z.enum(['raised', 'repeated', 'recovered', 'test']), code: z.string(), group: z.string().nullable(), severity: z.enum(['warning', 'error']),
  message: z.string(), advice: z.string(), sinceMs: z.number(), atMs: z.number(),
});

/** On one way out. */
export const waitingMax = 500;
/** In one delivery. */
export const bulletinMax = 100;
/** What could not be delivered for so long is no news any more, ms. */
const staleMsMax = 24 * 3_600_000;
const [retryMsMin, retryMsMax] = [5_000, 300_000];

/** `dropped`: how many had to go, because there are too many: reminders first, then the oldest. */
export function enqueue(waiting: readonly Notice[], notices: readonly Notice[]): { readonly waiting: Notice[]; readonly dropped: number } {
  const all = [...waiting, ...notices];
  const over = all.length - waitingMax;
  if (over <= 0) return { waiting: all, dropped: 0 };
  const going = new Set([...all.filter(({ event }) => event === 'repeated'), ...all.filter(({ event }) => event !== 'repeated')].slice(0, over));
  return { waiting: all.filter((one) => !going.has(one)), dropped: over };
}

/** What goes in the next delivery, and what is too old for one. */
export function nextDelivery(waiting: readonly Notice[], nowMs: number): { readonly send: readonly Notice[]; readonly stale: readonly Notice[] } {
  const stale = waiting.filter(({ atMs }) => nowMs - atMs > staleMsMax);
  return { send: waiting.filter((one) => !stale.includes(one)).slice(0, bulletinMax), stale };
}

/** After so many failures in a row, ms. */
export function retryDelayMs(failures: number): number {
  return Math.min(retryMsMax, retryMsMin * 2 ** Math.min(failures - 1, 10));
}
