/**
 * A client of QEMU's guest agent, over the unix socket of the chardev behind the guest's virtio-serial port (QEMU Guest Agent
 * Protocol Reference). One command at a time, each with a limit.
 *
 * The agent answers without ids, and what it had queued for an earlier client comes to the next one. So a connection begins with
 * `guest-sync-delimited`, and so does the first command after one that was not answered in time: until the reply to that sync
 * has come, everything else is thrown away. Sync and command leave together: an agent that is still busy with the command
 * before finds the next one behind it, which is what thaws a guest whose freeze is never answered. Invariant: a reply is taken
 * for a command's only when the stream was in step since that command left.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { createConnection, type Socket } from 'node:net';
import { splitListener } from '../host/listener-path.ts';
import { foreignListener } from '../host/node/listener.ts';
import { Fault } from '../journal/fault.ts';
import { AgentReplyReader, type AgentItem } from './agent-reply-reader.ts';
import { textOf } from './peer-text.ts';

/** Any guest that is alive answers a ping well within it, also under emulation. */
export const answerMsDefault = 3_000;
/** Guest ids of a sync stay exact as JavaScript numbers. */
const syncIdMax = 2 ** 47;

export type FreezeStatus = 'thawed' | 'frozen';

export interface AgentInfo {
  readonly version: string;
  /** Names of the commands that are enabled. */
  readonly commands: ReadonlySet<string>;
}

/** Connects; the agent itself is first heard of with the first command. `place`: the socket's path, or `user://UID/PATH` (guest-place.ts). Faults: AGENT_UNREACHABLE. */
export function connectGuestAgent(place: string, connectMs = answerMsDefault): Promise<GuestAgent> {
  const { path, uid } = splitListener(place);
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path });
    const settle = (act: () => void): void => {
      clearTimeout(timer);
      socket.removeAllListeners('error');
      act();
    };
    const fail = (why: string, error?: NodeJS.ErrnoException): void => settle(() => {
      socket.on('error', () => undefined).destroy();
      reject(new Fault('AGENT_UNREACHABLE', `the guest agent’s socket ${path} cannot be connected: ${why}`, { path, ...(error?.code === undefined ? {} : { error: error.code }) }, error));
    });
    const timer = setTimeout(() => fail(`nothing within ${connectMs} ms`), connectMs);
    socket.on('error', (error: NodeJS.ErrnoException) => fail(explainConnect(error), error));
    socket.once('connect', () => {
      const foreign = foreignListener(socket, uid);
      if (foreign !== null) return fail(`a process of user ${foreign} listens there, where one of user ${uid} has to`);
      return settle(() => resolve(new GuestAgent(path, socket)));
    });
  });
}

function explainConnect(error: NodeJS.ErrnoException): string {
  switch (error.code) {
    case 'ENOENT': return 'there is no such socket';
    case 'ECONNREFUSED': return 'nobody listens there: its QEMU has ended';
    case 'EACCES': return 'this user may not connect to it';
    case 'EAGAIN': return 'others wait for it already: it serves one client at a time';
    default: return error.message;
  }
}

interface Awaited {
  readonly command: string;
  /** Of the sync that left ahead of the command; null once the stream is in step. */
  syncId: number | null;
  /** The sync's sentinel has come: the next line is its reply, or stale. */
  isDelimited: boolean;
  settle(result: unknown, fault: Fault | null): void;
}

export class GuestAgent {
  /** Resolves once, with why, when the connection is over. */
  readonly closed: Promise<Fault>;
  readonly #path: string;
  readonly #socket: Socket;
  readonly #reader = new AgentReplyReader();
  #isInStep = false;
  #awaited: Awaited | null = null;
  #end: Fault | null = null;
  #settleClosed!: (fault: Fault) => void;

