import t from 'tap';
import { createServer, type AddressInfo } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { createServer as createHttpsServer } from 'node:https';
import { WebSocketServer, type WebSocket } from 'ws';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { sendDelta } from '../../daemon/stream/delta-sender.ts';
import { Encoder } from '../../daemon/stream/encoder.ts';
import { openTargetLink, type TargetLinkOptions } from '../../daemon/stream/target-link.ts';
import type { TargetLink } from '../../daemon/stream/session.ts';
import { isFault } from '../../journal/fault.ts';
import { fingerprintOf, makeCertificate, targetProof } from '../../journal/identity.ts';
import { decodeMessage, sourceMessage, type TargetMessage } from '../../journal/wire.ts';
import { seededFractions } from '../support/seeded.ts';
import { waitFor } from '../support/wait.ts';
import { cuttingProxy, listen } from './cutting-proxy.ts';
import { randomDelta } from './test-deltas.ts';
import { announcement, groupId, quiet, sourceId, startIngest, type Teardown } from '../ingest/loopback.ts';

const limit = { limitMs: 15_000, everyMs: 5 };
const soon = (): AbortSignal => AbortSignal.timeout(30_000);
const secret = Buffer.alloc(32, 4);

async function faultCode(link: TargetLink, code: string): Promise<void> {
  await waitFor(() => link.report().lastFault?.code === code, { ...limit, what: `${code}, not ${JSON.stringify(link.report())}` });
}

t.test('a link that cannot be: named, reported, tried again', async (t) => {
  const loopback = await startIngest(t);
  await t.test('a wrong secret', async (t) => {
    const link = loopback.link({ secret: Buffer.alloc(32) });
    await faultCode(link, 'WIRE_SECRET');
    await waitFor(() => (loopback.ingest.refusals().WIRE_SECRET ?? 0) >= 2, { ...limit, what: 'another try' });
    t.match(link.report(), { state: 'down', reconnects: 0, sentBytes: 0 });
    t.same(loopback.ingest.sources(), []);
    await t.rejects(link.session(AbortSignal.timeout(50)), { name: 'TimeoutError' });
  });
  await t.test('another certificate than the pinned one: not a byte is said', async (t) => {
    const { key, cert } = await makeCertificate('impostor');
    let heardBytes = 0;
    const server = createTlsServer({ key, cert }, (socket) => {
      socket.on('data', (chunk) => { heardBytes += chunk.length; });
      socket.on('error', () => undefined);
    });
    await listen(t, server);
    const link = loopback.link({ port: (server.address() as AddressInfo).port });
    await faultCode(link, 'WIRE_FINGERPRINT');
    await link.close();
    t.equal(heardBytes, 0);
  });
  await t.test('nobody there, no such name', async (t) => {
    const server = createServer();
    await listen(t, server);
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    await faultCode(loopback.link({ port }), 'TARGET_UNREACHABLE');
    await faultCode(loopback.link({ host: 'no-such-host.invalid' }), 'TARGET_UNREACHABLE');
    t.pass('both reported');
  });
  await t.test('something else there', async (t) => {
    const echo = createServer((socket) => { socket.on('error', () => undefined); socket.pipe(socket); });
    await listen(t, echo);
    await faultCode(loopback.link({ port: (echo.address() as AddressInfo).port }), 'WIRE_GARBAGE');
    const { key, cert } = await makeCertificate('web');
    const web = createHttpsServer({ key, cert }, (_request, response) => response.end('hello'));
    await listen(t, web);
    await faultCode(loopback.link({ port: (web.address() as AddressInfo).port, fingerprint: fingerprintOf(cert) }), 'WIRE_GARBAGE');
    t.pass('both reported');
  });
});

