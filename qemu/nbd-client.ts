/**
 * The NBD client, for unix sockets: reads, writes and asks about blocks, many requests under way at once. Payload goes from the
 * socket straight into the caller's buffer. It never connects again by itself and keeps nothing of what it read.
 * Invariants: a read that resolves has filled every byte of its part of the buffer; no length of the server's is believed beyond
 * what was asked for; whatever ends the connection settles every request, and no buffer is touched after its request is settled.
 */
import assert from 'node:assert/strict';
import { createConnection, type Socket } from 'node:net';
import { foreignListener } from '../host/node/listener.ts';
import { Fault } from '../journal/fault.ts';
import { enterExport, optionReplyBytesMax, type NbdEntered } from './nbd-client-handshake.ts';
import { NbdInlet } from './nbd-inlet.ts';
import { NbdCover } from './nbd-cover.ts';
import { nbdExtentsOf, type NbdExtent } from './nbd-extents.ts';
import {
  encodeOption, encodeRequest, nbdCommand, nbdCommandFlag, nbdCommandName, nbdFlag, nbdLengthMax, nbdOption, nbdRequestBytes, type NbdBlockSizes,
} from './nbd-protocol.ts';
import { contentHeadBytes, errorPayloadBytesMax, NbdReplyReader, type NbdUnderWay } from './nbd-reply-reader.ts';

export interface NbdConnectOptions {
  readonly path: string;
  /** Whose process has to listen there; absent: anybody's. Another's is NBD_CLOSED. */
  readonly listenerUid?: number | undefined;
  readonly exportName: string;
  /** Each must be there, or the connection is refused: `base:allocation`, `qemu:dirty-bitmap:NAME`, `qemu:allocation-depth`. */
  readonly metaContexts?: readonly string[];
  /** Requests under way at once; more wait in line. */
  readonly requestsMax?: number;
  /** For connecting and handshake together, and then for each request. */
  readonly timeoutMs?: number;
  /** Ends the attempt, and later the connection. */
  readonly signal?: AbortSignal;
}

/** `isFast`: fail with ENOTSUP rather than write zeroes slowly. `mayPunch`: holes are fine. */
export interface NbdZeroOptions { readonly isDurable?: boolean; readonly isFast?: boolean; readonly mayPunch?: boolean }

/**
 * Requests reject with NBD_IO (facts: errno, offset, length; the connection goes on), NBD_CLOSED or NBD_PROTOCOL (it is over).
 * Offsets and lengths are multiples of `sizes.minimumBytes`; a read or write is at most `sizes.payloadBytesMax` long.
 */
export interface NbdClient {
  readonly sizeBytes: number;
  readonly sizes: NbdBlockSizes;
  readonly isReadOnly: boolean;
  readonly canFlush: boolean;
  readonly canTrim: boolean;
  readonly canZero: boolean;
  readonly canZeroFast: boolean;
  readonly isMultiConn: boolean;
  /** False: the server gives simple replies only. */
  readonly isStructured: boolean;
  readonly metaContexts: readonly string[];
  /** Resolves once, with why, when the connection is over. */
  readonly closed: Promise<Fault>;
  read(into: Buffer, intoAt: number, length: number, offset: number): Promise<void>;
  /** What lies from `offset` on, by context: at least one extent each, in order, without gaps, and maybe less or more than asked for. */
  blockStatus(offset: number, length: number): Promise<ReadonlyMap<string, readonly NbdExtent[]>>;
  /** The whole export, or a part of it, without gaps; neighbours with the same flags are one extent. */
  extents(context: string, range?: { readonly offset: number; readonly length: number }): AsyncGenerator<NbdExtent, void, undefined>;
  write(from: Buffer, offset: number, options?: { readonly isDurable?: boolean }): Promise<void>;
  zero(offset: number, length: number, options?: NbdZeroOptions): Promise<void>;
  trim(offset: number, length: number): Promise<void>;
  flush(): Promise<void>;
  /** Says goodbye (NBD_CMD_DISC). Requests under way reject with NBD_CLOSED. Resolves when the socket is closed. */
  close(): Promise<void>;
}

const requestsMaxDefault = 16;
const timeoutMsDefault = 30_000;
/** How long a goodbye may take to leave. */
const goodbyeMsMax = 1_000;

