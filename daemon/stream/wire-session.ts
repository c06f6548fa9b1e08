/**
 * One authenticated connection to a target, as the supervisors see it (session.ts): requests and their replies, records on
 * their way out, acknowledgements on their way in, heartbeat. How it came to stand is connect-target.ts. Invariant: it ends
 * once, with one fault, and from then on every promise that it gave rejects with that fault.
 */
import type { Socket } from 'node:net';
import type { RawData, WebSocket } from 'ws';
import type { Clock } from '../../host/clock.ts';
import { Fault, faultTable, type FaultCode } from '../../journal/fault.ts';
import { controlBytesMax } from '../../journal/limits.ts';
import type { RecordView } from '../../journal/record.ts';
import { decodeMessage, targetMessage, type GroupAnnouncement, type GroupHolding, type HandoverAnswer, type SourceMessage, type TargetMessage } from '../../journal/wire.ts';
import { Outbox } from './outbox.ts';
import type { OutboxGate } from './throttle.ts';
import { PendingReplies, type ReplyKind } from './pending-replies.ts';
import type { SessionListener, TargetSession } from './session.ts';

export interface SessionLimits {
  /** Between two pings, ms. */
  readonly heartbeatMs: number;
  /** Without a single byte from the target, ms: the connection is taken for dead. */
  readonly silenceMs: number;
  /** How long a reply may take, ms. `seeded` waits for a whole replica to be synced, `forgotten` for its removal. */
  readonly replyMs: Readonly<Record<ReplyKind, number>>;
}

export const sessionLimits: SessionLimits = {
  heartbeatMs: 5_000,
  silenceMs: 20_000,
  replyMs: { group: 120_000, differs: 300_000, seeded: 1_800_000, forgotten: 600_000 },
};

/** About the certificates of both sides (PROTOCOL.md, "Rotation"). */
export type CertificateMessage = Extract<TargetMessage, { readonly t: 'renewed' | 'renewal' }>;
export type CertificateWord = Extract<SourceMessage, { readonly t: 'renew' | 'retire' | 'renewalNoted' }>;

/** What both sides have said and shown before the session stood. */
export interface Handshake {
  readonly sourceNonce: string;
  readonly targetNonce: string;
  /** Fingerprint of the target's certificate. */
  readonly shown: string;
  /** Of this source's, when the target has it pinned. */
  readonly paired: string | null;
}

/** What connect-target.ts hands over when the target has proved itself. */
export interface SessionParts {
  readonly ws: WebSocket;
  readonly socket: Socket;
  readonly creditBytes: number;
  readonly handshake: Handshake;
  readonly clock: Clock;
  readonly limits: SessionLimits;
  /** The source's rate limits; absent: none. */
  readonly gate?: OutboxGate | null | undefined;
}

export class WireSession implements TargetSession {
  readonly closed: Promise<Fault>;
  readonly handshake: Handshake;
  readonly #p: SessionParts;
  readonly #outbox: Outbox;
  readonly #replies = new PendingReplies();
  readonly #listeners = new Map<string, Set<SessionListener>>();
  readonly #over = new AbortController();
  #fault: Fault | null = null;
  #closedResolve: (fault: Fault) => void = () => undefined;
  #nextCompare = 0;
  #onCertificate: ((message: CertificateMessage) => void) | null = null;
  /** What came before anybody asked; a sound target says it once. */
  #certificateSaid: CertificateMessage | null = null;

