/**
 * One client of the NBD server, from greeting to disconnect. It reads requests as long as there is room for what they bring,
 * hands them to the export's handler, and answers each when its handler is done, in whatever order that is.
 * It does not listen, stores nothing, and decides nothing about options (nbd-option-plan.ts).
 * Invariants: payload is read from the socket only into room taken from the budget; a request is answered once; after `end`
 * nothing is read, written or handed over any more.
 */
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { Fault, isFault } from '../journal/fault.ts';
import { sectorBytes, zeroRunBytesMax } from '../journal/limits.ts';
import { readInto } from './nbd-accept.ts';
import { NbdBudget } from './nbd-budget.ts';
import type { NbdAllocation, NbdExport, NbdLease, NbdServeOptions, NbdTls } from './nbd-handler.ts';
import { NbdInlet } from './nbd-inlet.ts';
import { nbdAllocationContextId, type NbdAgreement } from './nbd-option-plan.ts';
import {
  decodeRequest, encodeChunkHeader, encodeSimpleReply, nbdChunk, nbdChunkFlagDone, nbdChunkHeaderBytes, nbdCommand, nbdCommandFlag,
  nbdCommandName, nbdErrorName, nbdLengthMax, nbdPayloadBytesDefault, nbdRequestBytes, nbdSimpleReplyBytes, nbdState, writeUInt64, type NbdRequest,
} from './nbd-protocol.ts';
import { errorOf, refuseRequest } from './nbd-refusal-plan.ts';
import { NbdReplies } from './nbd-replies.ts';
import { NbdHandshake, optionBytesMax } from './nbd-server-handshake.ts';
import { secureNbd } from './nbd-tls.ts';

/** Requests under way on one connection; QEMU has 16, libnbd 64. */
const requestsMax = 256;
/** Those of one answer fill 64 KiB; a client asks again from where they end. */
const descriptorsMax = 8 * 1024;
/** How long the last replies may take to leave. */
const goodbyeMsMax = 1_000;

export interface NbdSessionShared extends Pick<Required<NbdServeOptions>, 'exports' | 'inFlightBytesMaxEach' | 'headroomBytes' | 'buffers' | 'requestBytesMax' | 'stallLimitMs' | 'handshakeLimitMs' | 'isDirect' | 'onFault'> {
  /** Asked of every client before anything else. */
  readonly tls: NbdTls | null;
  readonly budget: NbdBudget;
  readonly runBytesMax: number;
  readonly counts: { writtenBytes: number; zeroedBytes: number; readBytes: number; endedConnections: number; failedRequests: number };
}

interface UnderWay {
  readonly request: NbdRequest;
  readonly startedMs: number;
  /** Handler calls and, while it lasts, the gathering of the payload. */
  parts: number;
  error: number;
  /** Its flush for the FUA flag has been called. */
  isPersisted: boolean;
}

export class NbdSession {
  exportName: string | null = null;
  #socket: Socket;
  readonly #shared: NbdSessionShared;
  readonly #onEnd: () => void;
  #inlet = new NbdInlet(optionBytesMax, nbdRequestBytes);
  #replies: NbdReplies;
  readonly #handshake: NbdHandshake;
  /** This client's part of the budget. */
  readonly #own: NbdBudget;
  readonly #timer: NodeJS.Timeout;
  readonly #startedMs = performance.now();
  readonly #underWay = new Set<UnderWay>();
  #agreement: NbdAgreement = { hasNoZeroes: false, isStructured: false, allocationOf: null };
  #lease: NbdLease | null = null;
  #heardMs = this.#startedMs;
  /** Room taken for a run that is still arriving. */
  #arrivingBytes = 0;
  #awaitsTurn = false;
  #roomsAwaited = 0;
  #isLeaving = false;
  #isEnded = false;
  #socketError: Error | null = null;