/** Faults: NBD_CLOSED (nobody there, too slow, gone), NBD_PROTOCOL, NBD_REFUSED. Aborted: rejects with the signal's reason. */
export async function connectNbd(options: NbdConnectOptions): Promise<NbdClient> {
  options.signal?.throwIfAborted();
  const connection = new Connection(options);
  try {
    await connection.enter();
    return connection;
  } catch (error) {
    connection.giveUp(error instanceof Fault ? error : new Fault('NBD_CLOSED', `connecting to ${options.path} failed`, { path: options.path }, error));
    options.signal?.throwIfAborted();
    throw error;
  }
}

class Connection implements NbdClient {
  readonly closed: Promise<Fault>;
  readonly #options: NbdConnectOptions;
  readonly #socket: Socket;
  readonly #inlet = new NbdInlet(Math.max(optionReplyBytesMax, errorPayloadBytesMax), contentHeadBytes);
  readonly #timeoutMs: number;
  readonly #timer: NodeJS.Timeout;
  readonly #requestsMax: number;
  /** By cookie; the oldest first. */
  readonly #underWay = new Map<number, NbdUnderWay>();
  readonly #waiting = new Set<() => void>();
  readonly #startedMs = performance.now();
  readonly #onAbort: () => void;
  #entered: NbdEntered | null = null;
  #lastCookie = 0;
  #end: Fault | null = null;
  #isCorked = false;
  #socketError: NodeJS.ErrnoException | null = null;
  #settleClosed!: (fault: Fault) => void;
  #rejectTake: ((fault: Fault) => void) | null = null;

