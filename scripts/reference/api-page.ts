/** The routes of both roles, from their tables. */
import type { z } from 'zod';
import { paramNames, type AnyRoute, type RouteTable } from '../../console/api/route.ts';
import { serviceRoutes } from '../../console/api/service-routes.ts';
import { sourceRoutes } from '../../console/api/source-routes.ts';
import { targetRoutes } from '../../console/api/target-routes.ts';
import { madeFrom, table } from './pages.ts';

export function apiPage(): string {
  const shared = new Set<AnyRoute>(Object.values(serviceRoutes));
  const own = (routes: RouteTable): AnyRoute[] => Object.values(routes).filter((route) => !shared.has(route));
  return [
    '# HTTP API', '', madeFrom('the tables of routes'), '',
    'On the control socket, and over TLS where the config says `api: { listen: … }`. `GET /v1/openapi.json` is the whole of it, with every shape (OpenAPI 3.1).',
    'The scope is what a token needs: `read` < `operate` < `administer`. *local*: on the control socket alone. A failure is `application/problem+json` whose `code` is one of [the codes](codes.md).', '',
    '## Both roles', '', routeTable([...shared]), '', '## Source', '', routeTable(own(sourceRoutes)), '', '## Target', '', routeTable(own(targetRoutes)), '',
  ].join('\n');
}

function routeTable(routes: readonly AnyRoute[]): string {
  return table(['', 'scope', 'does', 'takes'], routes.map((route) => [`\`${route.method} ${route.path}\``, route.isLocal === true ? `${route.scope}, *local*` : route.scope, route.summary, takes(route)]));
}

function takes({ path, query, body }: AnyRoute): string {
  const known = new Set(paramNames(path));
  const keys = (schema: unknown): string => Object.entries((schema as { readonly shape?: Readonly<Record<string, z.ZodType>> } | undefined)?.shape ?? {})
    .filter(([key]) => !known.has(key)).map(([key, one]) => `\`${key}\`${one.safeParse(undefined).success ? '?' : ''}`).join(', ');
  const [asked, given] = [keys(query), keys(body)];
  return [asked === '' ? '' : `query: ${asked}`, given === '' ? '' : `body: ${given}`].filter((text) => text !== '').join('; ');
}
