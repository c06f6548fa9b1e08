/**
 * What a route of the API is: one entry of one table per role, from which come routing, checks of what arrives, the scope that it
 * takes, the OpenAPI document and the command line's typed client. A table holds no role and opens nothing: the client and the
 * document load it as well.
 *
 * Invariant: what a route's `handle` is given has passed the route's own shapes, and whoever asks has passed its scope.
 */
import type { z } from 'zod';
import type { ApiServices } from './services.ts';

/** What a token may do; each may do what those before it may. */
export const scopes = ['read', 'operate', 'administer'] as const;
export type Scope = (typeof scopes)[number];

export function isWithinScope(given: Scope, needed: Scope): boolean {
  return scopes.indexOf(given) >= scopes.indexOf(needed);
}

/**
 * Who asks. Of a local one, the user of the process at the other end of the socket; null where the system does not say. `target`: a process of the user as whom the target of
 * this host runs, which may ask a source what routes with `isForTarget` offer; `name`: that target's.
 */
export type Actor = { readonly kind: 'local'; readonly uid: number | null } | { readonly kind: 'target'; readonly uid: number; readonly name: string } | { readonly kind: 'token'; readonly tokenId: string; readonly name: string; readonly scope: Scope };

export function describeActor(actor: Actor): string {
  switch (actor.kind) {
    case 'local': return `local user ${actor.uid ?? 'unknown'}`;
    case 'target': return `this host’s target, user ${actor.uid}`;
    case 'token': return `token ${actor.name}`;
    default: return actor satisfies never;
  }
}

export interface RouteContext<Operations> {
  /** The role's, on behalf of `actor`. */
  readonly operations: Operations;
  readonly actor: Actor;
  readonly services: ApiServices;
}

export interface RouteInput<P, Q, B> { readonly params: P; readonly query: Q; readonly body: B }

/** `handle` that resolves to undefined is answered by 204. */
export interface Route<Operations = unknown, P extends z.ZodType = z.ZodType, Q extends z.ZodType = z.ZodType, B extends z.ZodType = z.ZodType, R = unknown> {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** RFC 6570 level 1: `/v1/groups/{group}`; each name is one of `params`. */
  readonly path: `/v1${string}`;
  readonly scope: Scope;
  /** One line, for the document. */
  readonly summary: string;
  /** Only through the unix socket: what the roles of one host ask of each other. */
  readonly isLocal?: true;
  /** Of `isLocal`: also for the target of this host when it runs as another user, who may ask nothing else. */
  readonly isForTarget?: true;
  /** The answer holds a secret: it is never written down for a retry. */
  readonly isSecret?: true;
  /** Changes nothing although it is no GET: not audited, and an Idempotency-Key means nothing. */
  readonly isRead?: true;
  readonly params?: P;
  readonly query?: Q;
  readonly body?: B;
  /** What is answered, as documented: members may be added. Absent: nothing (204). */
  readonly response?: z.ZodType;
  /** Other than JSON: `handle` then resolves to text. */
  readonly mediaType?: string;
  /** Answered by a stream (streams.ts) in place of `handle`. */
  readonly stream?: 'events' | 'live';
  readonly handle: (context: RouteContext<Operations>, input: RouteInput<z.output<P>, z.output<Q>, z.output<B>>) => R | Promise<R>;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- a table's entries differ in what they take; each was checked where it was made.
export type AnyRoute = Route<any, any, any, any, any>;
export type RouteTable = Readonly<Record<string, AnyRoute>>;

/** Makes entries of a table for roles with `Operations`; here because TypeScript infers all type parameters or none. */
export function routeOf<Operations>() {
  return <R, P extends z.ZodType = z.ZodUndefined, Q extends z.ZodType = z.ZodUndefined, B extends z.ZodType = z.ZodUndefined>(route: Route<Operations, P, Q, B, R>): Route<Operations, P, Q, B, R> => route;
}

/** What a caller gives: the parts that the route takes, as they are before they are checked. */
export type CallInput<T> = T extends Route<infer _O, infer P, infer Q, infer B, infer _R>
  ? ([z.input<P>] extends [undefined] ? { readonly params?: undefined } : { readonly params: z.input<P> })
    & ([z.input<Q>] extends [undefined] ? { readonly query?: undefined } : { readonly query?: z.input<Q> })
    & ([z.input<B>] extends [undefined] ? { readonly body?: undefined } : { readonly body: z.input<B> })
  : never;
export type CallResult<T> = T extends Route<infer _O, infer _P, infer _Q, infer _B, infer R> ? R : never;

const placeholder = /\{(\w+)\}/g;

/** The path as fastify has it: `/v1/groups/:group`. */
export function routerPath(path: string): string {
  return path.replace(placeholder, ':$1');
}

export function paramNames(path: string): string[] {
  return [...path.matchAll(placeholder)].map(([, name]) => name!);
}

/** The path with its parameters in it, encoded, and the query that is not undefined. */
export function fillPath(path: string, params: Readonly<Record<string, unknown>> = {}, query: Readonly<Record<string, unknown>> = {}): string {
  const filled = path.replace(placeholder, (_whole, name: string) => encodeSegment(String(params[name])));
  const search = new URLSearchParams(Object.entries(query).flatMap(([key, value]): [string, string][] => (value === undefined ? [] : [[key, String(value)]]))).toString();
  return search === '' ? filled : `${filled}?${search}`;
}

/** Dots alone would be taken for a step in the path by whatever is in between. */
function encodeSegment(text: string): string {
  const encoded = encodeURIComponent(text);
  return /^\.{1,2}$/.test(encoded) ? encoded.replaceAll('.', '%2E') : encoded;
}
