/**
 * Makes one connection to a target and proves both sides to each other (PROTOCOL.md, "Handshake"): TCP, TLS with the
 * certificates of both, the WebSocket upgrade, hello, challenge, auth, welcome. What comes after is wire-session.ts.
 * Invariant: nothing at all is sent through the TLS connection before the target's certificate has a fingerprint that is pinned;
 * and no session comes out unless the target has pinned this source's certificate or proved that it knows the secret.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { WebSocket, type RawData } from 'ws';
import type { Clock } from '../../host/clock.ts';
import type { Random } from '../../host/random.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { fingerprintOf, isSameProof, nonceBytes, sourceProof, targetProof, type OwnCertificate } from '../../journal/identity.ts';
import { frameBytesMax } from '../../journal/limits.ts';
import { decodeMessage, protocolPath, protocolVersions, refusalHeader, targetMessage, type SourceMessage, type TargetMessage } from '../../journal/wire.ts';
import type { OutboxGate } from './throttle.ts';
import { faultOfSocket, knownCode, refusal, WireSession, type Handshake, type SessionLimits } from './wire-session.ts';

/** From the first packet to the target's proof, ms. */
export const connectLimitMs = 10_000;

export interface TargetAddress {
  readonly host: string;
  readonly port: number;
  /** SHA-256 of the target's certificate, 64 hex digits. */
  readonly fingerprint: string;
  /** Of the one that it has announced to show in its place. */
  readonly nextFingerprint?: string | undefined;
  /** This source's own; absent: it shows none. */
  readonly certificate?: OwnCertificate | undefined;
  /** Of an invitation, or of a pairing of an earlier release. Absent: the certificate is known to the target. */
  readonly secret?: Buffer | undefined;
  /** PEM: the target's certificate must have been issued by one of these, too. */
  readonly ca?: string | undefined;
  readonly sourceId: string;
  readonly sourceName: string;
  /** False only for the benchmark. */
  readonly tls?: boolean;
}

export interface ConnectDeps { readonly clock: Clock; readonly random: Random; readonly limits: SessionLimits; readonly gate?: OutboxGate | null | undefined }

/** Rejects with a Fault: TARGET_UNREACHABLE, WIRE_FINGERPRINT, WIRE_GARBAGE, WIRE_VERSION, WIRE_SECRET, WIRE_SILENT, PAIRING_*; or with the signal's reason. */
export async function connectTarget(address: TargetAddress, deps: ConnectDeps, signal: AbortSignal): Promise<WireSession> {
  // Not AbortSignal.any: the link's signal lives for years, and every attempt would leave something hanging on it.
  const attempt = new AbortController();
  const onStop = (): void => attempt.abort(signal.reason);
  if (signal.aborted) onStop();
  signal.addEventListener('abort', onStop, { once: true });
  const limit = setTimeout(() => attempt.abort(new Fault('WIRE_SILENT', `no session with ${address.host}:${address.port} within ${connectLimitMs} ms`)), connectLimitMs);
  const cleanup: { socket?: Socket } = {};
  try {
    const { socket, shown } = await openSocket(address, attempt.signal, cleanup);
    socket.setNoDelay(true);
    const ws = await upgrade(socket, address, attempt.signal);
    const handshake = await shakeHands(ws, { ...address, fingerprint: shown }, deps, attempt.signal);
    return new WireSession({ ws, socket, ...handshake, clock: deps.clock, limits: deps.limits, gate: deps.gate });
  } catch (error) {
    cleanup.socket?.destroy();
    if (signal.aborted) throw signal.reason;
    throw isFault(error) ? error : faultOfSocket(error as Error);
  } finally {
    clearTimeout(limit);
    signal.removeEventListener('abort', onStop);
  }
}

/** `shown`: the fingerprint of the certificate that the target showed, one of those that are pinned. */
async function openSocket(address: TargetAddress, stop: AbortSignal, cleanup: { socket?: Socket }): Promise<{ readonly socket: Socket; readonly shown: string }> {
  const { host, port, fingerprint, nextFingerprint, certificate, ca } = address;
  const isTls = address.tls !== false;
  // The pin below is the check, and it is stricter than any chain.
  const socket = isTls
    ? connectTls({ host, port, minVersion: 'TLSv1.3', rejectUnauthorized: false, ...(certificate === undefined ? {} : { key: certificate.key, cert: certificate.cert }), ...(ca === undefined ? {} : { ca }), checkServerIdentity: () => undefined })
    : connectTcp({ host, port });
  cleanup.socket = socket;
  await firstOf(socket, isTls ? 'secureConnect' : 'connect', stop);
  if (!isTls) return { socket, shown: fingerprint };
  const tls = socket as TLSSocket;
  const shown = tls.getPeerX509Certificate()?.fingerprint256.replaceAll(':', '').toLowerCase() ?? 'none';
  if (shown !== fingerprint && shown !== nextFingerprint) {
    throw new Fault('WIRE_FINGERPRINT', `the target at ${host}:${port} shows another certificate than the one it was paired with`, { expected: fingerprint, shown });
  }
  if (ca !== undefined && !tls.authorized) throw new Fault('WIRE_FINGERPRINT', `no authority of this source has issued the certificate of the target at ${host}:${port}, or it has expired (${String(tls.authorizationError)})`, { shown });
  return { socket, shown };
}

