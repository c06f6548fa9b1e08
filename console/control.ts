/**
 * The daemon's end of the operator's API: `/v1` of one role, on a unix socket for this host, and over TLS where the config opens
 * that. What there is stands in the tables (api/target-routes.ts, api/source-routes.ts); how a request is answered stands in
 * api/dispatcher.ts; here the parts are put together and taken down.
 */
import { mkdir } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import Fastify, { type FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import type { SourceOperations } from '../daemon/operations.ts';
import { nodeClock } from '../host/node/clock.ts';
import { Fault } from '../journal/fault.ts';
import { fingerprintOf } from '../journal/identity.ts';
import type { AuditNoter } from '../host/audit-trail.ts';
import type { Actor as AuditActor } from '../host/audit-format.ts';
import { peerOfSocket } from '../host/node/libc.ts';
import type { TargetOperations } from '../replica-target/operations.ts';
import { audited, sourceActs, targetActs, type Acts } from './audited.ts';
import { mountAssets } from './api/assets.ts';
import { admit, mountRoutes, pathOf, sendProblem, ticketOf, type DispatcherOptions, type Door } from './api/dispatcher.ts';
import type { ApiReport } from './api/event-plan.ts';
import { IdempotentActs } from './api/idempotency.ts';
import { listenOnNet, makeNetServer, NetDoor, type NetListen } from './api/net-door.ts';
import { openApiDocument } from './api/openapi.ts';
import { OperatorTokens } from './api/operator-tokens.ts';
import { asFault, jsonText, problemMediaType, problemOf } from './api/problem.ts';
import { ReportFeed } from './api/report-feed.ts';
import type { Actor, RouteTable } from './api/route.ts';
import { serviceRoutes } from './api/service-routes.ts';
import type { ApiServices } from './api/services.ts';
import { sourceRoutes } from './api/source-routes.ts';
import { Streams } from './api/streams.ts';
import { targetRoutes } from './api/target-routes.ts';
import { Tickets } from './api/tickets.ts';
import { bodyBytesMax } from './control-api.ts';
import { listenOnControlSocket } from './control-socket.ts';

export interface Control {
  /** Where the network reaches it; null: nowhere. */
  readonly address: { readonly host: string; readonly port: number } | null;
  /** Lets requests under way end, for at most a few seconds; removes the socket. */
  close(): Promise<void>;
}

export interface ControlOptions<Operations> {
  /** The release. */
  readonly version?: string;
  /** Where tokens and notes of acts are kept; null: in memory alone. */
  readonly folder?: string | null;
  /** Over the network as well. */
  readonly listen?: NetListen | null;
  /** In place of those that are built with the daemon; null: none. */
  readonly assetsFolder?: string | null;
  /** The user as whom the target of this host runs, and what that target is called: it may ask what routes with `isForTarget` offer. */
  readonly localTarget?: { readonly uid: number; readonly gid: number; readonly name: string } | null;
  /** Every act is noted there under whoever asked for it. */
  readonly audit?: AuditNoter | undefined;
  readonly testAlerts?: ApiServices['testAlerts'];
  /** Newest last; null: there is no trail. */
  readonly readTrail?: ApiServices['readTrail'];
  /** In place of a second, for tests. */
  readonly lookMs?: number;
}

/** What requests under way may still take once the daemon stops, ms. */
const closeMsMax = 3_000;
/** A selector is at most 255 characters, each of which may be nine when encoded. */
const paramCharactersMax = 255 * 9;
const builtAssets = fileURLToPath(new URL('./dashboard/assets/', import.meta.url));

export function openSourceControl(path: string, operations: SourceOperations, log: Logger, options: ControlOptions<SourceOperations> = {}): Promise<Control> {
  return openControl(path, { role: 'source', table: sourceRoutes, operations, acts: sourceActs, report: () => operations.report(), log }, options);
}

export function openTargetControl(path: string, operations: TargetOperations, log: Logger, options: ControlOptions<TargetOperations> = {}): Promise<Control> {
  return openControl(path, { role: 'target', table: targetRoutes, operations, acts: targetActs, report: () => operations.report(), log }, options);
}

interface Role<Operations> { readonly role: 'source' | 'target'; readonly table: RouteTable; readonly operations: Operations; readonly acts: Acts<Operations>; readonly report: () => ApiReport; readonly log: Logger }

async function openControl<Operations extends object>(path: string, { role, table, operations, acts: audits, report, log }: Role<Operations>, options: ControlOptions<Operations>): Promise<Control> {
  const { folder = null, version = '', listen = null, localTarget = null } = options;
  if (folder !== null) await mkdir(folder, { recursive: true, mode: 0o700 });
  const tokens = await OperatorTokens.open(folder === null ? null : join(folder, 'tokens.json'), nodeClock);
  const acts = await IdempotentActs.open(folder === null ? null : join(folder, 'acts'), nodeClock, log);
  const tickets = new Tickets(nodeClock);
  const feed = new ReportFeed({ report, ...(options.lookMs === undefined ? {} : { lookMs: options.lookMs }) });
  const streams = new Streams({ feed, isGood: (actor) => actor.kind !== 'token' || tokens.isGood(actor.tokenId) });
  let document: unknown;
  const services: ApiServices = { role, version, tokens, tickets, readTrail: options.readTrail ?? null, testAlerts: options.testAlerts ?? null, document: () => document ??= openApiDocument(table, role, version) };
  const dispatch: DispatcherOptions<Operations> = { table, services, acts, log, operationsFor: (actor) => (options.audit === undefined ? operations : audited(operations, audits, options.audit, () => auditedActor(actor))), ...(options.audit === undefined ? {} : { audit: serviceAudit(options.audit) }) };
  const shared = { dispatch, streams, assetsFolder: options.assetsFolder === undefined ? builtAssets : options.assetsFolder };
  const apps: FastifyInstance[] = [];
  const close = async (): Promise<void> => {
    streams.close();
    await Promise.all(apps.map((app) => closeWithin(app, closeMsMax)));
    feed.close();
    await tokens.close();
  };
  try {
    const server = createServer();
    const local = await openApp({ ...shared, server, door: { identify: localPeers(server, localTarget, log), headers: { 'x-content-type-options': 'nosniff' } } });
    apps.push(local);
    await listenOnControlSocket(local.server, path, localTarget?.gid);
    const address = listen === null ? null : await openNet(listen, { ...shared, tokens, tickets, log }, apps);
    return { address, close };
  } catch (error) {
    await close();
    throw error;
  }
}

interface AppParts<Operations> { readonly dispatch: DispatcherOptions<Operations>; readonly streams: Streams; readonly assetsFolder: string | null; readonly server: Server; readonly door: Door }

async function openNet<Operations>(listen: NetListen, parts: Omit<AppParts<Operations>, 'server' | 'door'> & { readonly tokens: OperatorTokens; readonly tickets: Tickets; readonly log: Logger }, apps: FastifyInstance[]): Promise<Control['address']> {
  const { log } = parts;
  const server = makeNetServer(listen, log);
  apps.push(await openApp({ ...parts, server, door: new NetDoor({ ...parts, clock: nodeClock }) }));
  const { address: host, port } = await listenOnNet(server, listen, log);
  log.info({ host, port, fingerprint: fingerprintOf(listen.cert) }, 'the API is open to the network, for operators’ tokens');
  return { host, port };
}

async function openApp<Operations>({ dispatch, streams, assetsFolder, server, door }: AppParts<Operations>): Promise<FastifyInstance> {
  const app = Fastify({
    logger: false, bodyLimit: bodyBytesMax, exposeHeadRoutes: false, forceCloseConnections: 'idle', routerOptions: { maxParamLength: paramCharactersMax },
    serverFactory: (handle) => server.on('request', handle),
  });
  mountRoutes(app, dispatch, door, (start) => streams.events(start, door.headers));
  mountAssets(app, assetsFolder, door.headers, (request, reply) => {
    const what = { method: request.method, path: pathOf(request) };
    sendProblem(reply, new Fault('REQUEST_INVALID', `this daemon has no ${what.method} ${what.path}`, what), 404);
  });
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => upgrade(dispatch, streams, door, request, socket, head));
  await app.ready();
  return app;
}