  constructor(parts: SessionParts) {
    this.#p = parts;
    this.handshake = parts.handshake;
    this.closed = new Promise((resolve) => { this.#closedResolve = resolve; });
    const { ws } = parts;
    // The callback comes when the kernel has the bytes, also when sending failed: `close` then follows.
    this.#outbox = new Outbox({ write: (bytes, onWritten) => ws.send(bytes, onWritten) }, parts.creditBytes, parts.gate);
    ws.on('message', (data, isBinary) => this.#onMessage(data, isBinary));
    ws.on('error', (error) => this.#end(faultOfSocket(error)));
    ws.once('close', () => this.#end(new Fault('TARGET_UNREACHABLE', 'the connection to the target was lost')));
    void this.#watch();
  }

  get sentBytes(): number {
    return this.#outbox.sentBytes;
  }

  get queue(): { readonly waitingRecords: number; readonly unwrittenBytes: number } {
    return this.#outbox.queue;
  }

  get isOver(): boolean {
    return this.#fault !== null;
  }

  async announce(announcement: GroupAnnouncement): Promise<GroupHolding> {
    const { t: _, ...holding } = await this.#ask({ t: 'announce', ...announcement }, announcement.group, 'group');
    return holding;
  }

  async seedBegin(groupId: string, deltaId: string): Promise<GroupHolding> {
    const { t: _, ...holding } = await this.#ask({ t: 'seedBegin', group: groupId, deltaId }, groupId, 'group');
    return holding;
  }

  async seedEnd(groupId: string): Promise<void> {
    await this.#ask({ t: 'seedEnd', group: groupId }, groupId, 'seeded');
  }

  async forget(groupId: string): Promise<void> {
    await this.#ask({ t: 'forget', group: groupId }, groupId, 'forgotten');
  }

  async handOver(groupId: string, term: number, sourceId: string): Promise<void> {
    await this.#ask({ t: 'handedOver', group: groupId, term, sourceId }, groupId, 'group');
  }

  /** What the target says about certificates, to one who listens. */
  onCertificate(listener: (message: CertificateMessage) => void): void {
    this.#onCertificate = listener;
    const said = this.#certificateSaid;
    this.#certificateSaid = null;
    if (said !== null) listener(said);
  }

  answer(answer: HandoverAnswer | CertificateWord): void {
    if (this.#fault !== null) return;
    this.#outbox.flush();
    this.#p.ws.send(JSON.stringify(answer), () => undefined);
  }

  async compare(request: Parameters<TargetSession['compare']>[0]): Promise<string> {
    const { groupId, disk, offset, length, blockBytes, hashes } = request;
    const id = this.#nextCompare;
    this.#nextCompare += 1;
    const { bits } = await this.#ask({ t: 'compare', group: groupId, id, disk, offset, length, blockBytes, hashes: hashes.toString('base64') }, groupId, 'differs', id);
    const blockCount = Math.ceil(length / blockBytes);
    if (bits.length !== blockCount) {
      this.#end(new Fault('WIRE_GARBAGE', `the target answered for ${bits.length} blocks, asked about ${blockCount}`));
      throw this.#fault!;
    }
    return bits;
  }

  listen(groupId: string, listener: SessionListener): () => void {
    const listeners = this.#listeners.get(groupId) ?? new Set();
    this.#listeners.set(groupId, listeners);
    listeners.add(listener);
    const fault = this.#fault;
    if (fault !== null) queueMicrotask(() => listener.onClosed?.(fault));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#listeners.get(groupId) === listeners) this.#listeners.delete(groupId);
    };
  }

  send(record: RecordView, onWritten?: () => void, signal?: AbortSignal, isPass?: boolean): Promise<void> {
    return this.#outbox.send(record, onWritten, signal, isPass);
  }

  close(): void {
    this.#end(new Fault('TARGET_UNREACHABLE', 'the connection was closed here'));
  }

  #ask<K extends ReplyKind>(message: SourceMessage, groupId: string, kind: K, id: number | null = null): Promise<Extract<TargetMessage, { readonly t: K }>> {
    if (this.#fault !== null) return Promise.reject(this.#fault);
    const { clock, limits, ws } = this.#p;
    const reply = this.#replies.wait(groupId, kind, id, clock.monotonicMs() + limits.replyMs[kind]);
    this.#outbox.flush();
    ws.send(JSON.stringify(message), () => undefined);
    return reply;
  }

  #onMessage(data: RawData, isBinary: boolean): void {
    if (this.#fault !== null) return;
    const bytes = data as Buffer;
    const message = isBinary || bytes.length > controlBytesMax ? undefined : decodeMessage(targetMessage, bytes.toString('utf8'));
    if (message === undefined) return this.#end(new Fault('WIRE_GARBAGE', 'the target sent a message that is none of this protocol'));
    switch (message.t) {
      case 'credit': return this.#outbox.grant(message.bytes);
      case 'ack': {
        const { term, point, part } = message;
        return this.#tell(message.group, (listener) => listener.onAck?.({ term, point, ...(part === undefined ? {} : { part }) }));
      }
      case 'applied': return this.#tell(message.group, (listener) => listener.onApplied?.({ term: message.term, point: message.point }));
      case 'group': case 'seeded': case 'forgotten': case 'differs':
        if (!this.#replies.answer(message)) this.#end(new Fault('WIRE_GARBAGE', `the target answered ${message.t} to nothing that was asked`));
        return;
      case 'held':
        this.#replies.stop(message.group, new Fault(knownCode(message.code), `the target holds the group: ${message.message}`, { group: message.group }));
        return this.#tell(message.group, (listener) => listener.onHeld?.(message.code, message.message));
      case 'released': return this.#tell(message.group, (listener) => listener.onReleased?.());
      case 'refused': {
        const fault = refusal(message);
        if (message.group === undefined) return this.#end(fault);
        this.#replies.stop(message.group, fault);
        return this.#tell(message.group, (listener) => listener.onRefused?.(fault));
      }
      case 'yield': case 'takeOver': case 'recall': return this.#tell(message.group, (listener) => listener.onOrder?.(message));
      case 'renewed': case 'renewal':
        if (this.#onCertificate === null) this.#certificateSaid = message;
        else this.#onCertificate(message);
        return;
      case 'challenge': case 'welcome': return this.#end(new Fault('WIRE_GARBAGE', `the target sent ${message.t} after the handshake`));
      default: return message satisfies never;
    }
  }

  #tell(groupId: string, call: (listener: SessionListener) => void): void {
    for (const listener of [...(this.#listeners.get(groupId) ?? [])]) call(listener);
  }

  async #watch(): Promise<void> {
    const { ws, socket, clock, limits } = this.#p;
    let readBytes = socket.bytesRead;
    let readAtMs = clock.monotonicMs();
    for (;;) {
      try {
        await clock.delay(limits.heartbeatMs, this.#over.signal);
      } catch (error) {
        if (this.#over.signal.aborted) return;
        throw error;
      }
      const nowMs = clock.monotonicMs();
      if (socket.bytesRead !== readBytes) {
        readBytes = socket.bytesRead;
        readAtMs = nowMs;
      }
      const overdue = this.#replies.overdue(nowMs);
      if (nowMs - readAtMs > limits.silenceMs) return this.#end(new Fault('WIRE_SILENT', `nothing heard from the target for ${Math.round(nowMs - readAtMs)} ms`));
      if (overdue !== null) return this.#end(new Fault('WIRE_SILENT', `the target did not answer within ${limits.replyMs[overdue]} ms (${overdue})`));
      if (ws.readyState === ws.OPEN) ws.ping();
    }
  }

  #end(fault: Fault): void {
    if (this.#fault !== null) return;
    this.#fault = fault;
    this.#over.abort(fault);
    this.#p.ws.terminate();
    this.#outbox.fail(fault);
    this.#replies.fail(fault);
    const listeners = [...this.#listeners.values()].flatMap((some) => [...some]);
    this.#listeners.clear();
    for (const listener of listeners) listener.onClosed?.(fault);
    this.#closedResolve(fault);
  }
}

/** A newer target may know codes that this source does not. */
export function knownCode(code: string): FaultCode {
  return Object.hasOwn(faultTable, code) ? code as FaultCode : 'WIRE_VERSION';
}

export function refusal(message: Extract<TargetMessage, { readonly t: 'refused' }>): Fault {
  const code = knownCode(message.code);
  return new Fault(code, code === message.code ? message.message : `${message.code}: ${message.message}`, {
    ...(message.group === undefined ? {} : { group: message.group }), ...(message.term === undefined ? {} : { term: message.term }),
  });
}

/** What an error of the socket, of TLS, of HTTP or of the WebSocket means. */
export function faultOfSocket(error: Error): Fault {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  if (code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH' || code === 'WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH') return new Fault('WIRE_OVERSIZED', 'the target sent a frame larger than the limit', {}, error);
  if (/^(WS_ERR_|ERR_SSL_|ERR_TLS_|HPE_|EPROTO)/.test(code)) return new Fault('WIRE_GARBAGE', `what answers at the target's address is no Afterimage target: ${error.message}`, { error: code }, error);
  return new Fault('TARGET_UNREACHABLE', error.message, { error: code }, error);
}
