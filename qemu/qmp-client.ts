/**
 * The QMP client: one connection to the monitor of a QEMU or a qemu-storage-daemon (QEMU's "QMP Protocol Specification").
 * It knows no command but `qmp_capabilities`, keeps no state of the guest, and never connects again by itself.
 * Invariants: lines are handled strictly in the order of the stream, so that an event that QEMU sent before a reply reaches
 * the listeners before that reply's promise settles; whatever ends the connection settles every command under way; memory
 * is bounded by one line and by the commands under way.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { createConnection, type Socket } from 'node:net';
import { foreignListener } from '../host/node/listener.ts';
import { Fault } from '../journal/fault.ts';
import { LineSplitter } from './line-splitter.ts';
import { textOf } from './peer-text.ts';
import { isOfShape } from './reply-shapes.ts';
import type { QmpConnection, QmpEvent } from './qmp.ts';

export interface QmpConnectOptions {
  /** For connecting, greeting and capabilities together. */
  readonly connectTimeoutMs?: number;
  /** For each command that names no other. */
  readonly commandTimeoutMs?: number;
  /** Ends the attempt, not the connection once it stands; rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Whose process has to listen at the path; absent: anybody's. Another's is QMP_UNREACHABLE. */
  readonly listenerUid?: number | undefined;
}

/** The longest answers are `query-qmp-schema` (about 200 KiB) and node lists of large guests (a few MiB). */
const lineBytesMax = 16 * 1024 * 1024;
const connectTimeoutMsDefault = 5_000;
/** QEMU's main loop may stand still for seconds while it drains slow disks. */
const commandTimeoutMsDefault = 30_000;
/** QEMU itself reads no more than 8 ahead; far beyond that the caller has lost count. */
const commandsUnderWayMax = 1024;
/** QEMU works on one command of a client at a time, and on nothing that it queued for one that left: one answer is left over, not many. */
const leftOversMax = 16;

/** Faults: QMP_UNREACHABLE, QMP_GARBAGE, QMP_CLOSED (the peer went away while greeting). */
export async function connectQmp(path: string, options: QmpConnectOptions = {}): Promise<QmpConnection> {
  options.signal?.throwIfAborted();
  const client = new QmpClient(path, options.commandTimeoutMs ?? commandTimeoutMsDefault, options.listenerUid);
  const timeoutMs = options.connectTimeoutMs ?? connectTimeoutMsDefault;
  const timer = setTimeout(() => client.fail(unreachable(path, timeoutMs, client.isConnected)), timeoutMs);
  const abort = (): void => client.close();
  options.signal?.addEventListener('abort', abort, { once: true });
  try {
    await client.ready;
    options.signal?.throwIfAborted();
    return client;
  } catch (error) {
    client.close();
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', abort);
  }
}

function unreachable(path: string, timeoutMs: number, isConnected: boolean): Fault {
  return new Fault('QMP_UNREACHABLE', isConnected
    ? `${path} takes connections but sent no QMP greeting within ${timeoutMs} ms. A QMP socket serves one client at a time, and another one may hold it: give Afterimage a QMP socket of its own (a second -qmp option)`
    : `no connection to ${path} within ${timeoutMs} ms`, { path, timeoutMs });
}

interface UnderWay {
  readonly command: string;
  readonly args: Readonly<Record<string, unknown>> | undefined;
  readonly timer: NodeJS.Timeout;
  resolve(value: unknown): void;
  reject(fault: Fault): void;
}

type Message = Readonly<Record<string, unknown>>;

class QmpClient implements QmpConnection {
  readonly closed: Promise<Fault>;
  /** Settles when commands are taken, or when that failed. */
  readonly ready: Promise<void>;
  version = { major: 0, minor: 0, micro: 0 };
  isConnected = false;
  readonly #path: string;
  readonly #commandTimeoutMs: number;
  readonly #socket: Socket;
  readonly #splitter = new LineSplitter(lineBytesMax);
  readonly #underWay = new Map<number, UnderWay>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  /** From a random number on: what QEMU still answers to the client before is never taken for an answer to this one. */
  #lastId = randomInt(2 ** 40);
  #isGreeted = false;
  #isReady = false;
  #leftOvers = 0;
  #end: Fault | null = null;
  #socketError: Error | null = null;
  #settleClosed!: (fault: Fault) => void;
  #settleReady!: { resolve(): void; reject(fault: Fault): void };