  constructor(accepted: Socket, shared: NbdSessionShared, onEnd: () => void) {
    this.#shared = shared;
    this.#onEnd = onEnd;
    this.#own = new NbdBudget(shared.inFlightBytesMaxEach);
    this.#socket = readInto(accepted, this.#inlet, shared.isDirect && shared.tls === null, () => { this.#heardMs = performance.now(); });
    this.#replies = this.#attend(this.#socket);
    const pauseMs = Math.max(10, Math.min(1000, shared.stallLimitMs / 4, shared.handshakeLimitMs / 4));
    this.#timer = setInterval(() => this.#checkLimits(), pauseMs);
    this.#timer.unref();
    this.#handshake = new NbdHandshake(this.#inlet, {
      exports: shared.exports, requestBytesMax: shared.requestBytesMax, isTlsRequired: shared.tls !== null,
      send: (bytes) => { this.#socket.write(bytes); },
      pause: () => { this.#inlet.pause(); },
      resume: () => this.#resume(),
      secure: (reply) => this.#secure(reply),
      broken: (what) => this.#broken(what),
      left: () => this.end(null),
      entered: (exportName, lease, agreement) => {
        this.exportName = exportName;
        this.#lease = lease;
        this.#agreement = agreement;
        this.#expectRequest();
      },
    });
    this.#socket.resume();
  }

  #attend(socket: Socket): NbdReplies {
    socket.on('error', (error) => { this.#socketError = error; });
    socket.on('end', () => this.#left());
    socket.on('close', () => this.#left());
    return new NbdReplies(socket, () => this.#wake());
  }

  /** NBD_OPT_STARTTLS: "all further data MUST be sent and received over TLS". What came in the clear after the option is no TLS, and used for nothing. */
  #secure(reply: Buffer): void {
    const { tls, handshakeLimitMs } = this.#shared;
    assert(tls !== null);
    const inTheClear = this.#inlet;
    inTheClear.pause();
    // When the inlet has looked at all that arrived with the option.
    queueMicrotask(() => {
      if (this.#isEnded) return;
      if (inTheClear.hasHeld) return this.#broken('bytes in the clear after NBD_OPT_STARTTLS');
      inTheClear.stop();
      const accepted = this.#socket;
      for (const event of ['data', 'end', 'drain', 'close']) accepted.removeAllListeners(event);
      accepted.write(reply);
      secureNbd(accepted, tls, handshakeLimitMs).then((socket) => {
        if (this.#isEnded) return void socket.destroy();
        this.#inlet = new NbdInlet(optionBytesMax, nbdRequestBytes);
        this.#socket = readInto(socket, this.#inlet, false, () => { this.#heardMs = performance.now(); });
        this.#replies = this.#attend(socket);
        this.#handshake.goOn(this.#inlet);
      }, (error: unknown) => {
        if (!isFault(error)) throw error;
        this.end(error);
      });
    });
  }

  /** Ends the connection: at once, or when what was said has left. `fault` says why when the client or a handler is to blame. */
  end(fault: Fault | null, isAtOnce = fault !== null): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    clearInterval(this.#timer);
    this.#inlet.stop();
    this.#replies.stop();
    this.#give(this.#arrivingBytes);
    this.#arrivingBytes = 0;
    this.#handshake.end();
    this.#lease?.release();
    if (isAtOnce) {
      this.#socket.destroy();
    } else {
      const timer = setTimeout(() => this.#socket.destroy(), goodbyeMsMax);
      this.#socket.once('close', () => clearTimeout(timer));
      this.#socket.destroySoon();
    }
    if (fault !== null) {
      this.#shared.counts.endedConnections += 1;
      this.#shared.onFault(fault);
    }
    this.#onEnd();
  }

  // Requests

  #expectRequest(): void {
    if (this.#underWay.size >= requestsMax || this.#replies.blockedSinceMs !== null) {
      this.#awaitsTurn = true;
      this.#inlet.pause();
      return;
    }
    this.#inlet.expect(nbdRequestBytes, (head) => this.#accept(head));
  }

  /** Goes on with requests when what held them up is over. */
  #wake(): void {
    if (!this.#awaitsTurn || this.#isEnded || this.#underWay.size >= requestsMax || this.#replies.blockedSinceMs !== null) return;
    this.#awaitsTurn = false;
    this.#expectRequest();
    this.#resume();
  }

  #resume(): void {
    if (this.#awaitsTurn || this.#roomsAwaited > 0) return;
    if (this.#inlet.resume()) this.#socket.resume();
  }

  #accept(head: Buffer): void {
    const request = decodeRequest(head);
    if (request === undefined) return this.#broken('a request without its magic');
    if (request.type === nbdCommand.disc) return this.#leave();
    const underWay: UnderWay = { request, startedMs: performance.now(), parts: 1, error: this.#refuse(request), isPersisted: false };
    this.#underWay.add(underWay);
    if (request.type === nbdCommand.write) {
      // "A server MAY initiate a hard disconnect if a payload length would be large enough to be deemed a denial of service attack."
      if (request.length > Math.max(this.#shared.requestBytesMax, nbdPayloadBytesDefault)) return this.#broken(`a write of ${request.length} bytes`);
      return this.#gather(underWay, 0);
    }
    if (underWay.error === 0) this.#start(underWay);
    this.#finishPart(underWay);
    this.#expectRequest();
  }

  #refuse(request: NbdRequest): number {
    return refuseRequest(request, {
      export: this.#entered(), requestBytesMax: this.#shared.requestBytesMax, hasAllocation: this.#agreement.allocationOf === this.exportName,
    });
  }

  /** Brings a write's payload in, run by run, and hands over each as soon as it is whole. */
  #gather(underWay: UnderWay, doneBytes: number): void {
    const { request } = underWay;
    const leftBytes = request.length - doneBytes;
    if (leftBytes === 0 || underWay.error !== 0) {
      this.#inlet.skip(leftBytes, () => {
        this.#finishPart(underWay);
        this.#expectRequest();
      });
      return;
    }
    const { headroomBytes, buffers, runBytesMax, counts } = this.#shared;
    const runBytes = Math.min(leftBytes, runBytesMax);
    const takenBytes = buffers.takenBytes(runBytes);
    this.#whenRoom(takenBytes, () => {
      this.#arrivingBytes = takenBytes;
      const buffer = buffers.take(runBytes);
      this.#inlet.fill(buffer, headroomBytes, runBytes, () => {
        this.#arrivingBytes = 0;
        counts.writtenBytes += runBytes;
        const { handler } = this.#entered();
        void this.#perform(underWay, takenBytes, () => handler.write!(request.offset + doneBytes, buffer, headroomBytes));
        this.#gather(underWay, doneBytes + runBytes);
      });
    });
  }

