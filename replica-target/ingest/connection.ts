/**
 * One source's connection at the target: handshake, heartbeat, credit, and the way from messages to the lanes of the groups
 * they concern. What a message means to a group is group-lane.ts; what the handshake decides is connection-plan.ts.
 * Invariants: before the proof, a peer gets nothing but a challenge or a refusal and costs at most `greetingBytesMax` of
 * memory; after it, queues are bounded by the credit and by `controlQueuedBytesMax`; no input throws out of here.
 */
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import type { RawData, WebSocket } from 'ws';
import type { AuditNoter } from '../../host/audit-trail.ts';
import type { Clock } from '../../host/clock.ts';
import type { Random } from '../../host/random.ts';
import { isFault, type FaultCode } from '../../journal/fault.ts';
import { checkRenewal, expiryOf, fingerprintOf, nonceBytes, signRenewal, type OwnCertificate } from '../../journal/identity.ts';
import { controlBytesMax } from '../../journal/limits.ts';
import { readRecord } from '../../journal/record.ts';
import { decodeMessage, sourceMessage, type SourceMessage, type TargetMessage } from '../../journal/wire.ts';
import type { ConnectedSource } from '../report.ts';
import type { GroupRegistry } from '../store/store.ts';
import { planHandshake, type HandshakeFactsOfTarget, type HandshakeState, type HandshakeStep } from './connection-plan.ts';
import { CreditAccount } from './credit-account.ts';
import type { SourceVolumes } from './source-volumes.ts';
import type { Peers } from './peers.ts';
import type { SourceOrders } from './source-orders.ts';
import { GroupLane, pausedFor, type GroupMessage, type LanePort } from './group-lane.ts';

/** Bytes that a peer may send before it has proved itself: the upgrade, hello and auth are well below 4 KiB. */
export const greetingBytesMax = 64 * 1024;
/** Text messages of one connection that wait for their group's store. */
const controlQueuedBytesMax = 8 * 1024 * 1024;
/** Replies that the peer does not read. */
const unsentBytesMax = 16 * 1024 * 1024;
const groupsMax = 1024;
/** Messages about certificates of one connection: a rotation takes three, and each is a write. */
const renewalsMax = 64;
/** Time for a peer to read why it is refused. */
const farewellMs = 1_000;

export interface ConnectionLimits {
  /** Between two pings, ms. */
  readonly heartbeatMs: number;
  /** Without a single byte, ms: the connection is taken for dead. */
  readonly silenceMs: number;
}

export interface ConnectionOptions {
  readonly ws: WebSocket;
  readonly socket: Socket;
  /** The peer's address, for people. */
  readonly peer: string;
  readonly facts: Omit<HandshakeFactsOfTarget, 'nonce' | 'source' | 'keys'>;
  readonly peers: Peers;
  /** The certificate that this target is going to show; absent: it never changes. */
  readonly nextCertificate?: () => OwnCertificate | null;
  /** A source has noted that. */
  readonly onNoted?: (sourceId: string) => void;
  readonly registry: GroupRegistry;
  readonly orders: SourceOrders;
  readonly audit?: AuditNoter | undefined;
  readonly volumes?: SourceVolumes | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly limits: ConnectionLimits;
  /** Called when the source has proved itself. Resolves when an earlier connection of it has let go of its groups. */
  readonly onOpen: (connection: Connection, sourceId: string) => Promise<void>;
  readonly onFault: (code: FaultCode, peer: string, message: string, facts: Readonly<Record<string, unknown>>) => void;
}

export class Connection {
  /** Resolves when the connection is over and its groups are let go of. */
  readonly finished: Promise<void>;
  readonly #o: ConnectionOptions;
  readonly #nonce: string;
  readonly #over = new AbortController();
  readonly #credit = new CreditAccount();
  readonly #lanes = new Map<string, GroupLane>();
  readonly #port: LanePort;
  #handshake: HandshakeState = { phase: 'hello' };
  #ready: Promise<void> = Promise.resolve();
  #isClosing = false;
  #sinceMs = 0;
  #controlQueuedBytes = 0;
  #renewals = 0;
  /** One after the other. Never rejects. */
  #renewing: Promise<void> = Promise.resolve();

