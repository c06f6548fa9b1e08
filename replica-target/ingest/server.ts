/**
 * The target's door: TLS, the WebSocket upgrade, and the set of connections (PROTOCOL.md). What a connection says is
 * connection.ts. Invariant: at most one connection of a source reaches the store at a time; a newer one ends the older, and
 * waits until the older one's groups are finished and cut.
 */
import { createServer as createHttpServer, type IncomingMessage, type Server } from 'node:http';
import { createServer as createHttpsServer, Server as TlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { Logger } from 'pino';
import { WebSocketServer } from 'ws';
import type { AuditNoter } from '../../host/audit-trail.ts';
import type { Clock } from '../../host/clock.ts';
import type { Random } from '../../host/random.ts';
import { fingerprintOf, type OwnCertificate } from '../../journal/identity.ts';
import { frameBytesMax } from '../../journal/limits.ts';
import { protocolPath, refusalHeader } from '../../journal/wire.ts';
import type { ConnectedSource } from '../report.ts';
import type { GroupRegistry } from '../store/store.ts';
import { Admission, peerOf } from './admission.ts';
import { Connection, greetingBytesMax, type ConnectionLimits } from './connection.ts';
import type { Peers, ShownCertificate } from './peers.ts';
import { Refusals } from './refusals.ts';
import type { SourceVolumes } from './source-volumes.ts';
import { SourceOrders } from './source-orders.ts';

/** AES-128 is the cheapest that TLS 1.3 has where the processor knows AES; the others are for peers without it. */
export const tlsCiphers = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384';

export interface IngestLimits extends ConnectionLimits {
  /** From the first byte to the proof, ms. */
  readonly handshakeMs: number;
  readonly unprovenMax: number;
  readonly connectionsMax: number;
}

export const ingestLimits: IngestLimits = { heartbeatMs: 5_000, silenceMs: 20_000, handshakeMs: 10_000, unprovenMax: 32, connectionsMax: 256 };

export interface IngestOptions {
  readonly host: string;
  readonly port: number;
  /** PEM. */
  readonly key: string;
  readonly cert: string;
  readonly targetId: string;
  readonly targetName: string;
  readonly registry: GroupRegistry;
  /** What is asked of the sources of groups; absent: nothing ever is. */
  readonly orders?: SourceOrders;
  /** What sources ask of a target beyond bringing data is noted here. */
  readonly audit?: AuditNoter | undefined;
  /** What sources may bring; absent: as much as they like. */
  readonly volumes?: SourceVolumes | undefined;
  /** Who may come in; asked at each connection. */
  readonly peers: Peers;
  /** PEM: a source's certificate must have been issued by one of these, too. Absent: it stands for itself. */
  readonly ca?: string;
  /** See connection.ts. */
  readonly nextCertificate?: () => OwnCertificate | null;
  readonly onNoted?: (sourceId: string) => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly limits?: Partial<IngestLimits>;
  /** False only for the benchmark. */
  readonly tls?: boolean;
}

export interface Ingest {
  readonly address: { readonly host: string; readonly port: number };
  sources(): ConnectedSource[];
  /** Refusals since start, by code. */
  refusals(): Record<string, number>;
  /** Ends the connections of a source whose pairing was revoked; resolves when nothing more of it is taken. */
  expel(sourceId: string): Promise<void>;
  /** The same for every source that showed no certificate. */
  expelUncertified(): Promise<void>;
  /** Tells every source that is connected which certificate comes next. */
  announceRenewal(): void;
  /** New connections are shown this certificate; those that stand go on. */
  show(certificate: OwnCertificate): void;
  /** Ends all connections, finishes what has arrived, stops listening. */
  close(): Promise<void>;
}

/** Rejects with the system's error when the address cannot be listened on. */
export async function listenIngest(options: IngestOptions): Promise<Ingest> {
  const door = new Door(options, { ...ingestLimits, ...options.limits });
  await door.listen();
  return door;
}

class Door implements Ingest {
  readonly #o: IngestOptions;
  readonly #limits: IngestLimits;
  #fingerprint: string;
  readonly #orders: SourceOrders;
  readonly #refusals: Refusals;
  readonly #admission: Admission;
  readonly #server: Server;
  readonly #upgrades = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: frameBytesMax, skipUTF8Validation: true });
  readonly #connections = new Set<Connection>();
  /** The newest connection of each source, until its groups are let go of. */
  readonly #bySource = new Map<string, Connection>();
  #address: AddressInfo | null = null;

  constructor(options: IngestOptions, limits: IngestLimits) {
    this.#o = options;
    this.#limits = limits;
    this.#fingerprint = fingerprintOf(options.cert);
    this.#orders = options.orders ?? new SourceOrders(options.clock);
    this.#refusals = new Refusals(options.clock, options.log);
    this.#admission = new Admission(limits.unprovenMax, limits.handshakeMs, (peer, why) => this.#refusals.count('WIRE_SILENT', peer, `a connection was ended: ${why}`));
    const http = { maxHeaderSize: 8 * 1024, headersTimeout: limits.handshakeMs, requestTimeout: limits.handshakeMs, keepAlive: false };
    this.#server = options.tls === false
      ? createHttpServer(http)
      // Whose certificate it is, is found in #onUpgrade: pinned ones have no issuer that TLS could know.
      : createHttpsServer({ ...http, ...this.#tls(options), requestCert: true, rejectUnauthorized: false, handshakeTimeout: limits.handshakeMs });
    this.#attach();
  }

  get address(): { readonly host: string; readonly port: number } {
    return { host: this.#address?.address ?? this.#o.host, port: this.#address?.port ?? this.#o.port };
  }

  async listen(): Promise<void> {
    const { host, port } = this.#o;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
    this.#server.on('error', (error) => this.#o.log.error({ err: error }, 'the listening socket failed'));
    this.#address = this.#server.address() as AddressInfo;
  }

  sources(): ConnectedSource[] {
    return [...this.#connections].map((connection) => connection.report()).filter((report) => report !== null);
  }

  refusals(): Record<string, number> {
    return this.#refusals.report();
  }

  expel(sourceId: string): Promise<void> {
    return this.#expel((connection) => connection.sourceId === sourceId);
  }

  expelUncertified(): Promise<void> {
    return this.#expel((connection) => connection.sourceId !== null && !connection.hasCertificate);
  }

  async #expel(isMeant: (connection: Connection) => boolean): Promise<void> {
    const theirs = [...this.#connections].filter(isMeant);
    for (const connection of theirs) connection.fail('PAIRING_REVOKED', 'the pairing of this source was revoked');
    await Promise.all(theirs.map((connection) => connection.finished));
  }

  announceRenewal(): void {
    for (const connection of this.#connections) connection.announceRenewal();
  }

  show(certificate: OwnCertificate): void {
    if (this.#server instanceof TlsServer) this.#server.setSecureContext(this.#tls({ ...this.#o, ...certificate }));
    this.#fingerprint = fingerprintOf(certificate.cert);
  }

  /** Without an authority only its own certificate is named to peers: the default is a list of some hundred, at every handshake. */
  #tls({ key, cert, ca = cert }: Pick<IngestOptions, 'key' | 'cert' | 'ca'>) {
    return { key, cert, ca, minVersion: 'TLSv1.3', ciphers: tlsCiphers, honorCipherOrder: true } as const;
  }

  async close(): Promise<void> {
    const isClosed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#admission.close();
    for (const connection of this.#connections) connection.terminate();
    await Promise.all([...this.#connections].map((connection) => connection.finished));
    await isClosed;
  }

  #attach(): void {
    this.#server.on('connection', (socket: Socket) => {
      // Without a listener an error before the upgrade would end the process.
      socket.on('error', () => undefined);
      socket.setNoDelay(true);
      this.#admission.enter(socket);
    });
    this.#server.on('tlsClientError', (error: NodeJS.ErrnoException, socket: Socket) => this.#onStranger(error, socket, 'no TLS 1.3 handshake'));
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => this.#onStranger(error, socket as Socket, 'no HTTP request'));
    this.#server.on('request', (request, response) => {
      this.#refusals.count('WIRE_GARBAGE', peerOf(request.socket), 'an HTTP request that asks for no WebSocket');
      response.writeHead(426, { connection: 'close', upgrade: 'websocket' }).end();
    });
    this.#server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => this.#onUpgrade(request, socket as Socket, head));
    this.#upgrades.on('wsClientError', (error, socket) => {
      this.#refusals.count('WIRE_GARBAGE', peerOf(socket as Socket), `no WebSocket upgrade: ${error.message}`);
      socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
    });
  }

  #onStranger(error: NodeJS.ErrnoException, socket: Socket, what: string): void {
    // A peer that just went away, as port checks do, refused nothing and is refused nothing.
    if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') this.#refusals.count('WIRE_GARBAGE', peerOf(socket), `${what}: ${error.code ?? error.message}`);
    socket.destroy();
  }

  #onUpgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    const peer = peerOf(socket);
    socket.on('error', () => undefined);
    if (request.url !== protocolPath) {
      const isOurs = /^\/afterimage\/v\d+$/.test(request.url ?? '');
      this.#refusals.count(isOurs ? 'WIRE_VERSION' : 'WIRE_GARBAGE', peer, `an upgrade of another path than ${protocolPath}`);
      socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n');
      return;
    }
    if (this.#connections.size >= this.#limits.connectionsMax) {
      this.#refusals.count('WIRE_OVERSIZED', peer, `more than ${this.#limits.connectionsMax} connections`);
      socket.end('HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n');
      return;
    }
    const shown = shownBy(socket);
    const refusal = this.#refusal(socket, shown);
    if (refusal !== null) {
      this.#refusals.count(refusal.code, peer, refusal.message);
      // Only what a peer that has proved its certificate is told about that.
      socket.end(`HTTP/1.1 403 Forbidden\r\n${refusalHeader}: ${refusal.code}\r\nConnection: close\r\n\r\n`);
      return;
    }
    this.#upgrades.handleUpgrade(request, socket, head, (ws) => {
      const { registry, clock, random, log, targetId, targetName, peers, nextCertificate, onNoted } = this.#o;
      let greetingBytes = 0;
      const onGreeting = (chunk: Buffer): void => {
        greetingBytes += chunk.length;
        if (greetingBytes > greetingBytesMax) connection.fail('WIRE_OVERSIZED', `more than ${greetingBytesMax} bytes before the proof`);
        if (greetingBytes > 2 * greetingBytesMax) connection.terminate();
      };
      const connection: Connection = new Connection({
        ws, socket, peer, registry, orders: this.#orders, audit: this.#o.audit, volumes: this.#o.volumes, clock, random, log, limits: this.#limits, peers,
        ...(nextCertificate === undefined ? {} : { nextCertificate }), ...(onNoted === undefined ? {} : { onNoted }),
        facts: { targetId, targetName, fingerprint: ownFingerprint(socket) ?? this.#fingerprint, shown },
        onOpen: (opened, sourceId) => {
          socket.off('data', onGreeting);
          this.#admission.admit(socket);
          return this.#supersede(opened, sourceId);
        },
        onFault: (code, who, message, facts) => this.#refusals.count(code, who, message, facts),
      });
      socket.on('data', onGreeting);
      this.#connections.add(connection);
      void connection.finished.then(() => this.#connections.delete(connection));
    });
  }

  #refusal(socket: Socket, shown: ShownCertificate | null): ReturnType<Peers['refusal']> {
    const { ca, peers } = this.#o;
    if (ca !== undefined && isTls(socket) && !socket.authorized) return { code: 'WIRE_SECRET', message: `a peer whose certificate no authority of this target has issued, or which has expired (${String(socket.authorizationError)})` };
    return peers.refusal(shown);
  }

  async #supersede(connection: Connection, sourceId: string): Promise<void> {
    const before = this.#bySource.get(sourceId);
    this.#bySource.set(sourceId, connection);
    void connection.finished.then(() => {
      if (this.#bySource.get(sourceId) === connection) this.#bySource.delete(sourceId);
    });
    if (before === undefined) return;
    before.terminate();
    await before.finished;
  }
}

function isTls(socket: Socket): socket is TLSSocket {
  return 'getPeerX509Certificate' in socket;
}

/** Null: none, or there is no TLS. Whoever showed it has its key: TLS saw to that. */
function shownBy(socket: Socket): ShownCertificate | null {
  const certificate = isTls(socket) ? socket.getPeerX509Certificate() : undefined;
  return certificate === undefined ? null : { fingerprint: plainHex(certificate.fingerprint256), expiresAtMs: Date.parse(certificate.validTo) };
}

/** Of the certificate that this connection began with. */
function ownFingerprint(socket: Socket): string | null {
  const certificate = isTls(socket) ? socket.getX509Certificate() : undefined;
  return certificate === undefined ? null : plainHex(certificate.fingerprint256);
}

function plainHex(fingerprint: string): string {
  return fingerprint.replaceAll(':', '').toLowerCase();
}