  #start(underWay: UnderWay): void {
    const { type, offset, length } = underWay.request;
    const { handler } = this.#entered();
    switch (type) {
      case nbdCommand.writeZeroes: case nbdCommand.trim:
        for (let doneBytes = 0; doneBytes < length; doneBytes += zeroRunBytesMax) {
          const runBytes = Math.min(zeroRunBytesMax, length - doneBytes);
          this.#shared.counts.zeroedBytes += runBytes;
          void this.#perform(underWay, 0, () => handler.zero!(offset + doneBytes, runBytes));
        }
        return;
      case nbdCommand.flush:
        void this.#perform(underWay, 0, async () => handler.flush?.());
        return;
      case nbdCommand.read: return this.#read(underWay);
      case nbdCommand.blockStatus: return this.#readExtents(underWay);
      default: assert.fail(`request type ${type}`);
    }
  }

  #read(underWay: UnderWay): void {
    const { request } = underWay;
    const headBytes = this.#agreement.isStructured ? nbdChunkHeaderBytes + 8 : nbdSimpleReplyBytes;
    const replyBytes = headBytes + request.length;
    // Holds the request until there is room; the inlet rests meanwhile, so requests do not pile up behind it.
    underWay.parts += 1;
    this.#whenRoom(replyBytes, () => {
      const reply = Buffer.allocUnsafeSlow(replyBytes);
      const { handler } = this.#entered();
      void this.#perform(underWay, 0, async () => {
        let isSent = false;
        try {
          await handler.read!(reply.subarray(headBytes), request.offset);
          if (this.#isEnded) return;
          if (this.#agreement.isStructured) {
            encodeChunkHeader(reply, 0, nbdChunkFlagDone, nbdChunk.offsetData, request, 8 + request.length);
            writeUInt64(reply, request.offset, nbdChunkHeaderBytes);
          } else {
            encodeSimpleReply(reply, 0, 0, request);
          }
          this.#shared.counts.readBytes += request.length;
          isSent = true;
          // The room is free when the bytes have left, or never will.
          this.#replies.content(reply, () => this.#give(replyBytes));
        } finally {
          if (!isSent) this.#give(replyBytes);
        }
      });
      this.#finishPart(underWay);
    });
  }

  #readExtents(underWay: UnderWay): void {
    const { request } = underWay;
    const isOne = (request.flags & nbdCommandFlag.reqOne) !== 0;
    const countMax = isOne ? 1 : descriptorsMax;
    const roomBytes = nbdChunkHeaderBytes + 4 + 8 * countMax;
    underWay.parts += 1;
    this.#whenRoom(roomBytes, () => {
      void this.#perform(underWay, 0, async () => {
        let isSent = false;
        try {
          const found = await this.#entered().handler.extents!(request.offset, request.length, countMax);
          if (this.#isEnded) return;
          assert(found.length > 0);
          isSent = true;
          this.#replies.content(this.#encodeExtents(request, found.slice(0, countMax), isOne), () => this.#give(roomBytes));
        } finally {
          if (!isSent) this.#give(roomBytes);
        }
      });
      this.#finishPart(underWay);
    });
  }

  #encodeExtents(request: NbdRequest, shown: readonly NbdAllocation[], isOne: boolean): Buffer {
    const bytes = Buffer.allocUnsafe(nbdChunkHeaderBytes + 4 + 8 * shown.length);
    encodeChunkHeader(bytes, 0, nbdChunkFlagDone, nbdChunk.blockStatus, request, bytes.length - nbdChunkHeaderBytes);
    bytes.writeUInt32BE(nbdAllocationContextId, nbdChunkHeaderBytes);
    shown.forEach(({ lengthBytes, isHole }, i) => {
      assert(lengthBytes > 0);
      const at = nbdChunkHeaderBytes + 4 + 8 * i;
      bytes.writeUInt32BE(Math.min(lengthBytes, isOne ? request.length : nbdLengthMax - (sectorBytes - 1)), at);
      bytes.writeUInt32BE(isHole ? nbdState.hole | nbdState.zero : 0, at + 4);
    });
    return bytes;
  }

  /** Calls `go` when there is room for `bytes`, of this client's and of all; until then nothing is read. */
  #whenRoom(bytes: number, go: () => void): void {
    this.#whenRoomOf(this.#own, bytes, () => this.#whenRoomOf(this.#shared.budget, bytes, go));
  }

  #whenRoomOf(budget: NbdBudget, bytes: number, go: () => void): void {
    const isTaken = budget.take(bytes, () => {
      this.#roomsAwaited -= 1;
      if (this.#isEnded) return budget.give(bytes);
      go();
      this.#resume();
    });
    if (isTaken) return go();
    this.#roomsAwaited += 1;
    this.#inlet.pause();
  }

  #give(bytes: number): void {
    this.#own.give(bytes);
    this.#shared.budget.give(bytes);
  }

  /** One handler call as a part of its request. `takenBytes` is given back to the budget when it is over. */
  async #perform(underWay: UnderWay, takenBytes: number, work: () => Promise<void>): Promise<void> {
    underWay.parts += 1;
    try {
      await work();
    } catch (error) {
      if (underWay.error === 0) underWay.error = errorOf(error);
      if (!this.#isEnded) this.#report(underWay, error);
    }
    if (takenBytes > 0) this.#give(takenBytes);
    this.#finishPart(underWay);
  }

  #finishPart(underWay: UnderWay): void {
    underWay.parts -= 1;
    if (underWay.parts > 0 || this.#isEnded) return;
    const { type, flags } = underWay.request;
    const isChanging = type === nbdCommand.write || type === nbdCommand.writeZeroes || type === nbdCommand.trim;
    const { flush } = this.#entered().handler;
    if (isChanging && (flags & nbdCommandFlag.fua) !== 0 && underWay.error === 0 && flush !== undefined && !underWay.isPersisted) {
      underWay.isPersisted = true;
      void this.#perform(underWay, 0, () => this.#entered().handler.flush!());
      return;
    }
    this.#answer(underWay);
  }

  // Replies

  #answer(underWay: UnderWay): void {
    const { request, error } = underWay;
    this.#underWay.delete(underWay);
    if (error !== 0) this.#shared.counts.failedRequests += 1;
    const isContent = request.type === nbdCommand.read || request.type === nbdCommand.blockStatus;
    if (isContent && this.#agreement.isStructured) {
      // Successes have been sent with their content.
      if (error !== 0) this.#replies.errorChunk(request, error);
    } else if (!isContent || error !== 0) {
      this.#replies.simple(request, error);
    }
    if (this.#isLeaving && this.#underWay.size === 0) {
      this.#replies.flush();
      return this.end(null);
    }
    this.#wake();
  }

  // Ends

  /** NBD_CMD_DISC: "The server MUST handle all outstanding requests", and the client sends nothing more. */
  #leave(): void {
    this.#isLeaving = true;
    this.#inlet.stop();
    if (this.#underWay.size === 0) {
      this.#replies.flush();
      this.end(null);
    }
  }

  /** The client is gone. It may go without a word while it waits for nothing. */
  #left(): void {
    if (this.#isEnded) return;
    const isClean = this.#socketError === null && this.#underWay.size === 0 && !this.#inlet.isMidPiece;
    if (isClean || this.#isLeaving) return this.end(null);
    const why = this.#socketError === null ? '' : `: ${this.#socketError.message}`;
    this.end(new Fault('NBD_CLOSED', `the NBD client of ${this.#name()} went away with ${this.#underWay.size} requests under way${why}`, this.#facts(), this.#socketError ?? undefined));
  }

  #broken(what: string): void {
    this.end(new Fault('NBD_PROTOCOL', `an NBD client of ${this.#name()} broke the protocol: ${what}`, this.#facts()));
  }

  #report({ request }: UnderWay, error: unknown): void {
    const name = nbdErrorName(errorOf(error));
    this.#shared.onFault(new Fault('NBD_IO', `${nbdCommandName(request.type)} at ${request.offset} of ${this.#name()} was answered with ${name}`, {
      ...this.#facts(), command: nbdCommandName(request.type), offset: request.offset, length: request.length, errno: name,
    }, error));
  }

  #checkLimits(): void {
    const nowMs = performance.now();
    const { stallLimitMs, handshakeLimitMs } = this.#shared;
    if (this.#lease === null) {
      if (nowMs - this.#startedMs > handshakeLimitMs) this.#broken(`no export chosen within ${handshakeLimitMs} ms`);
      return;
    }
    const [oldest] = this.#underWay;
    if (oldest !== undefined && nowMs - oldest.startedMs > stallLimitMs) {
      return this.end(new Fault('NBD_CLOSED', `${nbdCommandName(oldest.request.type)} of ${this.#name()} was not done within ${stallLimitMs} ms; its connection is closed`, { ...this.#facts(), stallLimitMs }));
    }
    const { blockedSinceMs } = this.#replies;
    if (blockedSinceMs !== null && nowMs - blockedSinceMs > stallLimitMs) return this.#broken(`it takes no replies for ${stallLimitMs} ms`);
    if (!this.#inlet.isPaused && this.#inlet.isMidPiece && nowMs - this.#heardMs > stallLimitMs) this.#broken(`half a request and then nothing for ${stallLimitMs} ms`);
  }

  #entered(): NbdExport {
    assert(this.#lease !== null);
    return this.#lease.export;
  }

  #name(): string {
    return this.exportName === null ? 'no export yet' : `export "${this.exportName}"`;
  }

  #facts(): Readonly<Record<string, unknown>> {
    return { exportName: this.exportName, underWay: this.#underWay.size };
  }
}