  constructor(options: NbdConnectOptions) {
    this.#options = options;
    this.#timeoutMs = options.timeoutMs ?? timeoutMsDefault;
    this.#requestsMax = options.requestsMax ?? requestsMaxDefault;
    assert(this.#requestsMax > 0 && this.#timeoutMs > 0);
    this.closed = new Promise((resolve) => { this.#settleClosed = resolve; });
    this.#inlet.pause();
    this.#socket = createConnection({
      path: options.path,
      onread: {
        buffer: () => this.#inlet.nextBuffer(),
        callback: (bytes, buffer) => this.#inlet.received(bytes, buffer),
      },
    });
    // The client speaks second: nothing has been sent by then.
    this.#socket.on('connect', () => {
      const uid = foreignListener(this.#socket, options.listenerUid);
      if (uid !== null) this.fail(new Fault('NBD_CLOSED', `a process of user ${uid} listens at ${options.path}, where one of user ${options.listenerUid} has to`, { path: options.path, uid }));
    });
    this.#socket.on('error', (error) => { this.#socketError = error; });
    this.#socket.on('end', () => this.fail(this.#lost()));
    this.#socket.on('close', () => this.fail(this.#lost()));
    this.#timer = setInterval(() => this.#checkLimits(), Math.max(10, Math.min(1000, this.#timeoutMs / 4)));
    this.#timer.unref();
    this.#onAbort = () => { void this.close(); };
    options.signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  get sizeBytes(): number { return this.#known().sizeBytes; }
  get sizes(): NbdBlockSizes { return this.#known().sizes; }
  get isReadOnly(): boolean { return this.#has(nbdFlag.readOnly); }
  get canFlush(): boolean { return this.#has(nbdFlag.flush); }
  get canTrim(): boolean { return this.#has(nbdFlag.trim); }
  get canZero(): boolean { return this.#has(nbdFlag.writeZeroes); }
  get canZeroFast(): boolean { return this.#has(nbdFlag.fastZero); }
  get isMultiConn(): boolean { return this.#has(nbdFlag.multiConn); }
  get isStructured(): boolean { return this.#known().isStructured; }
  get metaContexts(): readonly string[] { return [...this.#known().contexts.values()]; }

  async enter(): Promise<void> {
    this.#entered = await enterExport({
      take: (bytes) => this.#take(bytes),
      send: (bytes) => { this.#socket.write(bytes); },
      exportName: this.#options.exportName,
      metaContexts: this.#options.metaContexts ?? [],
      path: this.#options.path,
    });
    if (this.#end !== null) throw this.#end;
    const { isStructured, sizeBytes, contexts } = this.#entered;
    new NbdReplyReader(this.#inlet, {
      isStructured, sizeBytes, contexts,
      find: (cookie) => this.#underWay.get(cookie),
      done: (underWay) => this.#settle(underWay),
      broken: (what) => this.fail(new Fault('NBD_PROTOCOL', `${this.#options.path} broke the NBD protocol: ${what}`, { path: this.#options.path })),
    });
    this.#resume();
  }

  read(into: Buffer, intoAt: number, length: number, offset: number): Promise<void> {
    assert(length > 0 && length <= this.sizes.payloadBytesMax && intoAt >= 0 && intoAt + length <= into.length);
    return this.#request(nbdCommand.read, 0, offset, length, { into, intoAt }).then(() => undefined);
  }

  async blockStatus(offset: number, length: number): Promise<ReadonlyMap<string, readonly NbdExtent[]>> {
    assert(length > 0 && this.#known().contexts.size > 0, 'metadata contexts are chosen when connecting');
    return (await this.#request(nbdCommand.blockStatus, 0, offset, length)).found;
  }

  extents(context: string, range = { offset: 0, length: this.sizeBytes }): AsyncGenerator<NbdExtent, void, undefined> {
    assert(this.metaContexts.includes(context), 'metadata contexts are chosen when connecting');
    return nbdExtentsOf(async (offset, length) => (await this.blockStatus(offset, length)).get(context)!, range.offset, range.offset + range.length);
  }

  write(from: Buffer, offset: number, options: { readonly isDurable?: boolean } = {}): Promise<void> {
    assert(from.length > 0 && from.length <= this.sizes.payloadBytesMax);
    return this.#request(nbdCommand.write, this.#fua(options), offset, from.length, { from }).then(() => undefined);
  }

  zero(offset: number, length: number, options: NbdZeroOptions = {}): Promise<void> {
    assert(this.canZero && (options.isFast !== true || this.canZeroFast));
    const flags = this.#fua(options) | (options.isFast === true ? nbdCommandFlag.fastZero : 0) | (options.mayPunch === false ? nbdCommandFlag.noHole : 0);
    return this.#request(nbdCommand.writeZeroes, flags, offset, length).then(() => undefined);
  }

  trim(offset: number, length: number): Promise<void> {
    assert(this.canTrim);
    return this.#request(nbdCommand.trim, 0, offset, length).then(() => undefined);
  }

  flush(): Promise<void> {
    assert(this.canFlush);
    return this.#request(nbdCommand.flush, 0, 0, 0).then(() => undefined);
  }

  async close(): Promise<void> {
    if (this.#end === null) {
      const bytes = Buffer.alloc(nbdRequestBytes);
      encodeRequest(bytes, 0, nbdCommand.disc, 0, 0, 0);
      this.#leave(new Fault('NBD_CLOSED', `the NBD connection to ${this.#options.path} was closed by this side`, { path: this.#options.path }), this.#entered === null ? null : bytes);
    }
    if (!this.#socket.closed) await new Promise<void>((resolve) => { this.#socket.once('close', () => resolve()); });
  }

  /** Ends the attempt to enter. "The client MUST use soft disconnect" where the server only refused. */
  giveUp(fault: Fault): void {
    if (fault.code === 'NBD_REFUSED') this.#leave(fault, encodeOption(nbdOption.abort));
    else this.fail(fault);
  }

  #leave(fault: Fault, goodbye: Buffer | null): void {
    // Reading ends first: the socket's next read could be meant for a buffer that is not ours any more.
    this.#socket.pause();
    this.#finish(fault);
    if (goodbye !== null) this.#socket.write(goodbye);
    const timer = setTimeout(() => this.#socket.destroy(), goodbyeMsMax);
    this.#socket.once('close', () => clearTimeout(timer));
    if (this.#socket.connecting) this.#socket.destroy();
    else this.#socket.destroySoon();
  }

  /** Ends the connection without a word; the first reason stands. */
  fail(fault: Fault): void {
    this.#finish(fault);
    this.#socket.destroy();
  }

  #finish(fault: Fault): void {
    if (this.#end !== null) return;
    this.#end = fault;
    this.#inlet.stop();
    clearInterval(this.#timer);
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#rejectTake?.(fault);
    for (const underWay of this.#underWay.values()) underWay.reject(this.#undone(underWay.type, fault));
    this.#underWay.clear();
    for (const go of this.#waiting) go();
    this.#waiting.clear();
    this.#settleClosed(fault);
  }

  // Requests

  async #request(type: number, flags: number, offset: number, length: number, data: { readonly into?: Buffer; readonly intoAt?: number; readonly from?: Buffer } = {}): Promise<NbdUnderWay> {
    assert(offset >= 0 && length <= nbdLengthMax && offset + length <= this.sizeBytes);
    while (this.#end === null && this.#underWay.size >= this.#requestsMax) await new Promise<void>((resolve) => { this.#waiting.add(resolve); });
    if (this.#end !== null) throw this.#undone(type, this.#end);
    // 48 bits of counting outlast any connection, and are written without a BigInt.
    this.#lastCookie += 1;
    const cookie = this.#lastCookie;
    return new Promise<NbdUnderWay>((resolve, reject) => {
      const underWay: NbdUnderWay = {
        cookie, type, offset, length, startedMs: performance.now(), into: data.into ?? null, intoAt: data.intoAt ?? 0,
        cover: type === nbdCommand.read ? new NbdCover(offset, length) : null, found: new Map(), failure: null,
        resolve: () => resolve(underWay), reject,
      };
      this.#underWay.set(cookie, underWay);
      this.#cork();
      const head = Buffer.allocUnsafe(nbdRequestBytes);
      encodeRequest(head, flags, type, cookie, offset, length);
      this.#socket.write(head);
      if (data.from !== undefined) this.#socket.write(data.from);
    });
  }

  /** Requests made together leave together. */
  #cork(): void {
    if (this.#isCorked) return;
    this.#isCorked = true;
    this.#socket.cork();
    process.nextTick(() => {
      this.#isCorked = false;
      this.#socket.uncork();
    });
  }

  #settle(underWay: NbdUnderWay): void {
    const { type, offset, length, failure } = underWay;
    this.#underWay.delete(underWay.cookie);
    const [next] = this.#waiting;
    if (next !== undefined) {
      this.#waiting.delete(next);
      next();
    }
    if (failure === null) return underWay.resolve();
    underWay.reject(new Fault('NBD_IO', `${this.#options.path} answered ${failure.errno} to ${nbdCommandName(type)} of ${length} bytes at ${offset}${failure.text === '' ? '' : `: ${failure.text}`}`, {
      path: this.#options.path, errno: failure.errno, command: nbdCommandName(type), offset, length, ...(failure.at === null ? {} : { at: failure.at }),
    }));
    // "If the client receives an ESHUTDOWN error it MUST initiate a soft disconnect."
    if (failure.errno === 'ESHUTDOWN') void this.close();
  }

  // Ends

  #take(bytes: number): Promise<Buffer> {
    if (this.#end !== null) return Promise.reject(this.#end);
    return new Promise<Buffer>((resolve, reject) => {
      this.#rejectTake = reject;
      this.#inlet.expect(bytes, (head) => {
        this.#inlet.pause();
        this.#rejectTake = null;
        resolve(Buffer.from(head));
      });
      this.#resume();
    });
  }

  #resume(): void {
    if (this.#inlet.resume()) this.#socket.resume();
  }

  #checkLimits(): void {
    const nowMs = performance.now();
    const { path } = this.#options;
    if (this.#entered === null) {
      if (nowMs - this.#startedMs > this.#timeoutMs) this.fail(new Fault('NBD_CLOSED', `${path} did not finish the NBD handshake within ${this.#timeoutMs} ms`, { path, timeoutMs: this.#timeoutMs }));
      return;
    }
    const [oldest] = this.#underWay.values();
    if (oldest === undefined || nowMs - oldest.startedMs <= this.#timeoutMs) return;
    this.fail(new Fault('NBD_CLOSED', `${path} did not answer ${nbdCommandName(oldest.type)} within ${this.#timeoutMs} ms`, { path, timeoutMs: this.#timeoutMs, command: nbdCommandName(oldest.type) }));
  }

  #lost(): Fault {
    const { path } = this.#options;
    const error = this.#socketError;
    const facts = { path, ...(error?.code === undefined ? {} : { error: error.code }) };
    const what = this.#entered === null ? `cannot enter export "${this.#options.exportName}" of ${path}` : `the NBD connection to ${path} ended`;
    return new Fault('NBD_CLOSED', `${what}: ${error?.message ?? 'the server closed it'}`, facts, error ?? undefined);
  }

  #undone(type: number, end: Fault): Fault {
    const code = end.code === 'NBD_PROTOCOL' ? 'NBD_PROTOCOL' : 'NBD_CLOSED';
    return new Fault(code, `${nbdCommandName(type)} was not answered: ${end.message}`, { ...end.facts, command: nbdCommandName(type), reason: end.code }, end);
  }

  #known(): NbdEntered {
    assert(this.#entered !== null);
    return this.#entered;
  }

  #has(flag: number): boolean { return (this.#known().flags & flag) !== 0; }

  #fua(options: { readonly isDurable?: boolean }): number {
    assert(options.isDurable !== true || this.#has(nbdFlag.fua), 'the server has no FUA: flush instead');
    return options.isDurable === true ? nbdCommandFlag.fua : 0;
  }
}
