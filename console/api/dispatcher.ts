/**
 * From a request to an answer, for every route alike: who asks and whether they may, before a byte of the body is read; then the
 * route's shapes; then, of an act, its Idempotency-Key and its entry in the audit trail; then the route itself. Whatever goes wrong
 * is answered as a problem.
 */
import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { z } from 'zod';
import { Fault, isFault } from '../../journal/fault.ts';
import { keyCharactersMax, readKey, type Answer, type IdempotentActs } from './idempotency.ts';
import { asFault, isRefusal, jsonText, problemMediaType, problemOf } from './problem.ts';
import { describeActor, isWithinScope, paramNames, routerPath, type Actor, type AnyRoute, type RouteInput, type RouteTable } from './route.ts';
import type { ApiServices } from './services.ts';

/** What is asked for, as an audit trail may keep it: without what is secret. */
export interface AskedAct { readonly name: string; readonly method: string; readonly path: string; readonly body: unknown }

export interface DispatcherOptions<Operations> {
  readonly table: RouteTable;
  /** The role's operations on behalf of somebody: the seam at which an audit trail or a narrower view comes in between. */
  readonly operationsFor: (actor: Actor) => Operations;
  /** Around each act that changes something, once it is known to be allowed and well-formed. Absent: nothing is between. */
  readonly audit?: <T>(actor: Actor, act: AskedAct, run: () => Promise<T>) => Promise<T>;
  readonly services: ApiServices;
  readonly acts: IdempotentActs;
  readonly log: Logger;
}

/** How requests come in: through the unix socket, or over the network. */
export interface Door {
  /** Who asks. Faults: OPERATOR_TOKEN, REQUEST_FLOOD. */
  identify(request: IncomingMessage, ticket: string | null): Actor;
  /** For each answer. */
  readonly headers: Readonly<Record<string, string>>;
}

export interface StreamStart { readonly actor: Actor; readonly request: FastifyRequest; readonly reply: FastifyReply }

/** `onEvents` takes over the reply of a route that streams events. */
export function mountRoutes<Operations>(app: FastifyInstance, options: DispatcherOptions<Operations>, door: Door, onEvents: (start: StreamStart) => void): void {
  const { log } = options;
  const actors = new WeakMap<FastifyRequest, Actor>();
  app.addHook('onSend', async (_request, reply, payload) => {
    void reply.headers({ 'cache-control': 'no-store', ...door.headers });
    return payload;
  });
  app.setErrorHandler((error: Error & { statusCode?: number }, request, reply) => {
    const fault = asFault(error);
    // Strangers write nothing into the log; what they do is counted at the door.
    if (actors.has(request) || fault.code === 'INTERNAL') tellLog(log, fault, error, request);
    return sendProblem(reply, fault, isFault(error) || !isRefusal(error) ? undefined : error.statusCode);
  });
  for (const [name, route] of Object.entries(options.table)) {
    app.route({
      method: route.method, url: routerPath(route.path),
      onRequest: async (request) => { actors.set(request, admit(route, door.identify(request.raw, ticketOf(request.raw, route)))); },
      handler: async (request, reply) => {
        const actor = actors.get(request)!;
        const input = readInput(route, request);
        if (route.stream === 'events') {
          onEvents({ actor, request, reply });
          return reply;
        }
        if (route.stream === 'live') return sendProblem(reply.header('upgrade', 'websocket'), new Fault('REQUEST_INVALID', `${route.path} is a WebSocket: ask for an upgrade`), 426);
        const isAct = route.method !== 'GET' && route.isRead !== true;
        const run = (): Promise<Answer> => answerOf(options, name, route, actor, input, request, isAct);
        if (!isAct) return sendAnswer(reply, await run());
        const key = keyOf(request);
        if (key === null) return sendAnswer(reply, await run());
        const owner = actor.kind === 'token' ? `token ${actor.tokenId}` : `${actor.kind} ${actor.uid ?? ''}`;
        const done = await options.acts.once({ owner, key, request: `${request.method} ${request.url}\n${jsonText(request.body ?? null)}`, act: name, isSecret: route.isSecret === true }, run);
        return sendAnswer(reply.header('idempotency-replayed', String(done.isReplayed)), done.answer);
      },
    });
  }
}