t.test('a target that misbehaves', async (t) => {
  const cases: Record<string, { readonly code: string; readonly greet?: Partial<Greeting>; act?(ws: WebSocket): void }> = {
    'chooses a version that was not offered': { code: 'WIRE_VERSION', greet: { version: 2 } },
    'refuses by a code of a later release': { code: 'WIRE_VERSION', greet: { refusal: 'LATER_CODE' } },
    'cannot prove itself': { code: 'WIRE_SECRET', greet: { secret: Buffer.alloc(32) } },
    'welcomes before the challenge': { code: 'WIRE_GARBAGE', greet: { isHasty: true } },
    'says what is no message': { code: 'WIRE_GARBAGE', act: (ws) => ws.send('{}') },
    'sends records': { code: 'WIRE_GARBAGE', act: (ws) => ws.send(Buffer.alloc(100)) },
    'sends a frame above the limit': { code: 'WIRE_OVERSIZED', act: (ws) => ws.send(Buffer.alloc(5 * 1024 * 1024)) },
    'answers what was not asked': { code: 'WIRE_GARBAGE', act: (ws) => ws.send(JSON.stringify({ t: 'seeded', group: groupId })) },
    'refuses the connection': { code: 'WIRE_OVERSIZED', act: (ws) => ws.send(JSON.stringify({ t: 'refused', code: 'WIRE_OVERSIZED', message: 'too much' })) },
    'falls silent': { code: 'WIRE_SILENT', act: (ws) => ws.pause() },
  };
  for (const [what, { code, greet, act }] of Object.entries(cases)) {
    await t.test(what, async (t) => {
      const { link, sockets } = await fakeTarget(t, greet ?? {}, { limits: { heartbeatMs: 20, silenceMs: 300 } });
      if (act !== undefined) {
        const session = await link.session(soon());
        const waiting = session.announce(announcement());
        act(sockets.at(-1)!);
        const fault = await session.closed;
        t.equal(fault.code, code);
        await t.rejects(waiting, fault, 'who waits is told the same');
        await t.rejects(session.announce(announcement()), fault, 'who comes later too');
      }
      await faultCode(link, code);
    });
  }
});

t.test('a reply that does not come within its limit ends the session', async (t) => {
  const { link } = await fakeTarget(t, {}, { limits: { heartbeatMs: 10, replyMs: { group: 50, differs: 50, seeded: 50, forgotten: 50 } } });
  const session = await link.session(soon());
  await t.rejects(session.announce(announcement()), { code: 'WIRE_SILENT' });
});

t.test('held and refused end what is waited for, and are told', async (t) => {
  const { link, sockets } = await fakeTarget(t, {});
  const session = await link.session(soon());
  const told: unknown[] = [];
  session.listen(groupId, {
    onHeld: (code) => told.push(code), onReleased: () => told.push('released'), onRefused: (fault) => told.push(fault.code), onClosed: (fault) => told.push(fault.code),
    onAck: (ack) => told.push(ack), onApplied: (applied) => told.push(applied),
  });
  const quietListener = session.listen(groupId, { onHeld: () => told.push('never') });
  quietListener();
  const say = (message: TargetMessage): void => sockets.at(-1)!.send(JSON.stringify(message));
  const seeding = session.seedEnd(groupId);
  const comparing = session.compare({ groupId, disk: 0, offset: 0, length: 512, blockBytes: 4096, hashes: Buffer.alloc(32) });
  say({ t: 'held', group: groupId, code: 'STORE_FULL', message: 'no space' });
  await t.rejects(seeding, { code: 'STORE_FULL' });
  await t.rejects(comparing, { code: 'STORE_FULL' });
  const announcing = session.announce(announcement());
  say({ t: 'released', group: groupId });
  say({ t: 'ack', group: groupId, term: 1, point: 4 });
  say({ t: 'applied', group: groupId, term: 1, point: 3 });
  say({ t: 'refused', group: groupId, code: 'TERM_OLD', message: 'over', term: 9 });
  await t.rejects(announcing, { code: 'TERM_OLD', facts: { term: 9 } });
  session.close();
  await session.closed;
  t.same(told, ['STORE_FULL', 'released', { term: 1, point: 4 }, { term: 1, point: 3 }, 'TERM_OLD', 'TARGET_UNREACHABLE']);
});

t.test('after a fall the link comes back by itself', async (t) => {
  const loopback = await startIngest(t);
  const link = loopback.link();
  const first = await link.session(soon());
  t.equal(link.report().state, 'up');
  first.close();
  await first.closed;
  const second = await link.session(soon());
  t.not(second, first);
  t.match(link.report(), { state: 'up', reconnects: 1, lastFault: { code: 'TARGET_UNREACHABLE' } });
  await link.close();
  t.equal(link.report().state, 'down');
  t.equal((await second.closed).code, 'TARGET_UNREACHABLE');
  await t.rejects(link.session(soon()), { code: 'TARGET_UNREACHABLE' });
});

