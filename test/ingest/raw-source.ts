/** A source in the hands of a test: real TLS and WebSocket, but it says what the test wants, when it wants. */
import { connect } from 'node:tls';
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { sourceProof } from '../../journal/identity.ts';
import { makeRecord, type RecordHeader } from '../../journal/record.ts';
import { encodePayload } from '../../journal/seal.ts';
import { decodeMessage, protocolPath, targetMessage, type SourceMessage, type TargetMessage } from '../../journal/wire.ts';
import { waitFor } from '../support/wait.ts';
import { announcement, groupId, sourceId, type Loopback } from './loopback.ts';
import type { GroupRegistry } from '../../replica-target/store/store.ts';

const limit = { limitMs: 10_000 };

export class RawSource {
  readonly ws: WebSocket;
  readonly heard: TargetMessage[] = [];
  isClosed = false;

  constructor(ws: WebSocket) {
    this.ws = ws;
    ws.on('message', (data) => {
      const message = decodeMessage(targetMessage, (data as Buffer).toString());
      if (message === undefined) throw new Error('the target said what is no message');
      this.heard.push(message);
    });
    ws.on('error', () => undefined);
    ws.on('close', () => { this.isClosed = true; });
  }

  static async open(port: number, path = protocolPath): Promise<RawSource> {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
    socket.on('error', () => undefined);
    await once(socket, 'secureConnect');
    const source = new RawSource(new WebSocket(`ws://127.0.0.1:${port}${path}`, { createConnection: () => socket, perMessageDeflate: false }));
    await new Promise((resolve) => { source.ws.once('open', resolve); source.ws.once('close', resolve); });
    return source;
  }

  /** Through the handshake, as the loopback's own source, or as another. */
  static async authenticated<R extends GroupRegistry>(loopback: Loopback<R>, id = sourceId): Promise<RawSource> {
    const source = await RawSource.open(loopback.ingest.address.port);
    const nonce = '05'.repeat(32);
    source.say({ t: 'hello', versions: [1], sourceId: id, sourceName: 'raw', nonce });
    const { nonce: targetNonce } = await source.hear('challenge');
    source.say({ t: 'auth', mac: sourceProof({ secret: loopback.secret, sourceNonce: nonce, targetNonce, fingerprint: loopback.fingerprint }) });
    await source.hear('welcome');
    return source;
  }

  static async announced<R extends GroupRegistry>(loopback: Loopback<R>): Promise<RawSource> {
    const source = await RawSource.authenticated(loopback);
    source.say({ t: 'announce', ...announcement() });
    await source.hear('group');
    return source;
  }

  say(message: SourceMessage): void {
    this.ws.send(JSON.stringify(message));
  }

  /** The next message of that kind; those before it are dropped. */
  async hear<T extends TargetMessage['t']>(wanted: T): Promise<Extract<TargetMessage, { t: T }>> {
    for (;;) {
      const message = await waitFor(() => this.heard.shift() ?? (this.isClosed ? 'closed' : null), { ...limit, what: wanted, everyMs: 2 });
      if (message === 'closed') throw new Error(`closed before ${wanted}`);
      if (message.t === wanted) return message as Extract<TargetMessage, { t: T }>;
    }
  }

  async closed(): Promise<void> {
    await waitFor(() => this.isClosed, { ...limit, what: 'the end of the connection', everyMs: 2 });
  }
}

/** A record of the test group's first delta. */
export function recordBytes(kind: RecordHeader['kind'], facts: Partial<RecordHeader> & { readonly payload?: Buffer } = {}): Buffer {
  const { payload, ...header } = facts;
  const fallback = kind === 'open' ? encodePayload({ base: null }) : kind === 'part' ? encodePayload({ part: 1 }) : kind === 'data' ? Buffer.alloc(4096, 3) : undefined;
  const bytes = payload ?? fallback;
  return makeRecord({
    kind, codec: 'none', groupId, deltaId: 1n, point: 1, term: 1, sequence: 0, disk: 0, offset: 0, length: kind === 'data' ? bytes!.length : kind === 'zero' ? 4096 : 0, ...header,
  }, bytes).bytes;
}