  constructor(path: string, commandTimeoutMs: number, listenerUid: number | undefined) {
    this.#path = path;
    this.#commandTimeoutMs = commandTimeoutMs;
    this.closed = new Promise((resolve) => { this.#settleClosed = resolve; });
    this.ready = new Promise((resolve, reject) => { this.#settleReady = { resolve, reject }; });
    this.#socket = createConnection({ path });
    this.#socket.on('connect', () => {
      this.isConnected = true;
      const uid = foreignListener(this.#socket, listenerUid);
      if (uid !== null) this.fail(new Fault('QMP_UNREACHABLE', `a process of user ${uid} listens at ${path}, where one of user ${listenerUid} has to: it is not spoken to`, { path, uid, error: 'ECONNREFUSED' }));
    });
    this.#socket.on('data', (chunk: Buffer) => this.#read(chunk));
    this.#socket.on('error', (error) => { this.#socketError = error; });
    this.#socket.on('close', () => this.fail(this.#lost()));
  }

  execute<T = unknown>(command: string, args?: Readonly<Record<string, unknown>>, options?: { readonly timeoutMs?: number }): Promise<T> {
    const end = this.#end;
    if (end !== null) return Promise.reject(this.#notDone(command, end));
    assert(this.#underWay.size < commandsUnderWayMax, 'QMP commands are issued faster than answered');
    this.#lastId += 1;
    const id = this.#lastId;
    const timeoutMs = options?.timeoutMs ?? this.#commandTimeoutMs;
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => this.#timeOut(id, timeoutMs), timeoutMs);
      this.#underWay.set(id, { command, args, timer, resolve: resolve as (value: unknown) => void, reject });
      this.#socket.write(`${JSON.stringify(args === undefined ? { execute: command, id } : { execute: command, arguments: args, id })}\n`);
    });
  }

  onEvent(listener: (event: QmpEvent) => void): () => void {
    // A wrapper of its own, so that one function may listen twice.
    const entry = (event: QmpEvent): void => listener(event);
    this.#listeners.add(entry);
    return () => { this.#listeners.delete(entry); };
  }

  close(): void {
    this.fail(new Fault('QMP_CLOSED', `the QMP connection to ${this.#path} was closed by this side`, { path: this.#path }));
  }

  /** Ends the connection; the first reason stands. */
  fail(fault: Fault): void {
    if (this.#end !== null) return;
    this.#end = fault;
    this.#socket.destroy();
    for (const { command, timer, reject } of this.#underWay.values()) {
      clearTimeout(timer);
      reject(this.#notDone(command, fault));
    }
    this.#underWay.clear();
    this.#listeners.clear();
    this.#settleReady.reject(fault);
    this.#settleClosed(fault);
  }

  #notDone(command: string, end: Fault): Fault {
    return new Fault('QMP_CLOSED', `${command} was not answered: ${end.message}`, { path: this.#path, command, reason: end.code }, end);
  }

  #timeOut(id: number, timeoutMs: number): void {
    const late = this.#underWay.get(id);
    assert(late !== undefined);
    this.#underWay.delete(id);
    const fault = new Fault('QMP_TIMEOUT', `no answer to ${late.command} from ${this.#path} within ${timeoutMs} ms`, { path: this.#path, command: late.command, timeoutMs });
    late.reject(fault);
    this.fail(fault);
  }

  /** Why the socket ended without our doing. */
  #lost(): Fault {
    const error = this.#socketError as NodeJS.ErrnoException | null;
    const facts = { path: this.#path, ...(error?.code === undefined ? {} : { error: error.code }) };
    if (this.isConnected) return new Fault('QMP_CLOSED', `QEMU ended the QMP connection to ${this.#path}`, facts, error ?? undefined);
    const why = error?.code === 'EAGAIN'
      ? 'its queue is full: a QMP socket serves one client at a time, and others hold it. Give Afterimage a QMP socket of its own'
      : error?.message ?? 'the connection ended';
    return new Fault('QMP_UNREACHABLE', `cannot connect to ${this.#path}: ${why}`, facts, error ?? undefined);
  }

  #read(chunk: Buffer): void {
    if (this.#end !== null) return;
    const isWithin = this.#splitter.push(chunk, (line) => {
      this.#handleLine(line);
      return this.#end === null;
    });
    if (!isWithin) this.#garbage(`a line longer than ${lineBytesMax} bytes`);
  }

  #garbage(what: string): void {
    this.fail(new Fault('QMP_GARBAGE', `${this.#path} sent what is not QMP: ${what}`, { path: this.#path }));
  }

  #handleLine(line: string): void {
    const message = parseObject(line);
    if (message === undefined) return this.#garbage(JSON.stringify(line.slice(0, 100)));
    if ('return' in message || 'error' in message) return this.#answer(message);
    if (!this.#isGreeted) return this.#greet(message);
    if ('event' in message) return this.#deliver(message);
    // One that was connected to while it still set its monitor up has begun anew, and knows nothing of what was agreed.
    if ('QMP' in message) return this.fail(new Fault('QMP_UNREACHABLE', `${this.#path} greeted twice: its QEMU was still starting`, { path: this.#path }));
    return this.#garbage('a message that is neither answer nor event');
  }

  #greet(message: Message): void {
    const qemu = asObject(asObject(asObject(message['QMP'])?.['version'])?.['qemu']);
    const { major, minor, micro } = qemu ?? {};
    if (typeof major !== 'number' || typeof minor !== 'number' || typeof micro !== 'number') return this.#garbage('its first line is no greeting');
    this.version = { major, minor, micro };
    this.#isGreeted = true;
    // The overall time limit of connecting holds for this command too; its own must not strike first.
    this.execute('qmp_capabilities', undefined, { timeoutMs: 0x7fffffff }).then(
      () => {
        this.#isReady = true;
        this.#settleReady.resolve();
      },
      (error: Fault) => { this.fail(error); },
    );
  }

  #deliver(message: Message): void {
    const { event, data, timestamp } = message;
    if (typeof event !== 'string') return this.#garbage('an event without a name');
    const { seconds, microseconds } = asObject(timestamp) ?? {};
    // QEMU says -1 when it could not read its clock.
    const isTimed = typeof seconds === 'number' && typeof microseconds === 'number' && seconds >= 0;
    const atMs = isTimed ? seconds * 1000 + microseconds / 1000 : Date.now();
    for (const listener of [...this.#listeners]) listener({ event, data: asObject(data) ?? {}, atMs });
  }

  #answer(message: Message): void {
    const { id } = message;
    const error = asObject(message['error']);
    const asked = typeof id === 'number' ? this.#underWay.get(id) : undefined;
    if (asked === undefined) {
      // QEMU ends a command whose client went away, and tells the next client: before it answers that one's qmp_capabilities, as it takes one command after the other.
      if (!this.#isReady && this.#leftOvers < leftOversMax) {
        this.#leftOvers += 1;
        return;
      }
      // Without an id QEMU answers only what it could not parse, and then nobody knows which commands it took.
      return this.#garbage(`an answer to nothing that was asked (${textOf(error?.['desc'] ?? id).slice(0, 100)})`);
    }
    this.#underWay.delete(id as number);
    clearTimeout(asked.timer);
    if (error === undefined) {
      if (isOfShape(asked.command, asked.args, message['return'])) return asked.resolve(message['return']);
      const fault = new Fault('QMP_GARBAGE', `${this.#path} answered ${asked.command} with what is no answer to it`, { path: this.#path, command: asked.command });
      asked.reject(fault);
      return this.fail(fault);
    }
    const kind = textOf(error['class']);
    const description = textOf(error['desc']);
    asked.reject(new Fault('QMP_COMMAND', `QEMU refused ${asked.command}: ${description}`, { command: asked.command, class: kind, description, path: this.#path }));
  }
}

function parseObject(line: string): Message | undefined {
  try {
    return asObject(JSON.parse(line));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function asObject(value: unknown): Message | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? value as Message : undefined;
}