t.test('cut at arbitrary bytes, again and again: every point arrives once, and whole', async (t) => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  t.comment(`SEED=${seed}`);
  const fraction = seededFractions(seed);
  const loopback = await startIngest(t);
  const proxy = await cuttingProxy(t, loopback.ingest.address.port, fraction);
  // Pauses between attempts are not the point here.
  const link = loopback.link({ port: proxy.port, clock: { ...nodeClock, delay: (ms, signal) => nodeClock.delay(Math.min(ms, 20), signal) } });
  const encoder = new Encoder({ clock: nodeClock });
  const model = Buffer.alloc(16 * 1024 * 1024);
  const pointCount = 12;
  for (let point = 1; point <= pointCount; point++) {
    const delta = randomDelta(fraction, model);
    for (let isDone = false; !isDone;) {
      const session = await link.session(soon());
      try {
        const holding = await session.announce(announcement());
        if (holding.newest !== null && holding.newest.point >= point) break;
        t.equal(holding.newest?.point ?? 0, point - 1, 'never behind what was acknowledged');
        await sendDelta(session, {
          groupId, random: nodeRandom, encoder, term: 1, base: holding.newest, next: { term: 1, point }, open: holding.open,
        }, delta);
        isDone = true;
      } catch (error) {
        if (!isFault(error)) throw error;
        await session.closed;
      }
    }
  }
  const store = loopback.registry.find('web')!;
  t.same(store.newest, { term: 1, point: pointCount });
  t.ok(store.disks.get(0)!.equals(model), 'the content is the model’s');
  t.ok(proxy.cuts() > 0, `${proxy.cuts()} cuts`);
  t.same(Object.keys(loopback.ingest.refusals()).filter((code) => code !== 'WIRE_GARBAGE'), [], 'a cut is no misbehaviour');
});

interface Greeting { readonly version: number; readonly secret: Buffer; readonly isHasty: boolean; readonly refusal: string }

/** A target in the hands of the test: greets as told, then leaves the socket to the test. */
async function fakeTarget(t: Teardown, greet: Partial<Greeting>, options: Partial<TargetLinkOptions> = {}): Promise<{ link: TargetLink; sockets: WebSocket[] }> {
  const { key, cert } = await makeCertificate('fake');
  const fingerprint = fingerprintOf(cert);
  const server = createHttpsServer({ key, cert });
  const upgrades = new WebSocketServer({ server });
  const sockets: WebSocket[] = [];
  upgrades.on('connection', (ws) => {
    let sourceNonce = '';
    const targetNonce = '06'.repeat(32);
    const say = (message: TargetMessage | { t: 'refused'; code: string; message: string }): void => ws.send(JSON.stringify(message));
    ws.on('error', () => undefined);
    ws.on('message', (data, isBinary) => {
      const message = isBinary ? undefined : decodeMessage(sourceMessage, (data as Buffer).toString());
      if (message?.t === 'hello') {
        sourceNonce = message.nonce;
        if (greet.refusal !== undefined) return say({ t: 'refused', code: greet.refusal, message: 'no' });
        if (greet.isHasty !== true) return say({ t: 'challenge', version: greet.version ?? 1, targetId: '22'.repeat(16), targetName: 'fake', nonce: targetNonce });
      }
      if (message?.t === 'auth' || message?.t === 'hello') {
        sockets.push(ws);
        say({ t: 'welcome', mac: targetProof({ secret: greet.secret ?? secret, sourceNonce, targetNonce, fingerprint }), creditBytes: 1_000_000 });
      }
    });
  });
  await listen(t, server);
  const link = openTargetLink({
    name: 'fake', host: '127.0.0.1', port: (server.address() as AddressInfo).port, fingerprint, secret, sourceId, sourceName: 'source', clock: nodeClock, random: nodeRandom, log: quiet, ...options,
  });
  t.teardown(async () => {
    await link.close();
    for (const client of upgrades.clients) client.terminate();
  });
  return { link, sockets };
}