/** The only upgrade that there is: the live report's. */
function upgrade<Operations>({ table }: DispatcherOptions<Operations>, streams: Streams, door: Door, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  socket.on('error', () => undefined);
  try {
    const route = Object.values(table).find(({ stream, path }) => stream === 'live' && path === pathOf(request));
    if (route === undefined) throw new Fault('REQUEST_INVALID', `this daemon has no WebSocket at ${pathOf(request)}`);
    const actor = admit(route, door.identify(request, ticketOf(request, route)));
    streams.check();
    streams.live(actor, request, socket, head);
  } catch (error) {
    const problem = problemOf(asFault(error as Error));
    const text = jsonText(problem);
    socket.end(`HTTP/1.1 ${problem.status} Refused\r\nConnection: close\r\nContent-Type: ${problemMediaType}\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  }
}

/** The kernel's overflow user: whose user cannot be found out is nobody's friend. */
const nobody = 65_534;

/** Who is at the other end of the control socket. Fault CONTROL_PEER: neither root nor the user that the daemon runs as, nor that of this host's target. */
function localPeers(server: Server, localTarget: NonNullable<ControlOptions<never>['localTarget']> | null, log: Logger): (request: IncomingMessage) => Actor {
  const peers = new WeakMap<Socket, number>();
  server.on('connection', (socket: Socket) => peers.set(socket, uidOf(socket)));
  return ({ socket }) => {
    const uid = peers.get(socket) ?? uidOf(socket);
    if (uid === 0 || uid === process.geteuid?.()) return { kind: 'local', uid };
    if (uid === localTarget?.uid) return { kind: 'target', uid, name: localTarget.name };
    log.warn({ code: 'CONTROL_PEER', uid }, `user ${uid} asked something of the control socket, and was refused`);
    throw new Fault('CONTROL_PEER', `user ${uid} may not ask anything of this daemon: root may, and the user that it runs as`, { uid });
  };
}

/** As the kernel saw the peer connect: a socket's mode and its folder's keep others off already, and this holds when somebody changed those. */
function uidOf(socket: Socket): number {
  return peerOfSocket(socket)?.uid ?? nobody;
}

/** Of what is no operation of the role: operators' tokens. */
function serviceAudit(trail: AuditNoter): NonNullable<DispatcherOptions<unknown>['audit']> {
  return async (actor, { name, path }, run) => {
    if (!Object.hasOwn(serviceRoutes, name)) return run();
    const entry = { who: auditedActor(actor), act: name, on: null, what: { path } };
    try {
      const result = await run();
      await trail.note({ ...entry, outcome: 'done' });
      return result;
    } catch (error) {
      await trail.note({ ...entry, outcome: asFault(error as Error).code });
      throw error;
    }
  };
}

function auditedActor(actor: Actor): AuditActor {
  return actor.kind === 'token' ? { kind: 'token', name: actor.name } : { kind: 'local', uid: actor.uid ?? nobody };
}

async function closeWithin(app: FastifyInstance, ms: number): Promise<void> {
  const { server } = app;
  const timer = setTimeout(() => server.closeAllConnections(), ms);
  try {
    await app.close();
    // A server that fastify did not make is not closed by it. Node removes the socket's file when its server closes.
    if (server.listening) {
      await new Promise((resolve) => {
        server.close(resolve);
        server.closeIdleConnections();
      });
    }
  } finally {
    clearTimeout(timer);
  }
}
