/**
 * Asks a guest that was started here whether it is ready, until it is or its time is up. It changes nothing in the guest. What a guest says is the guest's: it is matched, shown to
 * nobody from here, and a long line costs no more than a short one.
 */
import { open } from 'node:fs/promises';
import type { Clock } from '../../host/clock.ts';
import { isFault } from '../../journal/fault.ts';
import { connectGuestAgent } from '../../qemu/guest-agent.ts';
import type { NotedGuest } from './group-guests.ts';
import { agentPath } from './guest-launch.ts';
import type { ReadyChecks } from './readiness-plan.ts';
import { runCommand } from '../../host/node/run-command.ts';

/** Pace of asking, ms. */
const againMs = 250;
/** For one run of a command, ms. */
const commandMsMax = 30_000;
/** The end of what a guest said, bytes. */
export const serialTailBytes = 64 * 1024;

export type CheckKind = 'agent' | 'serial' | 'command';

export interface CheckOutcome {
  readonly check: CheckKind;
  /** For people: what was asked for. */
  readonly what: string;
  readonly isReady: boolean;
  readonly tookMs: number;
  /** The last answer that was none; empty when it is ready. */
  readonly why: string;
}

export interface ReadyOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** For the command: what was started, from which point, where. */
  readonly facts: Readonly<Record<string, unknown>>;
}

/** One outcome for each check; all are asked side by side. Rejects with the signal's reason. */
export function awaitReady(guest: NotedGuest, checks: ReadyChecks, options: ReadyOptions): Promise<CheckOutcome[]> {
  const { agent, serial, command } = checks;
  const asked: Promise<CheckOutcome>[] = [];
  if (agent === true) asked.push(until('agent', 'its agent answers', () => askAgent(guest), checks, options));
  if (serial !== undefined) asked.push(until('serial', `its serial port says /${serial}/`, () => lookFor(guest, new RegExp(serial, 'm')), checks, options));
  if (command !== undefined) asked.push(until('command', command.join(' '), () => runCommand(command, { facts: { ...options.facts, guest: guest.name, qmp: guest.qmpPath, serial: guest.logPath, pid: guest.pid }, limitMs: commandMsMax, signal: options.signal }), checks, options));
  return Promise.all(asked);
}

/** `ask` says why not; null: it is. */
async function until(check: CheckKind, what: string, ask: () => Promise<string | null>, { withinMs }: ReadyChecks, { clock, signal }: ReadyOptions): Promise<CheckOutcome> {
  const begunMs = clock.monotonicMs();
  for (;;) {
    const why = await ask();
    signal.throwIfAborted();
    const tookMs = Math.round(clock.monotonicMs() - begunMs);
    if (why === null || tookMs >= withinMs) return { check, what, isReady: why === null, tookMs, why: why ?? '' };
    await clock.delay(againMs, signal);
  }
}

async function askAgent({ folder }: NotedGuest): Promise<string | null> {
  try {
    const agent = await connectGuestAgent(agentPath(folder));
    try {
      await agent.ping();
      return null;
    } finally {
      agent.close();
    }
  } catch (error) {
    if (!isFault(error)) throw error;
    return error.message;
  }
}

async function lookFor({ logPath }: NotedGuest, pattern: RegExp): Promise<string | null> {
  return pattern.test(await serialTail(logPath)) ? null : 'it has not said so';
}

/** The end of what a guest said; empty where it has said nothing. */
export async function serialTail(logPath: string): Promise<string> {
  try {
    const file = await open(logPath, 'r');
    try {
      const { size } = await file.stat();
      const bytes = Buffer.alloc(Math.min(size, serialTailBytes));
      const { bytesRead } = await file.read(bytes, 0, bytes.length, size - bytes.length);
      return bytes.subarray(0, bytesRead).toString('utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return '';
  }
}
