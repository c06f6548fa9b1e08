/**
 * The watchdog's life, apart from being a process (watchdog.ts is that): owns the connection to the guest's agent, freezes on the
 * daemon's word, and thaws on its word, at the limit, or when the daemon is gone, whichever comes first. The agent's socket serves
 * one client at a time, so that whoever is to thaw for certain must be the one who froze.
 *
 * Invariant: once the freeze has been sent, a thaw is sent at most `limitMs` later, and this does not return before the guest is
 * thawed or its QEMU gone (or an hour has passed; then the note stays). The note goes only when that is known.
 */
import { rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { Fault, isFault } from '../../journal/fault.ts';
import { connectGuestAgent, type GuestAgent } from '../../qemu/guest-agent.ts';
import type { GuardNews, GuardOrder, GuardWord, thawCauses } from './guard-messages.ts';
import { thawUntilDone, type ThawEnd } from './thaw-until-done.ts';

export interface GuardIo {
  readonly controlGroup: string;
  say(news: GuardNews): void;
  /** The next word, or that there will be none. */
  next(): Promise<GuardWord | 'orphaned'>;
}

/** How long an armed watchdog waits for the word to freeze, ms. */
const idleMsMax = 30_000;

type Cause = (typeof thawCauses)[number];

/** Resolves with the process's exit code. */
export async function guardFreeze(order: GuardOrder, io: GuardIo): Promise<number> {
  let agent: GuestAgent;
  try {
    agent = await connectFit(order);
    io.say({ news: 'ready', controlGroup: io.controlGroup, agentVersion: (await agent.info(order.answerMs)).version });
  } catch (error) {
    if (!isFault(error)) throw error;
    io.say({ news: 'unfit', code: error.code, message: error.message });
    return 1;
  }
  const idle = new AbortController();
  const word = await Promise.race([io.next(), delay(idleMsMax, 'dismiss' as const, { signal: idle.signal })]);
  idle.abort();
  if (word !== 'freeze') {
    agent.close();
    return 0;
  }
  return freeze(order, io, agent);
}

/** Thaws what an earlier watchdog could not, or did not live to. */
export async function thawLeftover(order: GuardOrder, io: GuardIo, isNoteThere: () => Promise<boolean>): Promise<number> {
  const begunMs = performance.now();
  io.say({ news: 'ready', controlGroup: io.controlGroup, agentVersion: 'not asked' });
  const stuck = stuckOnce(io);
  const end = await thawUntilDone({ socketPath: order.socketPath, answerMs: order.answerMs, onFailure: stuck, isStillWanted: isNoteThere });
  return finish(order, io, end, 'word', begunMs, begunMs);
}

async function connectFit({ socketPath, answerMs }: GuardOrder): Promise<GuestAgent> {
  const agent = await connectGuestAgent(socketPath, answerMs);
  try {
    await agent.ping(answerMs);
    const { commands } = await agent.info(answerMs);
    const missing = ['guest-fsfreeze-status', 'guest-fsfreeze-freeze', 'guest-fsfreeze-thaw'].filter((command) => !commands.has(command));
    // While frozen the agent disables the freeze, and says so in the list.
    if (await agent.freezeStatus(answerMs) === 'frozen') throw new Fault('FREEZE_FOREIGN', 'the guest’s file systems are frozen already, and not by us', { socketPath });
    if (missing.length > 0) throw new Fault('AGENT_REFUSED', `the guest agent does not offer ${missing.join(', ')}`, { socketPath, missing });
    return agent;
  } catch (error) {
    agent.close();
    throw error;
  }
}

async function freeze(order: GuardOrder, io: GuardIo, agent: GuestAgent): Promise<number> {
  const begunMs = performance.now();
  const leftMs = (): number => Math.max(0, Math.ceil(order.limitMs - (performance.now() - begunMs)));
  const next = io.next();
  let cause: Cause = 'limit';
  let isFreezing = true;
  void next.then((word) => {
    // The answer to a thaw at the limit is worth waiting for.
    if (!isFreezing) return;
    cause = word === 'orphaned' ? 'orphaned' : 'word';
    // Whoever was to hear of the freeze waits no longer, and neither does the thaw.
    agent.giveUp();
  });
  let fileSystems: number;
  try {
    fileSystems = await agent.freeze(order.limitMs);
  } catch (error) {
    if (!isFault(error)) throw error;
    io.say({ news: 'failed', code: error.code === 'AGENT_SILENT' ? 'FREEZE_LATE' : error.code, message: error.code === 'AGENT_SILENT' ? `the guest did not freeze within ${order.limitMs} ms` : error.message });
    return thaw(order, io, agent, cause, begunMs);
  } finally {
    isFreezing = false;
  }
  if (fileSystems === 0) {
    io.say({ news: 'failed', code: 'FREEZE_NOTHING', message: 'the guest agent found no file system that it could freeze' });
    return thaw(order, io, agent, 'word', begunMs);
  }
  io.say({ news: 'frozen', fileSystems, freezeMs: performance.now() - begunMs });
  const timer = new AbortController();
  cause = await Promise.race([
    next.then((word): Cause => (word === 'orphaned' ? 'orphaned' : 'word')),
    delay(leftMs(), 'limit' as const, { signal: timer.signal }),
  ]);
  timer.abort();
  return thaw(order, io, agent, cause, begunMs);
}

async function thaw(order: GuardOrder, io: GuardIo, agent: GuestAgent, cause: Cause, begunMs: number): Promise<number> {
  const thawMs = performance.now();
  const end = await thawUntilDone({ socketPath: order.socketPath, answerMs: order.answerMs, agent, onFailure: stuckOnce(io) });
  return finish(order, io, end, cause, begunMs, thawMs);
}

async function finish(order: GuardOrder, io: GuardIo, end: ThawEnd, cause: Cause, begunMs: number, thawBegunMs: number): Promise<number> {
  const nowMs = performance.now();
  if (end.end === 'given-up') return 1;
  await rm(order.notePath, { force: true });
  io.say({ news: 'thawed', cause, fileSystems: end.end === 'thawed' ? end.fileSystems ?? 0 : 0, frozenMs: nowMs - begunMs, thawMs: nowMs - thawBegunMs });
  return 0;
}

function stuckOnce(io: GuardIo): (fault: Fault) => void {
  let isSaid = false;
  return (fault) => {
    if (!isSaid) io.say({ news: 'stuck', message: fault.message });
    isSaid = true;
  };
}
