/**
 * One request of the command line to a daemon, through its control socket or over the network. Over the network the certificate is
 * checked before a byte is sent: a token goes to nobody but the daemon that was meant. Every failure is a `Fault`: those of the
 * daemon as they were thrown there, DAEMON_UNREACHABLE when no one answers, API_UNTRUSTED.
 */
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { connect as connectUnix, type Socket } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { splitListener } from '../host/listener-path.ts';
import { Fault } from '../journal/fault.ts';
import { faultOf } from './api/problem.ts';

/** A daemon's API over the network. */
export interface RemotePlace {
  readonly host: string;
  readonly port: number;
  readonly token: string;
  /** SHA-256 of its certificate, 64 lower-case hex digits; null: a certificate that `ca`, or the system, vouches for. */
  readonly fingerprint: string | null;
  /** PEM. */
  readonly ca?: string;
}

/** Path of a control socket, or `user://UID/PATH` where a process of that user has to listen (host/node/listener.ts), or a daemon elsewhere. */
export type ApiPlace = string | RemotePlace;

export interface ApiRequest { readonly method: string; readonly path: string; readonly body?: unknown; readonly timeoutMs: number; readonly headers?: Readonly<Record<string, string>> }

/** No answer is larger: the points of a group with a long history are some MiB. */
const answerBytesMax = 256 * 1024 * 1024;

export function namePlace(place: ApiPlace): string {
  return typeof place === 'string' ? place : `${place.host.includes(':') ? `[${place.host}]` : place.host}:${place.port}`;
}

/** What the daemon answers, from its JSON; undefined when it answers nothing. */
export async function callApi(place: ApiPlace, { method, path, body, timeoutMs, headers = {} }: ApiRequest): Promise<unknown> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const late = new AbortController();
  const where = namePlace(place);
  const timer = setTimeout(() => late.abort(new Fault('DAEMON_UNREACHABLE', `the daemon at ${where} did not answer ${method} ${path} within ${timeoutMs / 1000} s`, { place: where, timeoutMs })), timeoutMs);
  try {
    const options: RequestOptions = {
      method, path, ...await connectionTo(place, late.signal),
      headers: {
        ...headers, ...(typeof place === 'string' ? {} : { host: where, authorization: `Bearer ${place.token}` }),
        ...(text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
      },
    };
    const { status, text: answer } = await exchange(options, text, late.signal);
    return readAnswer(where, status, answer);
  } catch (error) {
    throw late.signal.aborted ? late.signal.reason : unreachable(place, error as Error);
  } finally {
    clearTimeout(timer);
  }
}

async function connectionTo(place: ApiPlace, signal: AbortSignal): Promise<RequestOptions> {
  if (typeof place === 'string') {
    const { path, uid } = splitListener(place);
    if (uid === undefined) return { socketPath: path, agent: false };
    const socket = await connectToUser(path, uid, signal);
    return { createConnection: () => socket };
  }
  const socket = await connectSafely(place, signal);
  // With an agent, Node would not ask for the connection.
  return { createConnection: () => socket };
}

/** Fault API_UNTRUSTED. Rejects with the signal's reason. */
async function connectToUser(path: string, uid: number, signal: AbortSignal): Promise<Socket> {
  // Native, and few commands of few hosts need it.
  const { foreignListener } = await import('../host/node/listener.ts');
  const socket = connectUnix({ path });
  return whenTrusted(socket, 'connect', signal, () => {
    const foreign = foreignListener(socket, uid);
    return foreign === null ? null : new Fault('API_UNTRUSTED', `a process of user ${foreign} listens at ${path}, where one of user ${uid} has to`, { place: path, found: foreign });
  });
}

/** Fault API_UNTRUSTED. */
function connectSafely(place: RemotePlace, signal: AbortSignal): Promise<TLSSocket> {
  const { host, port, fingerprint, ca } = place;
  const isPinned = fingerprint !== null;
  const socket = connect({ host, port, minVersion: 'TLSv1.3', rejectUnauthorized: false, ...(ca === undefined ? {} : { ca }), ...(/^[\d.]+$|:/.test(host) ? {} : { servername: host }) });
  return whenTrusted(socket, 'secureConnect', signal, () => {
    // As journal/identity.ts has it, which brings along what makes certificates.
    const found = socket.getPeerCertificate().fingerprint256.replaceAll(':', '').toLowerCase();
    if (isPinned && found !== fingerprint) return new Fault('API_UNTRUSTED', `${namePlace(place)} shows a certificate with the fingerprint ${found}, not ${fingerprint}`, { place: namePlace(place), found, fingerprint });
    if (!isPinned && !socket.authorized) return new Fault('API_UNTRUSTED', `nobody known here vouches for the certificate of ${namePlace(place)} (${String(socket.authorizationError)}); its fingerprint is ${found}`, { place: namePlace(place), found });
    return null;
  });
}

/** Resolves with the socket once it is connected and `distrust` finds nothing; else it is destroyed. Rejects with what was found, the socket's error or the signal's reason. */
function whenTrusted<Connected extends Socket>(socket: Connected, connected: 'connect' | 'secureConnect', signal: AbortSignal, distrust: () => Fault | null): Promise<Connected> {
  return new Promise((resolve, reject) => {
    const give = (error: unknown): void => {
      signal.removeEventListener('abort', stop);
      socket.destroy();
      reject(error as Error);
    };
    const stop = (): void => give(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    socket.once('error', give);
    socket.once(connected, () => {
      const fault = distrust();
      if (fault !== null) return give(fault);
      signal.removeEventListener('abort', stop);
      socket.off('error', give);
      resolve(socket);
    });
  });
}

function exchange(options: RequestOptions, text: string | undefined, signal: AbortSignal): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(options);
    const stop = (): void => { outgoing.destroy(signal.reason as Error); };
    signal.addEventListener('abort', stop, { once: true });
    outgoing.on('close', () => signal.removeEventListener('abort', stop));
    outgoing.on('error', reject);
    outgoing.on('response', (incoming: IncomingMessage) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      incoming.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        bytes += chunk.length;
        if (bytes > answerBytesMax) outgoing.destroy(new Error(`an answer of more than ${answerBytesMax} bytes`));
      });
      incoming.on('error', reject);
      incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }));
    });
    outgoing.end(text);
  });
}

function readAnswer(where: string, status: number, text: string): unknown {
  if (status === 204) return undefined;
  const stranger = (cause?: unknown): Fault => new Fault('DAEMON_UNREACHABLE', `what answers at ${where} is no Afterimage daemon of this release`, { place: where, status }, cause);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw stranger(error);
  }
  if (status === 200) return value;
  throw faultOf(value) ?? stranger();
}

function unreachable(place: ApiPlace, error: Error): Fault {
  if (error instanceof Fault) return error;
  const { code } = error as NodeJS.ErrnoException;
  const where = namePlace(place);
  const why = code === 'ENOENT' ? 'there is no such socket'
    : code === 'ECONNREFUSED' ? 'nobody listens there any more'
    : code === 'EACCES' ? 'this user may not connect to it (use sudo, or the daemon’s own user)'
    : code === 'ECONNRESET' ? 'the daemon ended in the middle of it'
    : error.message;
  return new Fault('DAEMON_UNREACHABLE', `no daemon answers at ${where}: ${why}`, { place: where, error: code }, error);
}
