import { readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Validator } from '@seriousme/openapi-schema-validator';
import t from 'tap';
import { openApiDocument } from '../../../console/api/openapi.ts';
import { pageOfPoints } from '../../../console/api/page.ts';
import { faultOf, problemShape } from '../../../console/api/problem.ts';
import { fillPath, paramNames, type AnyRoute, type RouteTable } from '../../../console/api/route.ts';
import { sourceReportShape } from '../../../console/api/shapes/source-shapes.ts';
import { sourceRoutes } from '../../../console/api/source-routes.ts';
import { targetRoutes } from '../../../console/api/target-routes.ts';
import { TargetClient } from '../../../console/control-client.ts';
import { Fault } from '../../../journal/fault.ts';
import { sourceTargetDown, sourceUp } from '../fixed-reports.ts';
import { openTargetApi } from './open-api.ts';

t.test('the OpenAPI document of each role is one, and names every route', async (t) => {
  for (const [role, table] of [['target', targetRoutes], ['source', sourceRoutes]] as const) {
    const document = openApiDocument(table, role, '0.1.0');
    const validator = new Validator();
    const { valid, errors } = await validator.validate(JSON.parse(JSON.stringify(document)) as Record<string, unknown>);
    t.ok(valid, `${role}: ${JSON.stringify(errors)}`);
    t.equal(validator.version, '3.1');
    const paths = document['paths'] as Record<string, Record<string, { readonly 'x-scope': string; readonly parameters?: readonly { readonly name?: string; readonly in?: string }[] }>>;
    for (const route of Object.values(table as RouteTable)) {
      const operation = paths[route.path]![route.method.toLowerCase()]!;
      t.equal(operation['x-scope'], route.scope);
      t.strictSame((operation.parameters ?? []).filter((one) => one.in === 'path').map(({ name }) => name), paramNames(route.path), route.path);
    }
    const routes = Object.values(table as RouteTable).map(({ method, path }) => `${method} ${path}`);
    t.equal(new Set(routes).size, routes.length, 'no two entries are one route');
  }
});

t.test('what is answered is of the documented shape, over the network as on the socket', async (t) => {
  const api = await openTargetApi(t);
  const token = await api.token('administer');
  const document = (await api.ask('/v1/openapi.json', { token })).json;
  t.equal(document['openapi'], '3.1.0');
  const params: Record<string, string> = { group: 'web', at: 'newest', disk: '0', holdId: 'h1', code: 'INTERNAL', name: 'none' };
  const queries: Record<string, string> = { changes: '?since=1.1&point=1.2', plan: '?planned=true' };
  for (const [name, route] of Object.entries<AnyRoute>(targetRoutes)) {
    if (route.method !== 'GET' || route.stream !== undefined) continue;
    const { status, json, headers } = await api.ask(fillPath(route.path, params) + (queries[name] ?? ''), { token });
    t.equal(status, 200, name);
    t.ok(route.response!.safeParse(json).success, `${name}: ${JSON.stringify(route.response!.safeParse(json).error?.issues)}`);
    t.equal(headers['cache-control'], 'no-store');
    t.match(headers['content-security-policy'], /frame-ancestors 'none'/);
    t.equal(headers['access-control-allow-origin'], undefined);
  }
  for (const report of [sourceUp, sourceTargetDown]) t.ok(sourceReportShape.safeParse(report).success);
  const detail = (await api.ask('/v1/groups/web', { token })).json as { readonly group: { readonly name: string } };
  t.equal(detail.group.name, 'web');
});

t.test('problems are RFC 9457, and come back as the faults that they were', async (t) => {
  const api = await openTargetApi(t, { timeline: async (group) => { throw new Fault('GROUP_UNKNOWN', `no group named ${group} is here`, { group }); } });
  const token = await api.token('operate');
  const unknown = await api.ask('/v1/groups/none/timeline', { token });
  t.equal(unknown.status, 404);
  t.match(unknown.headers['content-type'], /^application\/problem\+json/);
  t.match(unknown.json, { type: '/v1/explain/GROUP_UNKNOWN', status: 404, code: 'GROUP_UNKNOWN', detail: 'no group named none is here', facts: { group: 'none' } });
  t.match(faultOf(unknown.json), { code: 'GROUP_UNKNOWN', message: 'no group named none is here' });
  t.match((await api.ask(String(unknown.json['type']), { token })).json, { code: 'GROUP_UNKNOWN', meaning: unknown.json['title'] }, 'its type can be read');
  t.match(await api.ask('/v1/nothing', { token }), { status: 404, json: { code: 'REQUEST_INVALID' } });
  t.match(await api.ask('/v1/groups/..%2Fetc/timeline', { token }), { status: 400, json: { detail: /^group: / } });
  t.match(await api.ask('/v1/groups/web/test', { token, method: 'POST', body: { surprise: 1 } }), { status: 400, json: { detail: /surprise/ } });
  t.match(await api.ask('/v1/groups/web/test', { token, method: 'POST', body: { at: 'x'.repeat(80_000) } }), { status: 413, json: { code: 'REQUEST_INVALID', status: 413 } });
  t.match(await api.ask('/v1/groups/web/plan?planned=perhaps', { token }), { status: 400 });
  t.match(await api.ask('/v1/live', { token }), { status: 426, headers: { upgrade: 'websocket' } });
  t.ok(problemShape.safeParse((await api.ask('/v1/nothing')).json).success);
});

