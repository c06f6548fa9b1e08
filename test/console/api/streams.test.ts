import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { WebSocket } from 'ws';
import { eventsBetween } from '../../../console/api/event-plan.ts';
import { ReportFeed, ringEventsMax } from '../../../console/api/report-feed.ts';
import type { TargetReport } from '../../../replica-target/report.ts';
import { sourceTargetDown, sourceUp, targetUp } from '../fixed-reports.ts';
import { waitFor } from '../../support/wait.ts';
import { openTargetApi, type OpenApi } from './open-api.ts';

/** A target whose newest point is what is said. */
function at(point: number): TargetReport {
  return { ...targetUp, groups: targetUp.groups.map((group) => ({ ...group, newest: { ...group.newest!, point } })) };
}

interface Event { readonly id: string; readonly type: string; readonly data: { readonly name?: string; readonly facts?: Record<string, unknown> } }

async function follow(api: OpenApi, headers: Record<string, string>, path = '/v1/events'): Promise<{ readonly events: Event[]; readonly incoming: IncomingMessage }> {
  const outgoing = request({ host: '127.0.0.1', port: api.port, path, rejectUnauthorized: false, agent: false, headers });
  outgoing.on('error', () => undefined);
  outgoing.end();
  const [incoming] = await once(outgoing, 'response') as [IncomingMessage];
  const events: Event[] = [];
  let text = '';
  incoming.on('error', () => undefined);
  incoming.on('data', (chunk: Buffer) => {
    const parts = (text += chunk.toString()).split('\n\n');
    text = parts.pop()!;
    for (const part of parts) {
      const field = (name: string): string => new RegExp(`^${name}: (.*)$`, 'm').exec(part)?.[1] ?? '';
      if (field('event') !== '') events.push({ id: field('id'), type: field('event'), data: JSON.parse(field('data')) as Event['data'] });
    }
  });
  return { events, incoming };
}