/** Also for upgrades, which no router sees. Faults: OPERATOR_SCOPE, CONTROL_PEER. */
export function admit(route: AnyRoute, actor: Actor): Actor {
  if (actor.kind === 'local') return actor;
  if (actor.kind === 'target') {
    if (route.isForTarget === true) return actor;
    throw new Fault('CONTROL_PEER', `user ${actor.uid} may ask this daemon to follow the guests that its target starts, and nothing else`, { uid: actor.uid });
  }
  if (route.isLocal === true) throw new Fault('OPERATOR_SCOPE', `${route.method} ${route.path} is for this host’s other role, through the control socket alone`, { token: actor.name });
  if (!isWithinScope(actor.scope, route.scope)) throw new Fault('OPERATOR_SCOPE', `the token ${actor.name} is of scope ${actor.scope}, and ${route.method} ${route.path} takes ${route.scope}`, { token: actor.name, scope: actor.scope, needed: route.scope });
  return actor;
}

/** Tickets open streams and nothing else. */
export function ticketOf(request: IncomingMessage, route: AnyRoute): string | null {
  return route.stream === undefined ? null : new URL(request.url ?? '/', 'http://daemon').searchParams.get('ticket');
}

export function sendProblem(reply: FastifyReply, fault: Fault, status?: number): FastifyReply {
  const problem = problemOf(fault, status);
  if (problem.status === 401) void reply.header('www-authenticate', 'Bearer realm="afterimage"');
  const { retryAfterS } = fault.facts;
  if (typeof retryAfterS === 'number') void reply.header('retry-after', String(retryAfterS));
  return reply.code(problem.status).type(problemMediaType).send(jsonText(problem));
}

/** Without the query, which may hold a ticket. */
export function pathOf(request: { readonly url?: string | undefined }): string {
  return (request.url ?? '').split('?')[0]!;
}

async function answerOf<Operations>(options: DispatcherOptions<Operations>, name: string, route: AnyRoute, actor: Actor, input: RouteInput<unknown, unknown, unknown>, request: FastifyRequest, isAct: boolean): Promise<Answer> {
  const { services, audit, log } = options;
  const run = async (): Promise<unknown> => route.handle({ operations: options.operationsFor(actor), actor, services }, input);
  try {
    const asked: AskedAct = { name, method: route.method, path: pathOf(request), body: route.isSecret === true || 'token' in Object(input.body) ? null : input.body ?? null };
    if (isAct) log.info({ act: name, path: asked.path, by: describeActor(actor) }, 'an operator’s request');
    const value = await (isAct && audit !== undefined ? audit(actor, asked, run) : run());
    if (value === undefined) return { status: 204, mediaType: '', text: null };
    return route.mediaType === undefined
      ? { status: 200, mediaType: 'application/json; charset=utf-8', text: jsonText(value) }
      : { status: 200, mediaType: route.mediaType, text: String(value) };
  } catch (error) {
    const fault = asFault(error as Error);
    tellLog(log, fault, error, request);
    const problem = problemOf(fault);
    return { status: problem.status, mediaType: problemMediaType, text: jsonText(problem) };
  }
}

function sendAnswer(reply: FastifyReply, { status, mediaType, text }: Answer): FastifyReply {
  return text === null ? reply.code(status).send() : reply.code(status).type(mediaType).send(text);
}

function tellLog(log: Logger, fault: Fault, error: unknown, request: FastifyRequest): void {
  const where = { method: request.method, path: pathOf(request) };
  if (fault.code === 'INTERNAL') log.error({ err: error, ...where }, 'a request failed in a way that was taken for impossible');
  else log.info({ code: fault.code, ...where }, fault.message);
}

/** Fault REQUEST_INVALID. */
function keyOf(request: FastifyRequest): string | null {
  const header = request.headers['idempotency-key'];
  if (header === undefined) return null;
  const key = typeof header === 'string' ? readKey(header) : null;
  if (key === null) throw new Fault('REQUEST_INVALID', `Idempotency-Key: expected a quoted text or one word of at most ${keyCharactersMax} characters`);
  return key;
}

/** Fault REQUEST_INVALID, with all problems of all parts. */
function readInput(route: AnyRoute, request: FastifyRequest): RouteInput<unknown, unknown, unknown> {
  const problems: string[] = [];
  const read = (what: string, shape: z.ZodType | undefined, value: unknown): unknown => {
    if (shape === undefined) {
      if (value !== undefined && value !== null && Object.keys(Object(value)).length > 0) problems.push(`${what}: none is expected here`);
      return undefined;
    }
    const parsed = shape.safeParse(value ?? {});
    if (parsed.success) return parsed.data;
    problems.push(...parsed.error.issues.map(({ path, message }) => `${path.map(String).join('.') || what}: ${message}`));
    return undefined;
  };
  const input = {
    params: read('path', route.params, paramNames(route.path).length === 0 ? undefined : request.params),
    query: read('query', route.query, request.query), body: read('body', route.body, request.body),
  };
  if (problems.length > 0) throw new Fault('REQUEST_INVALID', problems.join('; '), { problems });
  return input;
}
