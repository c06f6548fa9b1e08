/**
 * The daemon's end of the operator's API: one small HTTP server per role on a unix socket. It checks the shape of what comes
 * in, calls the role's operations, and turns faults into replies. It holds no state and decides nothing.
 */
import Fastify, { type FastifyInstance, type FastifyReply } from 'fastify';
import type { Logger } from 'pino';
import type { z } from 'zod';
import type { SourceOperations } from '../daemon/operations.ts';
import { Fault, isFault, type FaultCode } from '../journal/fault.ts';
import type { TargetOperations } from '../replica-target/operations.ts';
import { bodyBytesMax, pointQuery, pointsQuery, requestBodies, type ErrorReply } from './control-api.ts';
import { listenOnControlSocket } from './control-socket.ts';

export interface Control {
  /** Lets requests under way end, for at most a few seconds; removes the socket. */
  close(): Promise<void>;
}

/** What requests under way may still take once the daemon stops, ms. */
const closeMsMax = 3_000;

export function openSourceControl(path: string, operations: SourceOperations, log: Logger): Promise<Control> {
  return openControl(path, log, (routes) => {
    routes.get('/report', () => operations.report());
    routes.post('/pair', requestBodies.pair, ({ token }) => operations.pair(token));
    routes.get('/pairings', () => operations.pairings());
    routes.post('/revoke', requestBodies.revoke, ({ which }) => operations.revoke(which));
    routes.post('/rotate', requestBodies.rotate, ({ isNow }) => operations.rotate(isNow ?? false));
    routes.post('/protect', requestBodies.protect, (request) => operations.protect(request));
    routes.post('/adopt', requestBodies.adopt, (request) => operations.adopt(request));
    routes.post('/surrender', requestBodies.surrender, async ({ groupId, term }) => ({ guest: await operations.surrender(groupId, term) }));
    routes.post('/abandon', requestBodies.abandon, ({ groupId }) => operations.abandon(groupId));
    routes.post('/unprotect', requestBodies.unprotect, ({ name, isForgotten }) => operations.unprotect(name, isForgotten ?? false));
    routes.post('/pause', requestBodies.guest, ({ name }) => operations.pause(name));
    routes.post('/resume', requestBodies.guest, ({ name }) => operations.resume(name));
    routes.post('/resync', requestBodies.guest, ({ name }) => operations.resync(name));
    routes.post('/mark', requestBodies.mark, (request) => operations.mark(request));
    routes.post('/capture', requestBodies.capture, ({ name, capture }) => operations.setCapture(name, capture));
    routes.post('/qmp-path', requestBodies.qmpPath, ({ name, qmpPath }) => operations.setQmpPath(name, qmpPath));
    routes.post('/rate', requestBodies.rate, ({ name, rateBytesPerSecond }) => operations.setRate(name, rateBytesPerSecond));
  });
}

export function openTargetControl(path: string, operations: TargetOperations, log: Logger): Promise<Control> {
  return openControl(path, log, (routes) => {
    routes.get('/report', () => operations.report());
    routes.get('/points', (query) => operations.points(checked(pointsQuery, query).group));
    routes.get('/timeline', (query) => operations.timeline(checked(pointsQuery, query).group));
    routes.get('/point', (query) => { const { group, at } = checked(pointQuery, query); return operations.describePoint(group, at); });
    routes.post('/point/hold', requestBodies.holdPoint, (request) => operations.holdPoint(request));
    routes.post('/point/release', requestBodies.releasePoint, ({ group, holdId }) => operations.releasePoint(group, holdId));
    routes.post('/verify', requestBodies.verify, ({ group, at }) => operations.verify(group, at ?? null));
    routes.post('/changes', requestBodies.changes, ({ groupId, since, point }) => operations.changedSince(groupId, since, point));
    routes.post('/invite', requestBodies.invite, (request) => operations.invite(request));
    routes.get('/pairings', () => operations.pairings());
    routes.post('/revoke', requestBodies.revoke, ({ which }) => operations.revoke(which));
    routes.post('/revoke/old-secrets', requestBodies.nothing, async () => ({ count: await operations.revokeOldSecrets() }));
    routes.post('/rotate', requestBodies.rotate, ({ isNow }) => operations.rotate(isNow ?? false));
    routes.post('/start-check', requestBodies.startCheck, (request) => operations.checkStart(request));
    routes.post('/failover', requestBodies.failover, (request) => operations.failover(request));
    routes.post('/failover/stop', requestBodies.failoverStop, ({ group, isRolledBack }) => operations.stopFailover(group, isRolledBack ?? false));
    routes.post('/failover/commit', requestBodies.commit, ({ group }) => operations.commitFailover(group));
    routes.post('/test', requestBodies.testFailover, (request) => operations.testFailover(request));
    routes.post('/plan', requestBodies.plan, (request) => operations.plan(request));
    routes.post('/rehearse', requestBodies.rehearse, (request) => operations.rehearse(request));
    routes.post('/test/stop', requestBodies.testStop, ({ group }) => operations.stopTest(group));
    routes.post('/seed-from', requestBodies.seedFrom, ({ group, disk, imagePath }) => operations.seedFrom(group, disk, imagePath));
  });
}

