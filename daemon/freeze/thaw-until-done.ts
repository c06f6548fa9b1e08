/**
 * Thaws a guest, and does not end before it is thawed, its QEMU is gone, or an hour has passed. It keeps a connection on which a
 * thaw has gone unanswered: the agent may be busy with the freeze, and finds the thaw behind it. Freezes nothing.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { isFault, type Fault } from '../../journal/fault.ts';
import { connectGuestAgent, type GuestAgent } from '../../qemu/guest-agent.ts';

/** Between two attempts, growing from the first to the second, ms. */
const retryMsMin = 100;
const retryMsMax = 5_000;
/** An agent that is silent for so long has ended with its guest, or needs a person, ms. */
const tryMsMax = 3_600_000;
/** A socket at which nobody listens, seen so often in a row: that QEMU is gone, and with it what was frozen. */
const goneLooksMin = 3;

export type ThawEnd =
  /** `fileSystems`: as the agent counted them; null when an answer was missed, so that nobody knows. */
  | { readonly end: 'thawed'; readonly fileSystems: number | null }
  | { readonly end: 'gone' }
  | { readonly end: 'given-up' };

export interface ThawOptions {
  readonly socketPath: string;
  readonly answerMs: number;
  /** A connection that stands. */
  readonly agent?: GuestAgent;
  /** Each failure, as it comes. */
  onFailure(fault: Fault): void;
  /** False: somebody else has done it. */
  isStillWanted?(): Promise<boolean>;
}

export async function thawUntilDone(options: ThawOptions): Promise<ThawEnd> {
  let agent = options.agent ?? null;
  let isCounted = true;
  let goneLooks = 0;
  let retryMs = retryMsMin;
  const endMs = performance.now() + tryMsMax;
  try {
    for (;;) {
      if (!(await options.isStillWanted?.() ?? true)) return { end: 'thawed', fileSystems: null };
      try {
        agent ??= await connectGuestAgent(options.socketPath, options.answerMs);
        goneLooks = 0;
        const fileSystems = await thawOnce(agent, options.answerMs);
        if (fileSystems !== 'frozen') return { end: 'thawed', fileSystems: isCounted ? fileSystems : null };
      } catch (error) {
        if (!isFault(error)) throw error;
        options.onFailure(error);
        isCounted = false;
        if (error.code === 'AGENT_UNREACHABLE') goneLooks = isGone(error) ? goneLooks + 1 : 0;
        // Only a silent agent's connection is of use: what was sent on it is still in line.
        if (error.code !== 'AGENT_SILENT') {
          agent?.close();
          agent = null;
        }
        if (goneLooks >= goneLooksMin) return { end: 'gone' };
      }
      if (performance.now() > endMs) return { end: 'given-up' };
      await delay(retryMs);
      retryMs = Math.min(retryMsMax, retryMs * 2);
    }
  } finally {
    agent?.close();
  }
}

/** The count of the thaw, null when the agent refused it though nothing is frozen (as on Windows, which thaws by itself after 10 s). */
async function thawOnce(agent: GuestAgent, answerMs: number): Promise<number | null | 'frozen'> {
  let fileSystems: number | null = null;
  try {
    fileSystems = await agent.thaw(answerMs);
  } catch (error) {
    if (!isFault(error, 'AGENT_REFUSED')) throw error;
  }
  return await agent.freezeStatus(answerMs) === 'thawed' ? fileSystems : 'frozen';
}

function isGone(fault: Fault): boolean {
  return fault.facts['error'] === 'ECONNREFUSED' || fault.facts['error'] === 'ENOENT';
}