  constructor(options: ConnectionOptions) {
    this.#o = options;
    this.#nonce = options.random.bytes(nonceBytes).toString('hex');
    this.#port = {
      send: (message) => this.#send(message),
      consumed: (bytes) => this.#consumed(bytes),
      controlDone: (bytes) => { this.#controlQueuedBytes -= bytes; },
      count: (fault) => options.onFault(fault.code, options.peer, fault.message, fault.facts),
      fail: (fault) => this.fail(fault.code, fault.message, fault.facts),
    };
    const { ws } = options;
    ws.on('message', (data, isBinary) => this.#onMessage(data, isBinary));
    ws.on('error', (error) => this.#onError(error));
    this.finished = new Promise((resolve) => {
      ws.once('close', () => { void this.#finish().then(resolve); });
    });
    void this.#watch();
  }

  /** Null until the source has proved itself. */
  report(): ConnectedSource | null {
    if (this.#handshake.phase !== 'open') return null;
    const { sourceId, sourceName } = this.#handshake;
    return { sourceId, name: sourceName, address: this.#o.peer, sinceMs: this.#sinceMs, receivedBytes: this.#o.socket.bytesRead };
  }

  /** Refuses the peer, tells it why, and ends the connection. */
  fail(code: FaultCode, message: string, facts: Readonly<Record<string, unknown>> = {}): void {
    if (this.#isClosing) return;
    this.#o.onFault(code, this.#o.peer, message, facts);
    this.#send({ t: 'refused', code, message: message.slice(0, 2000) });
    this.#isClosing = true;
    this.#o.ws.close(1008);
    void pausedFor(this.#o.clock, farewellMs, this.#over.signal).then(() => this.#o.ws.terminate());
  }

  /** Ends it at once. */
  terminate(): void {
    this.#isClosing = true;
    this.#o.ws.terminate();
  }

  #onError(error: Error): void {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    // ws closes after these by itself; everything else is the network's end, which `close` reports.
    if (code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH' || code === 'WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH') this.fail('WIRE_OVERSIZED', `a frame larger than the limit: ${error.message}`);
    else if (code.startsWith('WS_ERR_')) this.fail('WIRE_GARBAGE', `no valid WebSocket frame: ${error.message}`);
    else this.#o.log.debug({ peer: this.#o.peer, code }, 'connection failed');
  }

  #onMessage(data: RawData, isBinary: boolean): void {
    if (this.#isClosing) return;
    // binaryType is ws's default, so that messages are Buffers.
    const bytes = data as Buffer;
    if (isBinary) this.#onRecords(bytes);
    else this.#onText(bytes);
  }

  #onText(bytes: Buffer): void {
    if (bytes.length > controlBytesMax) return this.fail('WIRE_OVERSIZED', `a control message of ${bytes.length} bytes`);
    const message = decodeMessage(sourceMessage, bytes.toString('utf8'));
    if (message === undefined) return this.fail('WIRE_GARBAGE', 'a text message that is none of this protocol');
    if (this.#handshake.phase !== 'open') return this.#onHandshake(message);
    switch (message.t) {
      case 'hello': case 'auth': return this.fail('WIRE_GARBAGE', `${message.t} after the handshake`);
      case 'renew': case 'retire': case 'renewalNoted': return this.#onRenewal(message, this.#handshake);
      default: return this.#onGroupMessage(message, bytes.length);
    }
  }

  #onHandshake(message: SourceMessage): void {
    const { facts, peers } = this.#o;
    const step = planHandshake(this.#handshake, message, { ...facts, nonce: this.#nonce, source: peers.sourceOf(facts.shown), keys: peers.keys() });
    switch (step.step) {
      case 'refuse': return this.fail(step.code, step.message);
      case 'reply': return this.#enter(step.state, step.reply);
      case 'pair':
        this.#handshake = { phase: 'pairing' };
        void this.#pair(step);
        return;
      default: return step satisfies never;
    }
  }

  /** The welcome says that the source is paired: it comes when that is durable. */
  async #pair({ key, claim, open, reply }: Extract<HandshakeStep, { readonly step: 'pair' }>): Promise<void> {
    const { peers, log, peer } = this.#o;
    try {
      const source = await peers.pair(key, claim);
      const isPinned = claim.certificate !== null;
      log.warn({ source: source.name, sourceId: source.sourceId, fingerprint: claim.certificate?.fingerprint, peer }, isPinned ? `${source.name} is paired` : `${source.name}, of an earlier release, is let in by its secret`);
      if (!this.#isClosing) this.#enter({ ...open, sourceName: source.name }, reply);
    } catch (error) {
      if (isFault(error)) return this.fail(error.code, error.message);
      log.error({ err: error }, 'a pairing could not be made durable');
      this.fail('INTERNAL', 'the target could not make the pairing durable; its log says more');
    }
  }

  #enter(state: HandshakeState, reply: TargetMessage): void {
    this.#handshake = state;
    if (state.phase === 'open') {
      this.#sinceMs = this.#o.clock.nowMs();
      this.#ready = this.#o.onOpen(this, state.sourceId);
      const { facts: { shown }, peers, peer } = this.#o;
      if (shown !== null) peers.seen({ sourceId: state.sourceId, name: state.sourceName }, shown, peer);
    }
    this.#send(reply);
    if (state.phase === 'open') this.announceRenewal();
  }

  /** Null until the source has proved itself. */
  get sourceId(): string | null {
    return this.#handshake.phase === 'open' ? this.#handshake.sourceId : null;
  }

  /** Whether it showed a certificate in its TLS handshake. */
  get hasCertificate(): boolean { return this.#o.facts.shown !== null; }

  /** Tells the source which certificate this target is going to show, if it is. One that noted it already says so once more. */
  announceRenewal(): void {
    const next = this.#o.nextCertificate?.() ?? null;
    if (next === null || this.#handshake.phase !== 'open' || !this.hasCertificate) return;
    this.#send({ t: 'renewal', ...signRenewal(next, { role: 'target', sourceNonce: this.#handshake.sourceNonce, targetNonce: this.#nonce }) });
  }

  #onRenewal(message: Extract<SourceMessage, { t: 'renew' | 'retire' | 'renewalNoted' }>, open: Extract<HandshakeState, { phase: 'open' }>): void {
    this.#renewals += 1;
    if (this.#renewals > renewalsMax) return this.fail('WIRE_OVERSIZED', `more than ${renewalsMax} messages about certificates on one connection`);
    if (!this.hasCertificate) return this.fail('WIRE_GARBAGE', `${message.t} of a source without a certificate`);
    this.#renewing = this.#renewing.then(() => this.#renew(message, open));
  }

  async #renew(message: Extract<SourceMessage, { t: 'renew' | 'retire' | 'renewalNoted' }>, { sourceId, sourceNonce }: Extract<HandshakeState, { phase: 'open' }>): Promise<void> {
    const { peers, log, onNoted } = this.#o;
    try {
      switch (message.t) {
        case 'renew': {
          const der = checkRenewal(message, { role: 'source', sourceNonce, targetNonce: this.#nonce });
          return this.#send({ t: 'renewed', ...await this.#pin(sourceId, der) });
        }
        case 'retire': return await peers.retire(sourceId, message.fingerprint);
        case 'renewalNoted':
          await peers.noted(sourceId, message.fingerprint);
          return onNoted?.(sourceId);
        default: return message satisfies never;
      }
    } catch (error) {
      if (isFault(error)) return this.fail(error.code, error.message);
      log.error({ err: error }, 'a change of a certificate could not be made durable');
      this.fail('INTERNAL', 'the target could not make the change of a certificate durable; its log says more');
    }
  }

  /** A certificate that cannot be pinned is no reason to end a connection by one that is. */
  async #pin(sourceId: string, der: Buffer): Promise<Omit<Extract<TargetMessage, { t: 'renewed' }>, 't'>> {
    const fingerprint = fingerprintOf(der);
    try {
      await this.#o.peers.renew(sourceId, { fingerprint, expiresAtMs: expiryOf(der) }, der);
      return { fingerprint };
    } catch (error) {
      if (!isFault(error, 'PAIRING_FOREIGN')) throw error;
      this.#o.onFault(error.code, this.#o.peer, error.message, {});
      return { fingerprint, code: error.code, message: error.message };
    }
  }

  #onGroupMessage(message: GroupMessage, bytes: number): void {
    this.#controlQueuedBytes += bytes;
    if (this.#controlQueuedBytes > controlQueuedBytesMax) return this.fail('WIRE_OVERSIZED', 'more requests than the target answers');
    let lane = this.#lanes.get(message.group);
    if (lane === undefined) {
      if (this.#lanes.size >= groupsMax) return this.fail('WIRE_OVERSIZED', `more than ${groupsMax} groups on one connection`);
      lane = this.#openLane(message.group);
    }
    lane.message(message, bytes);
  }

  #openLane(groupId: string): GroupLane {
    const { registry, orders, audit, volumes, clock, log } = this.#o;
    if (this.#handshake.phase !== 'open') throw new Error('a lane needs an open connection');
    const lane = new GroupLane({ groupId, sourceId: this.#handshake.sourceId, registry, orders, audit, volume: volumes?.of(this.#handshake.sourceId, this.#handshake.sourceName), port: this.#port, clock, log, ready: this.#ready, signal: this.#over.signal });
    this.#lanes.set(groupId, lane);
    return lane;
  }

  /** One or more whole records. They stay views of the message: nothing is copied. */
  #onRecords(bytes: Buffer): void {
    if (this.#handshake.phase !== 'open') return this.fail('WIRE_GARBAGE', 'records before the handshake');
    if (!this.#credit.arrive(bytes.length)) return this.fail('WIRE_OVERSIZED', `a message of ${bytes.length} bytes exceeds the credit`);
    for (let at = 0; at < bytes.length;) {
      const reading = readRecord(bytes, at);
      if (!reading.ok) return this.fail('RECORD_CORRUPT', `at byte ${at} of a message of ${bytes.length}: ${reading.detail}`, { fault: reading.fault });
      const { record, next } = reading;
      const lane = this.#lanes.get(record.header.groupId);
      if (lane === undefined) return this.fail('RECORD_MISPLACED', `a record of group ${record.header.groupId}, which was not announced on this connection`, { group: record.header.groupId });
      lane.record(record);
      at = next;
    }
  }

  #consumed(bytes: number): void {
    const granted = this.#credit.consume(bytes);
    if (granted > 0) this.#send({ t: 'credit', bytes: granted });
  }

  #send(message: TargetMessage): void {
    const { ws } = this.#o;
    if (this.#isClosing || ws.readyState !== ws.OPEN) return;
    if (ws.bufferedAmount > unsentBytesMax) {
      this.#o.onFault('WIRE_SILENT', this.#o.peer, 'the source does not read what it is sent', {});
      return this.terminate();
    }
    // A failing send is followed by `close`.
    ws.send(JSON.stringify(message), () => undefined);
  }

  /** Pings, and takes a peer without a single byte for dead. Bytes, not messages: a large one takes its time on a slow link. */
  async #watch(): Promise<void> {
    const { ws, socket, clock, limits } = this.#o;
    let readBytes = socket.bytesRead;
    let readAtMs = clock.monotonicMs();
    while (await pausedFor(clock, limits.heartbeatMs, this.#over.signal)) {
      if (socket.bytesRead !== readBytes) {
        readBytes = socket.bytesRead;
        readAtMs = clock.monotonicMs();
      } else if (clock.monotonicMs() - readAtMs > limits.silenceMs) {
        this.#o.onFault('WIRE_SILENT', this.#o.peer, `nothing heard for ${Math.round(clock.monotonicMs() - readAtMs)} ms`, {});
        return this.terminate();
      }
      if (ws.readyState === ws.OPEN) ws.ping();
    }
  }

  async #finish(): Promise<void> {
    this.#isClosing = true;
    this.#over.abort(new Error('the connection is over'));
    // Also without groups of its own: whoever waits for this connection waits for those before it.
    await this.#ready;
    await this.#renewing;
    await Promise.all([...this.#lanes.values()].map((lane) => lane.finish()));
  }
}