class Routes {
  readonly #app: FastifyInstance;

  constructor(app: FastifyInstance) {
    this.#app = app;
  }

  get(path: string, answer: (query: unknown) => unknown): void {
    this.#app.get(path, async (request, reply) => send(reply, 200, await answer(request.query)));
  }

  post<T>(path: string, body: z.ZodType<T>, act: (body: T) => unknown): void {
    this.#app.post(path, async (request, reply) => send(reply, 200, (await act(checked(body, request.body ?? {}))) ?? {}));
  }
}

async function openControl(path: string, log: Logger, addRoutes: (routes: Routes) => void): Promise<Control> {
  const app = Fastify({ logger: false, bodyLimit: bodyBytesMax, exposeHeadRoutes: false, forceCloseConnections: 'idle' });
  app.setErrorHandler((error: Error & { statusCode?: number }, request, reply) => {
    const fault = asFault(error);
    if (fault.code === 'INTERNAL') log.error({ err: error, method: request.method, path: request.url }, 'a request failed in a way that was taken for impossible');
    else log.info({ code: fault.code, method: request.method, path: request.url }, fault.message);
    return sendFault(reply, fault);
  });
  app.setNotFoundHandler((request, reply) => sendFault(reply, new Fault('REQUEST_INVALID', `this daemon has no ${request.method} ${request.url}`, { method: request.method, path: request.url })));
  addRoutes(new Routes(app));
  await app.ready();
  await listenOnControlSocket(app.server, path);
  return { close: () => closeWithin(app, closeMsMax) };
}

async function closeWithin(app: FastifyInstance, ms: number): Promise<void> {
  const timer = setTimeout(() => app.server.closeAllConnections(), ms);
  try {
    // Node removes the socket's file when its server closes.
    await app.close();
  } finally {
    clearTimeout(timer);
  }
}

function checked<T>(shape: z.ZodType<T>, value: unknown): T {
  const parsed = shape.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) => `${path.map(String).join('.') || 'body'}: ${message}`);
  throw new Fault('REQUEST_INVALID', problems.join('; '), { problems });
}

/** What fastify itself refuses (no JSON, too large) is the request's fault; anything else that is no fault is a bug. */
function asFault(error: Error & { statusCode?: number }): Fault {
  if (isFault(error)) return error;
  if (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500) return new Fault('REQUEST_INVALID', error.message);
  return new Fault('INTERNAL', `the daemon failed in a way that was taken for impossible: ${error.message}`);
}

function sendFault(reply: FastifyReply, fault: Fault): FastifyReply {
  const body: ErrorReply = { code: fault.code, message: fault.message, facts: { ...fault.facts } };
  return send(reply, statusOf(fault.code), body);
}

function statusOf(code: FaultCode): number {
  switch (code) {
    case 'REQUEST_INVALID': case 'PAIRING_TOKEN': return 400;
    case 'GROUP_UNKNOWN': return 404;
    case 'INTERNAL': return 500;
    default: return 409;
  }
}

function send(reply: FastifyReply, status: number, body: unknown): FastifyReply {
  return reply.code(status).type('application/json; charset=utf-8').send(JSON.stringify(body, jsonReady));
}

/** Facts may hold what JSON has no word for. */
function jsonReady(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Error) return value.message;
  return value;
}