t.test('an act is done once for its Idempotency-Key', async (t) => {
  let finish: () => void = () => undefined;
  let began: () => void = () => undefined;
  let count = 0;
  const hasBegun = new Promise<void>((resolve) => { began = resolve; });
  const isFinished = new Promise<void>((resolve) => { finish = resolve; });
  const commitFailover = async (): Promise<void> => { count += 1; began(); await isFinished; };
  const api = await openTargetApi(t, { commitFailover });
  const [token, other] = [await api.token('administer'), await api.token('administer')];
  const commit = (by: string, key: string, group = 'web') => api.ask(`/v1/groups/${group}/commit`, { method: 'POST', token: by, headers: { 'idempotency-key': key } });
  const first = commit(token, '"k 1"');
  await hasBegun;
  const retry = commit(token, '"k 1"');
  t.match(await commit(token, '"k 1"', 'db'), { status: 422, json: { code: 'KEY_REUSED' } }, 'another request under the key');
  t.match(await commit(token, 'two words'), { status: 400 });
  finish();
  t.match(await first, { status: 204, headers: { 'idempotency-replayed': 'false' } });
  t.match(await retry, { status: 204, headers: { 'idempotency-replayed': 'true' } }, 'who asked meanwhile got the same answer');
  t.match(await commit(token, '"k 1"'), { status: 204, headers: { 'idempotency-replayed': 'true' } });
  t.equal(count, 1);
  await commit(other, '"k 1"');
  t.equal(count, 2, 'another operator’s key is another key');
});

t.test('failures are answered again as they were, and nothing refused for its form takes a key', async (t) => {
  let count = 0;
  const api = await openTargetApi(t, { stopTest: async () => { count += 1; throw new Fault('FAILOVER_STATE', `no test runs (${count})`); } });
  const token = await api.token('operate');
  const stop = (body?: unknown) => api.ask('/v1/groups/web/test/stop', { method: 'POST', token, body, headers: { 'idempotency-key': 'k' } });
  t.match(await stop({ surprise: 1 }), { status: 400 });
  for (const isReplayed of ['false', 'true']) t.match(await stop(), { status: 409, headers: { 'idempotency-replayed': isReplayed }, json: { code: 'FAILOVER_STATE', detail: 'no test runs (1)' } });
});

t.test('pages', async (t) => {
  const points = Array.from({ length: 250 }, (_one, at) => ({ term: 1 + Math.floor(at / 100), point: 1 + (at % 100) }));
  for (const order of ['newest', 'oldest'] as const) {
    const seen: typeof points = [];
    let left = points;
    for (let cursor: string | null | undefined; cursor !== null;) {
      const page = pageOfPoints(left, { limit: 40, order, ...(cursor === undefined ? {} : { cursor }) });
      seen.push(...page.items);
      cursor = page.next;
      // What was given last is pruned, and a new point comes.
      left = [...left.filter((one) => one !== page.items.at(-1)), { term: 9, point: seen.length }];
    }
    const old = seen.filter(({ term }) => term < 9);
    t.strictSame(order === 'newest' ? old.reverse() : old, points, `${order}: each once, none left out`);
  }
  t.throws(() => pageOfPoints(points, { cursor: 'zzz' }), { code: 'REQUEST_INVALID' });
  const api = await openTargetApi(t);
  const token = await api.token('read');
  const first = (await api.ask('/v1/groups/web/points?limit=2', { token })).json as { items: { point: number }[]; next: string };
  t.strictSame(first.items.map(({ point }) => point), [3, 2], 'newest first');
  const second = (await api.ask(`/v1/groups/web/points?limit=2&cursor=${first.next}`, { token })).json as { items: { point: number }[]; next: null };
  t.strictSame([second.items.map(({ point }) => point), second.next], [[1], null]);
  t.match(await api.ask('/v1/groups/web/points?limit=0', { token }), { status: 400 });
});

t.test('tokens: shown once, kept as hashes, refused when revoked or over', async (t) => {
  const api = await openTargetApi(t);
  const { token, name } = await api.local.createToken('night', 'administer', null);
  const path = join(api.folder, 'api', 'tokens.json');
  t.equal((await stat(path)).mode & 0o777, 0o600);
  t.notMatch(await readFile(path, 'utf8'), token);
  t.match(await api.local.tokens(), [{ name, scope: 'administer', usedAtMs: null }]);
  await t.rejects(api.local.createToken('night', 'read', null), { code: 'REQUEST_INVALID', message: /already/ });
  const remote = new TargetClient({ host: '127.0.0.1', port: api.port, token, fingerprint: api.fingerprint });
  const made = await remote.createToken('day', 'read', 60_000);
  t.ok(made.expiresAtMs! - made.createdAtMs === 60_000);
  t.match((await api.local.tokens()).find((one) => one.name === 'night')?.usedAtMs, Number);
  await api.local.revokeToken('night');
  await t.rejects(remote.report(), { code: 'OPERATOR_TOKEN' });
  await t.rejects(api.local.revokeToken('night'), { code: 'REQUEST_INVALID' });
  for (const secret of [token, made.token]) {
    t.notMatch(api.logged(), secret);
    for (const file of await readdir(join(api.folder, 'api', 'acts'))) t.notMatch(await readFile(join(api.folder, 'api', 'acts', file), 'utf8'), secret);
  }
});
