/**
 * The API's door to the network: TLS 1.3 with the daemon's own certificate, and bearer tokens. It is off unless the config opens it.
 * Everything that a stranger can make it hold is bounded: connections, headers, bodies, the time that each may take, and what a
 * flood of wrong tokens costs.
 */
import type { IncomingMessage } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import { Fault } from '../../journal/fault.ts';
import type { Door } from './dispatcher.ts';
import { FailureLimit, networkOf } from './failure-limit.ts';
import type { OperatorTokens } from './operator-tokens.ts';
import type { Actor } from './route.ts';
import type { Tickets } from './tickets.ts';

export interface NetDoorLimits {
  readonly connectionsMax: number;
  /** Of one address, or one IPv6 network. */
  readonly connectionsPerAddressMax: number;
  /** For a handshake, and then for all headers of a request, ms. */
  readonly headersMs: number;
  /** For a whole request to arrive, ms. */
  readonly requestMs: number;
  readonly headerBytesMax: number;
}

/** A browser opens six connections; a page of requests is a few hundred bytes of headers. */
export const netDoorLimits: NetDoorLimits = { connectionsMax: 256, connectionsPerAddressMax: 64, headersMs: 10_000, requestMs: 30_000, headerBytesMax: 16 * 1024 };

/**
 * Nothing from elsewhere, nothing in a frame, no guessing of types. No HSTS: with a certificate that no browser knows it would lock
 * its owner out, and this port answers nothing without TLS anyway. No CORS header is ever sent.
 */
export const securityHeaders: Readonly<Record<string, string>> = {
  'content-security-policy': 'default-src \'none\'; script-src \'self\'; style-src \'self\'; img-src \'self\' data:; font-src \'self\'; connect-src \'self\'; manifest-src \'self\'; base-uri \'none\'; form-action \'none\'; frame-ancestors \'none\'',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};

/** One warning in so many ms, however many fail. */
const warnEveryMs = 10_000;
const bearer = /^Bearer ([A-Za-z0-9_.~+/-]{1,200}=*)$/;

export interface NetDoorOptions {
  readonly tokens: OperatorTokens;
  readonly tickets: Tickets;
  readonly clock: Clock;
  readonly log: Logger;
}

export class NetDoor implements Door {
  readonly headers = securityHeaders;
  readonly #o: NetDoorOptions;
  readonly #failures: FailureLimit;
  #warnedMs = -Infinity;
  #refusedCount = 0;

  constructor(options: NetDoorOptions) {
    this.#o = options;
    this.#failures = new FailureLimit(options.clock);
  }

  identify(request: IncomingMessage, ticket: string | null): Actor {
    const { authorization } = request.headers;
    const token = authorization === undefined ? undefined : bearer.exec(authorization)?.[1];
    const actor = token !== undefined ? this.#o.tokens.find(token) : ticket !== null ? this.#o.tickets.use(ticket) : null;
    if (actor !== null && this.isGood(actor)) return actor;
    if (authorization === undefined && ticket === null) throw new Fault('OPERATOR_TOKEN', 'this needs an operator’s token, as `Authorization: Bearer TOKEN`');
    return this.#refuse(request.socket.remoteAddress ?? 'unknown', ticket === null || authorization !== undefined ? 'token' : 'ticket');
  }

  isGood(actor: Actor): boolean {
    return actor.kind !== 'token' || this.#o.tokens.isGood(actor.tokenId);
  }

  #refuse(address: string, what: string): never {
    const retryAfterS = this.#failures.fail(address);
    this.#refusedCount += 1;
    const nowMs = this.#o.clock.monotonicMs();
    if (nowMs - this.#warnedMs >= warnEveryMs) {
      this.#o.log.warn({ address, refused: this.#refusedCount }, `a request with a ${what} that is not good`);
      this.#warnedMs = nowMs;
      this.#refusedCount = 0;
    }
    if (retryAfterS !== null) throw new Fault('REQUEST_FLOOD', `too many requests from ${networkOf(address)} with tokens that are not good`, { retryAfterS });
    throw new Fault('OPERATOR_TOKEN', `this ${what} is not known here, or it has ended`);
  }
}

export interface NetListen { readonly host: string; readonly port: number; /** PEM. */ readonly key: string; readonly cert: string; /** Tells of another certificate, which is shown to who connects from then on; absent: there is none. */ readonly onShown?: (listener: (shown: { readonly key: string; readonly cert: string }) => void) => void; readonly limits?: Partial<NetDoorLimits> }

/** A server that listens to nobody yet. */
export function makeNetServer({ key, cert, onShown, limits }: NetListen, log: Logger): Server {
  const { connectionsMax, connectionsPerAddressMax, headersMs, requestMs, headerBytesMax } = { ...netDoorLimits, ...limits };
  const server = createServer({ key, cert, minVersion: 'TLSv1.3', handshakeTimeout: headersMs, maxHeaderSize: headerBytesMax, headersTimeout: headersMs, requestTimeout: requestMs, keepAliveTimeout: 10_000, connectionsCheckingInterval: Math.min(1000, headersMs) });
  onShown?.((shown) => server.setSecureContext({ key: shown.key, cert: shown.cert, minVersion: 'TLSv1.3' }));
  const counts = new Map<string, number>();
  server.maxConnections = connectionsMax;
  server.on('connection', (socket: Socket) => {
    // Without a listener an error before the handshake would end the process.
    socket.on('error', () => undefined);
    const network = networkOf(socket.remoteAddress ?? '');
    const count = (counts.get(network) ?? 0) + 1;
    counts.set(network, count);
    socket.once('close', () => {
      const left = counts.get(network)! - 1;
      if (left === 0) counts.delete(network);
      else counts.set(network, left);
    });
    if (count > connectionsPerAddressMax) socket.destroy();
  });
  server.on('tlsClientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    log.debug({ err: error, address: socket.remoteAddress }, 'no TLS 1.3 handshake on the API’s port');
    socket.destroy();
  });
  return server;
}

/** Rejects with the system's error when the address cannot be listened on. */
export async function listenOnNet(server: Server, { host, port }: NetListen, log: Logger): Promise<AddressInfo> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  server.on('error', (error) => log.error({ err: error }, 'the API’s listening socket failed'));
  return server.address() as AddressInfo;
}