t.test('events follow what happens, and go on where a listener was', async (t) => {
  let report = at(3);
  const api = await openTargetApi(t, { report: () => report });
  const authorization = `Bearer ${await api.token('read')}`;
  const first = await follow(api, { authorization });
  t.match(first.incoming.headers, { 'content-type': /^text\/event-stream/, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
  await waitFor(() => first.events.length === 1, { what: 'ready', limitMs: 20_000 });
  t.equal(first.events[0]!.type, 'ready');
  report = at(4);
  await waitFor(() => first.events.length === 3, { what: 'two groups, a point each', limitMs: 20_000 });
  t.match(first.events[1], { type: 'point', data: { name: 'web', facts: { point: '1.4' } } });
  const seen = first.events[1]!.id;
  first.incoming.destroy();
  report = at(5);
  const second = await follow(api, { authorization, 'last-event-id': seen });
  await waitFor(() => second.events.filter(({ type }) => type === 'point').length === 3, { what: 'what was missed and what is new', limitMs: 20_000 });
  t.strictSame(second.events.filter(({ type }) => type === 'point').map(({ data }) => `${data.name} ${data.facts!['point']}`), ['full 1.4', 'web 1.5', 'full 1.5']);
  const stranger = await follow(api, { authorization, 'last-event-id': 'ffffffff-7' });
  await waitFor(() => stranger.events.length > 0, { what: 'an answer', limitMs: 20_000 });
  t.equal(stranger.events[0]!.type, 'missed', 'of another process');
  const { ticket } = await api.ask('/v1/tickets', { method: 'POST', token: authorization.slice(7) }).then(({ json }) => json as { ticket: string });
  const ticketed = await follow(api, {}, `/v1/events?ticket=${ticket}`);
  t.equal(ticketed.incoming.statusCode, 200);
  t.equal((await follow(api, {}, `/v1/events?ticket=${ticket}`)).incoming.statusCode, 401, 'a ticket is good once');
  t.notMatch(api.logged(), ticket);
  await api.local.revokeToken((await api.local.tokens())[0]!.name);
  await Promise.all([second, stranger, ticketed].map(async ({ incoming }) => { if (!incoming.destroyed) await new Promise((resolve) => { incoming.once('close', resolve); }); }));
  t.pass('a token that is revoked ends its streams');
});

t.test('the live report: at once, when it changed, and for who is slow the newest alone', async (t) => {
  let count = 0;
  // 1 MiB that does not compress to nothing.
  const ballast = Array.from({ length: 1 << 15 }, (_one, index) => (Math.imul(index, 2654435761) >>> 0).toString(36)).join('').repeat(4);
  let isMoving = false;
  const api = await openTargetApi(t, { report: () => ({ ...targetUp, address: isMoving ? `${count += 1} ${ballast}` : 'still' }) });
  const token = await api.token('read');
  const open = (path: string, headers = {}): WebSocket => new WebSocket(`wss://127.0.0.1:${api.port}${path}`, { rejectUnauthorized: false, headers });
  const refused = open('/v1/live');
  const [, response] = await once(refused, 'unexpected-response') as [unknown, IncomingMessage];
  t.equal(response.statusCode, 401);
  response.destroy();
  const ws = open('/v1/live', { authorization: `Bearer ${token}` });
  t.teardown(() => ws.terminate());
  const seen: string[] = [];
  ws.on('message', (data: Buffer) => { seen.push((JSON.parse(data.toString('utf8')) as TargetReport).address.split(' ')[0]!); });
  await waitFor(() => seen.length === 1, { what: 'the report at once', limitMs: 20_000 });
  t.equal(seen[0], 'still');
  // Its socket is not read from now on.
  ws.pause();
  isMoving = true;
  await waitFor(() => count > 200, { what: 'two hundred reports', limitMs: 20_000 });
  ws.resume();
  isMoving = false;
  await waitFor(() => seen.at(-1) === 'still', { what: 'the newest', limitMs: 20_000 });
  t.ok(seen.length < count / 2, `${seen.length} of ${count} reports were sent`);
  ws.send('x'.repeat(2000));
  const [code] = await once(ws, 'close') as [number];
  t.equal(code, 1009, 'clients have nothing long to say');
});

t.test('the ring is bounded', async (t) => {
  let report = at(1);
  const feed = new ReportFeed({ report: () => report, lookMs: 1 });
  t.teardown(() => feed.close());
  const before = feed.newestId;
  let count = 0;
  feed.listen({ onEvent: () => { count += 1; }, onLook: () => { report = at((report.groups[0]!.newest?.point ?? 0) + 1); } });
  await waitFor(() => count > ringEventsMax, { what: 'more events than the ring holds', limitMs: 20_000 });
  t.equal(feed.eventsAfter(before), null);
  t.equal(feed.eventsAfter(feed.newestId)?.length, 0);
  for (const none of ['', 'x', `${before.split('-')[0]}--1`, `${before.split('-')[0]}-999999999`]) t.equal(feed.eventsAfter(none), null);
});

t.test('what counts as an event', async (t) => {
  t.strictSame(eventsBetween(null, targetUp), []);
  t.strictSame(eventsBetween(targetUp, { ...targetUp, atMs: 1, memoryRssBytes: 7 }), []);
  t.match(eventsBetween(sourceUp, sourceTargetDown), [{ type: 'group', name: 'web', facts: { isHere: false } }, { type: 'group', name: 'mail' }, { type: 'group', name: 'db' }, { type: 'phase', name: 'db', facts: { phase: 'behind' } }, { type: 'point' }, { type: 'alarm', facts: { code: 'TARGET_UNREACHABLE' } }, { type: 'link', name: 'bravo', facts: { state: 'down', before: 'up' } }]);
  const released = { ...targetUp, groups: targetUp.groups.map((group) => ({ ...group, held: null })) };
  t.match(eventsBetween(targetUp, released), [{ type: 'alarm', name: 'full', facts: { isRaised: false, code: 'STORE_FULL' } }]);
  t.match(eventsBetween(targetUp, { ...targetUp, groups: targetUp.groups.map((group) => ({ ...group, state: 'failed-over', term: 2 })) }), [{ type: 'failover', name: 'web', facts: { state: 'failed-over', before: 'protected', term: 2 } }, { type: 'failover', name: 'full' }]);
});

t.test('files of the dashboard: compressed as they lie there, hashed names for good, nothing outside', async (t) => {
  const assets = await mkdtemp(join(tmpdir(), 'ai-assets-'));
  t.teardown(() => rm(assets, { recursive: true, force: true }));
  await writeFile(join(assets, 'index.html'), '<!doctype html>');
  await writeFile(join(assets, 'app-1a2b3c4d.js'), 'plain');
  await writeFile(join(assets, 'app-1a2b3c4d.js.br'), 'brotli');
  const api = await openTargetApi(t, {}, { assetsFolder: assets });
  const page = await api.ask('/');
  t.match(page, { status: 200, text: '<!doctype html>', headers: { 'cache-control': 'no-cache', etag: String, 'content-security-policy': /default-src 'none'/ } });
  t.equal((await api.ask('/', { headers: { 'if-none-match': page.headers.etag! } })).status, 304);
  t.match(await api.ask('/app-1a2b3c4d.js', { headers: { 'accept-encoding': 'br' } }), { status: 200, text: 'brotli', headers: { 'content-encoding': 'br', 'cache-control': /immutable/ } });
  t.match(await api.ask('/app-1a2b3c4d.js'), { text: 'plain' });
  for (const path of ['/..%2f..%2fetc%2fpasswd', '/../api/tokens.json', '/nothing.js']) t.equal((await api.ask(path)).status, 404, path);
});
