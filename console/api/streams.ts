/**
 * The two streams: server-sent events for what happens, a WebSocket for the report. Neither keeps more than a bounded number of
 * bytes for a client that does not read: a live client is sent the newest report once it has taken the one before, and none in
 * between; a client of events is let go, and comes back with Last-Event-ID.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer, type WebSocket } from 'ws';
import { Fault } from '../../journal/fault.ts';
import type { StreamStart } from './dispatcher.ts';
import type { NumberedEvent, ReportFeed } from './report-feed.ts';
import type { Actor } from './route.ts';

/** Of both kinds together. */
export const streamsMax = 64;
/** What an event client may leave unread before it is let go: some thousand events. */
const eventBytesMax = 512 * 1024;
/** A live client that does not take a report for so long is gone, ms. */
const liveSilenceMs = 30_000;
/** Bytes of what lies between would time out otherwise, ms. */
const heartbeatMs = 15_000;
/** Clients say nothing that is longer. */
const inboundBytesMax = 1024;
/** A browser comes back after so long, ms. */
const retryMs = 2000;

export interface StreamsOptions {
  readonly feed: ReportFeed;
  /** Asked at each look: a token that was revoked or is over ends its streams. */
  readonly isGood: (actor: Actor) => boolean;
}

export class Streams {
  readonly #feed: ReportFeed;
  readonly #isGood: (actor: Actor) => boolean;
  readonly #ends = new Set<() => void>();
  readonly #upgrades = new WebSocketServer({
    noServer: true, clientTracking: false, maxPayload: inboundBytesMax,
    // Reports of many groups are much the same from second to second and within; a look a second costs little.
    perMessageDeflate: { threshold: 4096, serverNoContextTakeover: true, clientNoContextTakeover: true, concurrencyLimit: 2, zlibDeflateOptions: { level: 3 } },
  });

  constructor({ feed, isGood }: StreamsOptions) {
    this.#feed = feed;
    this.#isGood = isGood;
  }

  get count(): number {
    return this.#ends.size;
  }

  /** Fault REQUEST_FLOOD: there are too many. */
  check(): void {
    if (this.#ends.size >= streamsMax) throw new Fault('REQUEST_FLOOD', `${streamsMax} streams are open already`, { streamsMax, retryAfterS: 10 });
  }

  /** Takes over the reply. Fault REQUEST_FLOOD, before it does. */
  events({ actor, request, reply }: StreamStart, headers: Readonly<Record<string, string>>): void {
    this.check();
    const lastId = request.headers['last-event-id'];
    reply.hijack();
    const out = reply.raw;
    out.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store', 'x-accel-buffering': 'no', ...headers });
    const missed = typeof lastId === 'string' ? this.#feed.eventsAfter(lastId) : [];
    const write = (text: string): void => {
      out.write(text);
      if (out.writableLength > eventBytesMax) end();
    };
    let leave = (): void => undefined;
    const heartbeat = setInterval(() => write(': here\n\n'), heartbeatMs);
    heartbeat.unref();
    const end = (): void => {
      clearInterval(heartbeat);
      leave();
      this.#ends.delete(end);
      out.destroy();
    };
    this.#ends.add(end);
    out.on('close', end);
    out.on('error', end);
    leave = this.#feed.listen({ onEvent: (event) => write(formatEvent(event)), onLook: () => { if (!this.#isGood(actor)) end(); } });
    for (const event of missed ?? []) write(formatEvent(event));
    // Tells from where on nothing is missed, also to who is told nothing else.
    write(`retry: ${retryMs}\nid: ${this.#feed.newestId}\nevent: ${missed === null ? 'missed' : 'ready'}\ndata: {}\n\n`);
  }

  /** Answers the upgrade; who asks has been let in. */
  live(actor: Actor, request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#upgrades.handleUpgrade(request, socket, head, (ws) => this.#follow(ws, actor));
  }

  close(): void {
    for (const end of [...this.#ends]) end();
  }

  #follow(ws: WebSocket, actor: Actor): void {
    let isTaking = false;
    let newest: string | null = null;
    let silence: NodeJS.Timeout | null = null;
    let leave = (): void => undefined;
    const send = (text: string): void => {
      if (isTaking) {
        newest = text;
        return;
      }
      isTaking = true;
      silence = setTimeout(() => ws.terminate(), liveSilenceMs);
      // The callback comes when the bytes have left this process, so at most one report waits in it.
      ws.send(text, () => {
        if (silence !== null) clearTimeout(silence);
        isTaking = false;
        const next = newest;
        newest = null;
        if (next !== null && ws.readyState === ws.OPEN) send(next);
      });
    };
    const end = (): void => {
      if (silence !== null) clearTimeout(silence);
      clearInterval(heartbeat);
      leave();
      this.#ends.delete(end);
      ws.terminate();
    };
    let isAlive = true;
    const heartbeat = setInterval(() => {
      if (!isAlive) return end();
      isAlive = false;
      ws.ping();
    }, heartbeatMs);
    heartbeat.unref();
    ws.on('pong', () => { isAlive = true; });
    ws.on('close', end);
    ws.on('error', end);
    this.#ends.add(end);
    leave = this.#feed.listen({ onReport: send, onLook: () => { if (!this.#isGood(actor)) ws.close(4401, 'the token is not good any more'); } });
  }
}

function formatEvent({ id, type, ...rest }: NumberedEvent): string {
  return `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(rest)}\n\n`;
}