async function upgrade(socket: Socket, { host, port }: TargetAddress, stop: AbortSignal): Promise<WebSocket> {
  const ws = new WebSocket(`ws://${host.includes(':') ? `[${host}]` : host}:${port}${protocolPath}`, {
    createConnection: () => socket,
    perMessageDeflate: false,
    // A mask protects proxies from scripts in browsers; neither is here, and TLS is. Zero keeps the frames valid and costs nothing.
    generateMask: () => undefined,
    maxPayload: frameBytesMax,
    followRedirects: false,
    skipUTF8Validation: true,
  });
  ws.once('unexpected-response', (_request, response) => {
    const status = response.statusCode ?? 0;
    const code = response.headers[refusalHeader];
    if (status === 403 && typeof code === 'string') return void ws.emit('error', new Fault(knownCode(code), 'the target takes no connection with the certificate of this source', { code }));
    ws.emit('error', status === 404
      ? new Fault('WIRE_VERSION', `the target does not know ${protocolPath}: it is of another release`, { status })
      : new Fault('WIRE_GARBAGE', `what answers is no Afterimage target (HTTP status ${status})`, { status }));
  });
  await firstOf(ws, 'open', stop);
  return ws;
}

/** Returns the credit that the target grants, and what both have said. */
export async function shakeHands(ws: WebSocket, address: TargetAddress, deps: ConnectDeps, stop: AbortSignal): Promise<{ readonly creditBytes: number; readonly handshake: Handshake }> {
  const { sourceId, sourceName, secret, fingerprint, certificate } = address;
  const own = certificate === undefined ? undefined : fingerprintOf(certificate.cert);
  const sourceNonce = deps.random.bytes(nonceBytes).toString('hex');
  const say = (message: SourceMessage): void => ws.send(JSON.stringify(message), () => undefined);
  say({ t: 'hello', versions: [...protocolVersions], sourceId, sourceName, nonce: sourceNonce });
  const challenge = await hear(ws, 'challenge', stop);
  if (!protocolVersions.includes(challenge.version)) throw new Fault('WIRE_VERSION', `the target chose protocol version ${challenge.version}; this source speaks ${protocolVersions.join(', ')}`);
  // A target of an earlier release asks for no certificate, and its proofs bind none.
  if (challenge.certificate !== undefined && challenge.certificate !== own) throw new Fault('WIRE_GARBAGE', 'the target saw another certificate than this source showed');
  const said = { sourceNonce, targetNonce: challenge.nonce, fingerprint, sourceFingerprint: challenge.certificate };
  say({ t: 'auth', ...(secret === undefined ? {} : { mac: sourceProof({ secret, ...said }) }) });
  const welcome = await hear(ws, 'welcome', stop);
  const isPaired = own !== undefined && welcome.paired === own && challenge.certificate === own;
  const isProven = secret !== undefined && welcome.mac !== undefined && isSameProof(welcome.mac, targetProof({ secret, ...said }));
  if (!isPaired && !isProven) throw new Fault('WIRE_SECRET', 'the target could not prove that it knows the shared secret');
  return { creditBytes: welcome.creditBytes, handshake: { sourceNonce, targetNonce: challenge.nonce, shown: fingerprint, paired: isPaired ? own : null } };
}

async function hear<T extends 'challenge' | 'welcome'>(ws: WebSocket, wanted: T, stop: AbortSignal): Promise<Extract<TargetMessage, { readonly t: T }>> {
  const [data, isBinary] = await firstOf(ws, 'message', stop) as [RawData, boolean];
  const message = isBinary ? undefined : decodeMessage(targetMessage, (data as Buffer).toString('utf8'));
  if (message?.t === 'refused') throw refusal(message);
  if (message?.t !== wanted) throw new Fault('WIRE_GARBAGE', `the target sent ${message?.t ?? 'no message of this protocol'} where ${wanted} was due`);
  return message as Extract<TargetMessage, { readonly t: T }>;
}

interface Emitting {
  on(event: string, listener: (...args: unknown[]) => void): unknown;
  off(event: string, listener: (...args: unknown[]) => void): unknown;
}

/** The first `event`, unless an error, the end of the connection, or the signal comes first. */
function firstOf(from: Socket | WebSocket, event: string, stop: AbortSignal): Promise<unknown[]> {
  const emitter = from as unknown as Emitting;
  return new Promise((resolve, reject) => {
    const done = (): void => {
      emitter.off(event, onEvent);
      emitter.off('close', onClose);
      // The listener for errors stays: one that comes late must not end the process.
      stop.removeEventListener('abort', onStop);
    };
    const onEvent = (...args: unknown[]): void => { done(); resolve(args); };
    const onError = (error: unknown): void => { done(); reject(error as Error); };
    const onClose = (): void => { done(); reject(new Fault('TARGET_UNREACHABLE', `the target ended the connection before ${event}`)); };
    const onStop = (): void => { done(); reject(stop.reason as Error); };
    if (stop.aborted) return onStop();
    emitter.on(event, onEvent);
    emitter.on('error', onError);
    emitter.on('close', onClose);
    stop.addEventListener('abort', onStop, { once: true });
  });
}