  /** `socket`: connected. */
  constructor(path: string, socket: Socket) {
    this.#path = path;
    this.#socket = socket;
    this.closed = new Promise((resolve) => { this.#settleClosed = resolve; });
    socket.on('data', (chunk: Buffer) => this.#reader.push(chunk, (item) => this.#take(item)));
    socket.on('error', (error) => this.#over(`${error.message}`, error));
    socket.on('close', () => this.#over('QEMU ended it'));
  }

  /** Resolves when an agent answers; what it or another client left in the stream is gone then. */
  async ping(answerMs = answerMsDefault): Promise<void> {
    await this.#execute('guest-ping', answerMs);
  }

  async info(answerMs = answerMsDefault): Promise<AgentInfo> {
    const info = await this.#execute('guest-info', answerMs) as { version?: unknown; supported_commands?: unknown } | null;
    const listed = Array.isArray(info?.supported_commands) ? info.supported_commands as readonly unknown[] : [];
    return {
      version: typeof info?.version === 'string' ? info.version : 'unknown',
      commands: new Set(listed.flatMap((one) => {
        const { name, enabled } = (one ?? {}) as { name?: unknown; enabled?: unknown };
        return typeof name === 'string' && enabled === true ? [name] : [];
      })),
    };
  }

  async freezeStatus(answerMs = answerMsDefault): Promise<FreezeStatus> {
    const status = await this.#execute('guest-fsfreeze-status', answerMs);
    if (status === 'thawed' || status === 'frozen') return status;
    throw this.#garbage('guest-fsfreeze-status', status);
  }

  /** Resolves with the number of file systems that are frozen. A guest that did not answer in time may freeze later: thaw it. */
  freeze(answerMs: number): Promise<number> {
    return this.#executeCount('guest-fsfreeze-freeze', answerMs);
  }

  /** Resolves with the number of file systems that were thawed by it: 0 when none was frozen any more. */
  thaw(answerMs = answerMsDefault): Promise<number> {
    return this.#executeCount('guest-fsfreeze-thaw', answerMs);
  }

  /** The command under way counts as unanswered from now on; another may follow, and the agent finds it behind that one. */
  giveUp(): void {
    if (this.#awaited !== null) this.#silent(this.#awaited, 'before it was given up');
  }

  close(): void {
    this.#over('closed by this side');
  }

  async #executeCount(command: string, answerMs: number): Promise<number> {
    const count = await this.#execute(command, answerMs);
    if (typeof count === 'number' && Number.isInteger(count) && count >= 0) return count;
    throw this.#garbage(command, count);
  }

  /** Faults: AGENT_SILENT (the connection stays), AGENT_REFUSED, AGENT_GARBAGE, AGENT_CLOSED. */
  #execute(command: string, answerMs: number): Promise<unknown> {
    if (this.#end !== null) return Promise.reject(this.#end);
    assert(this.#awaited === null, 'the agent is asked one thing at a time');
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#silent(awaited, `within ${answerMs} ms`), answerMs);
      const awaited: Awaited = {
        command, syncId: this.#isInStep ? null : randomInt(syncIdMax), isDelimited: false,
        settle: (result, fault) => {
          clearTimeout(timer);
          this.#awaited = null;
          if (fault === null) resolve(result);
          else reject(fault);
        },
      };
      this.#awaited = awaited;
      const text = `${JSON.stringify({ execute: command })}\n`;
      if (awaited.syncId === null) this.#socket.write(text);
      // The 0xFF makes the agent throw away what an earlier client began and did not end.
      else this.#socket.write(Buffer.concat([Buffer.of(0xff), Buffer.from(`${JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id: awaited.syncId } })}\n${text}`)]));
    });
  }

  #silent(awaited: Awaited, when: string): void {
    // What it still answers is stale from here on.
    this.#isInStep = false;
    awaited.settle(null, new Fault('AGENT_SILENT', `the guest agent at ${this.#path} did not answer ${awaited.command} ${when}`, { path: this.#path, command: awaited.command }));
  }

  #take(item: AgentItem): void {
    const awaited = this.#awaited;
    if (awaited === null) {
      // Nothing was asked: a sentinel or a reply now is for nobody, and the next command begins with a sync.
      this.#isInStep = false;
      return;
    }
    if (awaited.syncId !== null) return this.#catchUp(awaited, item);
    if (item.kind !== 'reply') {
      this.#isInStep = false;
      return awaited.settle(null, this.#garbage(awaited.command, item.kind === 'garbage' ? item.text : 'a sentinel'));
    }
    const { reply } = item;
    if ('return' in reply) return awaited.settle(reply['return'], null);
    const error = reply['error'] as { class?: unknown; desc?: unknown } | undefined;
    if (typeof error !== 'object' || error === null) {
      this.#isInStep = false;
      return awaited.settle(null, this.#garbage(awaited.command, reply));
    }
    const description = textOf(error.desc).slice(0, 500);
    awaited.settle(null, new Fault('AGENT_REFUSED', `the guest agent refused ${awaited.command}: ${description}`, { path: this.#path, command: awaited.command, class: textOf(error.class).slice(0, 100), description }));
  }

  /** Until the sync's own reply has come, right behind a sentinel, all else is an earlier client's, or of before the limit. */
  #catchUp(awaited: Awaited, item: AgentItem): void {
    if (item.kind === 'sentinel') awaited.isDelimited = true;
    else if (awaited.isDelimited && item.kind === 'reply' && item.reply['return'] === awaited.syncId) {
      awaited.syncId = null;
      this.#isInStep = true;
    } else awaited.isDelimited = false;
  }

  #garbage(command: string, what: unknown): Fault {
    return new Fault('AGENT_GARBAGE', `the guest agent at ${this.#path} answered ${command} with what is no answer to it: ${textOf(what).slice(0, 100)}`, { path: this.#path, command });
  }

  #over(why: string, cause?: unknown): void {
    if (this.#end !== null) return;
    this.#end = new Fault('AGENT_CLOSED', `the connection to the guest agent at ${this.#path} is over: ${why}`, { path: this.#path }, cause);
    this.#socket.destroy();
    this.#awaited?.settle(null, this.#end);
    this.#settleClosed(this.#end);
  }
}
