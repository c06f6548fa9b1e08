/** The routes that both roles have: what the API says of itself, the fault table, streams, tickets and operator tokens. */
import { z } from 'zod';
import { Fault, faultTable, type FaultCode, type FaultRow } from '../../journal/fault.ts';
import { safeName } from '../../journal/wire.ts';
import { routeOf, scopes, type RouteTable } from './route.ts';
import { count, instant } from './shapes/point-shapes.ts';

/** A token for longer than ten years is one without an end. */
export const tokenForMsMax = 3660 * 86_400_000;

const [auditEntriesDefault, auditEntriesMax] = [100, 10_000];

const route = routeOf<unknown>();

const faultRow = z.looseObject({ code: z.string(), meaning: z.string(), daemonDoes: z.string(), operatorCan: z.string() });
const tokenShape = z.looseObject({ id: z.string(), name: z.string(), scope: z.enum(scopes), createdAtMs: instant, expiresAtMs: instant.nullable(), usedAtMs: instant.nullable() });
/** Browsers give it when they connect again; as a query it is for who cannot set headers. */
const streamQuery = z.strictObject({
  ticket: z.string().min(1).max(100).optional().meta({ description: 'of POST /v1/tickets, where no Authorization header can be sent' }),
});

export const serviceRoutes = {
  about: route({
    method: 'GET', path: '/v1', scope: 'read', summary: 'Which role answers, and of which release',
    response: z.looseObject({ role: z.enum(['source', 'target']), version: z.string() }),
    handle: ({ services: { role, version } }) => ({ role, version }),
  }),
  openapi: route({
    method: 'GET', path: '/v1/openapi.json', scope: 'read', summary: 'This document', response: z.record(z.string(), z.unknown()),
    handle: ({ services }) => services.document(),
  }),
  explainAll: route({
    method: 'GET', path: '/v1/explain', scope: 'read', summary: 'Every code, what it means, what the daemon does and what a person can do', response: z.looseObject({ items: z.array(faultRow) }),
    handle: () => ({ items: Object.entries(faultTable).map(([code, row]) => ({ code, ...row })) }),
  }),
  explain: route({
    method: 'GET', path: '/v1/explain/{code}', scope: 'read', summary: 'One code', params: z.strictObject({ code: z.string().min(1).max(40) }), response: faultRow,
    handle: (_context, { params: { code } }): FaultRow & { readonly code: string } => {
      if (!Object.hasOwn(faultTable, code)) throw new Fault('REQUEST_INVALID', `there is no code ${code}`, { code });
      return { code, ...faultTable[code as FaultCode] };
    },
  }),
  events: route({
    method: 'GET', path: '/v1/events', scope: 'read', summary: 'What happens, as server-sent events; goes on after Last-Event-ID where that is known yet', query: streamQuery, mediaType: 'text/event-stream', stream: 'events', response: z.string(),
    handle: () => streamed(),
  }),
  live: route({
    method: 'GET', path: '/v1/live', scope: 'read', summary: 'The report, whenever it has changed, at most once a second, over a WebSocket', query: streamQuery, stream: 'live',
    handle: () => streamed(),
  }),
  ticket: route({
    method: 'POST', path: '/v1/tickets', scope: 'read', isRead: true, isSecret: true, summary: 'A ticket for one stream, good once and for half a minute', response: z.looseObject({ ticket: z.string(), expiresAtMs: instant }),
    handle: ({ services, actor }) => services.tickets.issue(actor),
  }),
  audit: route({
    method: 'GET', path: '/v1/audit', scope: 'read', summary: 'What was done here, by whom, with what outcome: the newest entries, newest first, and whether all of the trail is as it was written',
    query: z.strictObject({ limit: z.coerce.number().int().min(1).max(auditEntriesMax).optional() }),
    response: z.looseObject({ entries: z.array(z.looseObject({ n: count, atMs: instant, who: z.looseObject({ kind: z.string() }), act: z.string(), on: z.string().nullable(), what: z.record(z.string(), z.unknown()), outcome: z.string() })), entryCount: count, head: z.looseObject({ n: count, hash: z.string() }), flaw: z.string().nullable() }),
    handle: async ({ services }, { query: { limit } }) => {
      if (services.readTrail === null) throw new Fault('REQUEST_INVALID', 'this daemon keeps no audit trail');
      const { reading: { entryCount, last, broken }, entries } = await services.readTrail(limit ?? auditEntriesDefault);
      return { entries: [...entries].reverse(), entryCount, head: last, flaw: broken === null ? null : `line ${broken.line}: ${broken.why}` };
    },
  }),
  testAlerts: route({
    method: 'POST', path: '/v1/alerts/test', scope: 'operate', summary: 'Send a test on each way out of alerts that the config names', response: z.looseObject({ results: z.array(z.looseObject({ channel: z.string(), isDelivered: z.boolean(), answer: z.string(), tookMs: count })) }),
    handle: async ({ services }) => ({ results: await services.testAlerts?.() ?? [] }),
  }),
  listTokens: route({
    method: 'GET', path: '/v1/tokens', scope: 'administer', summary: 'The operators’ tokens, without their secrets', response: z.looseObject({ items: z.array(tokenShape) }),
    handle: ({ services }) => ({ items: services.tokens.list() }),
  }),
  createToken: route({
    method: 'POST', path: '/v1/tokens', scope: 'administer', isSecret: true, summary: 'A new token; its secret is shown this once',
    body: z.strictObject({ name: safeName, scope: z.enum(scopes), forMs: count.min(1000).max(tokenForMsMax).nullable().optional().meta({ description: 'ends by itself after so many ms; null or left out: it does not' }) }), response: tokenShape.extend({ token: z.string() }),
    handle: ({ services }, { body: { name, scope, forMs } }) => services.tokens.create(name, scope, forMs ?? null),
  }),
  revokeToken: route({
    method: 'DELETE', path: '/v1/tokens/{name}', scope: 'administer', summary: 'A token is refused from now on, and its streams end', params: z.strictObject({ name: safeName }),
    handle: ({ services }, { params: { name } }) => services.tokens.revoke(name),
  }),
} as const satisfies RouteTable;

/** Streams are answered by streams.ts, before a handler is asked. */
function streamed(): never {
  throw new Fault('REQUEST_INVALID', 'this is a stream: ask for it as one');
}
