/**
 * What the daemon and the watchdog of a freeze say to each other, one JSON text a line: the order on the watchdog's command line,
 * the daemon's words on its standard input, the news on its standard output. The end of the input is a word as well: the daemon is
 * gone.
 */
import { z } from 'zod';

export const guardOrder = z.object({
  /** Of the agent's chardev. */
  socketPath: z.string().min(1),
  /** The note that says that the guest may be frozen; removed once it is not. */
  notePath: z.string().min(1),
  /** From the sending of the freeze to the sending of the thaw. */
  limitMs: z.number().int().positive(),
  /** For the agent's answer to everything but the freeze. */
  answerMs: z.number().int().positive(),
  /** `thaw`: nothing is frozen by it; it ends what an earlier one left. */
  task: z.enum(['guard', 'thaw']),
});
export type GuardOrder = z.infer<typeof guardOrder>;

export const guardWord = z.object({ word: z.enum(['freeze', 'thaw', 'dismiss']) });
export type GuardWord = z.infer<typeof guardWord>['word'];

/** Why the thaw was sent when it was. */
export const thawCauses = ['word', 'limit', 'orphaned'] as const;

const ms = z.number().nonnegative();
export const guardNews = z.discriminatedUnion('news', [
  /** The agent answers, and nothing is frozen. `controlGroup`: of the watchdog, as /proc/self/cgroup has it. */
  z.object({ news: z.literal('ready'), controlGroup: z.string(), agentVersion: z.string() }),
  /** Nothing was frozen, nor will be: the end. */
  z.object({ news: z.literal('unfit'), code: z.string(), message: z.string() }),
  z.object({ news: z.literal('frozen'), fileSystems: z.number(), freezeMs: ms }),
  /** The freeze failed, or was not answered within the limit. The thaw goes on by itself. */
  z.object({ news: z.literal('failed'), code: z.string(), message: z.string() }),
  /** `frozenMs`: from the sending of the freeze to the answer to the thaw: the guest was frozen no longer than that. */
  z.object({ news: z.literal('thawed'), cause: z.enum(thawCauses), fileSystems: z.number(), frozenMs: ms, thawMs: ms }),
  /** A thaw was not answered; it is tried on. */
  z.object({ news: z.literal('stuck'), message: z.string() }),
]);
export type GuardNews = z.infer<typeof guardNews>;
