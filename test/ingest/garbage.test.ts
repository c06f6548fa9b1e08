import t from 'tap';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { randomBytes } from 'node:crypto';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { Writable } from 'node:stream';
import { pino } from 'pino';
import { controlBytesMax, creditBytes, frameBytesMax } from '../../journal/limits.ts';
import { protocolPath } from '../../journal/wire.ts';
import { waitFor } from '../support/wait.ts';
import { announcement, groupId, sourceId, startIngest, type Loopback } from './loopback.ts';
import { RawSource, recordBytes } from './raw-source.ts';

const limit = { limitMs: 10_000, everyMs: 5 };

async function tls(port: number): Promise<TLSSocket> {
  const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
  socket.on('error', () => undefined);
  socket.resume();
  await once(socket, 'secureConnect');
  return socket;
}

/** The refusal was counted under this code, and the target serves on: a well-behaved source gets in and through. */
async function isCountedAndAlive(t: { match(found: unknown, pattern: object): unknown }, loopback: Loopback, code: string): Promise<void> {
  await waitFor(() => (loopback.ingest.refusals()[code] ?? 0) > 0, { ...limit, what: `${code}, among ${JSON.stringify(loopback.ingest.refusals())}` });
  const other = await RawSource.authenticated(loopback, '77'.repeat(16));
  other.say({ t: 'announce', ...announcement({ group: 'bb'.repeat(16), name: 'other' }) });
  t.match(await other.hear('group'), { group: 'bb'.repeat(16) });
  other.ws.terminate();
}

t.test('before the handshake', async (t) => {
  const cases: Record<string, [string, (port: number) => Promise<void>]> = {
    'no TLS': ['WIRE_GARBAGE', async (port) => {
      const socket = connectTcp(port, '127.0.0.1');
      socket.on('error', () => undefined);
      socket.resume();
      socket.end(randomBytes(2000));
      await once(socket, 'close');
    }],
    'random bytes inside TLS': ['WIRE_GARBAGE', async (port) => {
      const socket = await tls(port);
      socket.write(randomBytes(2000));
      await once(socket, 'close');
    }],
    'a browser': ['WIRE_GARBAGE', async (port) => {
      const socket = await tls(port);
      socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      await once(socket, 'close');
    }],
    'another path': ['WIRE_GARBAGE', async (port) => { await (await RawSource.open(port, '/chat')).closed(); }],
    'a newer path': ['WIRE_VERSION', async (port) => { await (await RawSource.open(port, '/afterimage/v2')).closed(); }],
    'an upgrade without a key': ['WIRE_GARBAGE', async (port) => {
      const socket = await tls(port);
      socket.write(`GET ${protocolPath} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`);
      await once(socket, 'close');
    }],
    'bytes that are no frame': ['WIRE_GARBAGE', async (port) => {
      const socket = await tls(port);
      socket.write(`GET ${protocolPath} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`);
      socket.write(Buffer.alloc(200, 0xff));
      await once(socket, 'close');
    }],
    'text that is no message': ['WIRE_GARBAGE', async (port) => {
      const source = await RawSource.open(port);
      source.ws.send('{"t":"hello"');
      t.match(await source.hear('refused'), { code: 'WIRE_GARBAGE' });
      await source.closed();
    }],
    'a request before hello': ['WIRE_GARBAGE', async (port) => {
      const source = await RawSource.open(port);
      source.say({ t: 'announce', ...announcement() });
      await source.closed();
    }],
    'records before the proof': ['WIRE_GARBAGE', async (port) => {
      const source = await RawSource.open(port);
      source.ws.send(recordBytes('open'));
      await source.closed();
    }],
    'another version': ['WIRE_VERSION', async (port) => {
      const source = await RawSource.open(port);
      source.say({ t: 'hello', versions: [2, 3], sourceId, sourceName: 'raw', nonce: '05'.repeat(32) });
      const { code, message } = await source.hear('refused');
      t.equal(code, 'WIRE_VERSION');
      t.match(message, /version 1.*2, 3/, 'it says which versions each speaks');
      await source.closed();
    }],
    'a wrong secret': ['WIRE_SECRET', async (port) => {
      const source = await RawSource.open(port);
      source.say({ t: 'hello', versions: [1], sourceId, sourceName: 'raw', nonce: '05'.repeat(32) });
      await source.hear('challenge');
      source.say({ t: 'auth', mac: '00'.repeat(32) });
      t.match(await source.hear('refused'), { code: 'WIRE_SECRET' });
      await source.closed();
    }],
    'a large frame before the proof': ['WIRE_OVERSIZED', async (port) => {
      const source = await RawSource.open(port);
      source.ws.send(Buffer.alloc(3 * 1024 * 1024), () => undefined);
      await source.closed();
    }],
  };
  const loopback = await startIngest(t);
  for (const [what, [code, misbehave]] of Object.entries(cases)) {
    const before = loopback.ingest.refusals()[code] ?? 0;
    await misbehave(loopback.ingest.address.port);
    await waitFor(() => (loopback.ingest.refusals()[code] ?? 0) > before, { ...limit, what: `${what}: ${code}, among ${JSON.stringify(loopback.ingest.refusals())}` });
    t.pass(`${what}: ${code}`);
  }
  await isCountedAndAlive(t, loopback, 'WIRE_SECRET');
  t.same([...loopback.registry.stores.keys()], ['bb'.repeat(16)], 'no group came of any of it');
});

t.test('after the proof', async (t) => {
  const flipped = recordBytes('data', { sequence: 1 });
  flipped[1000]! ^= 1;
  const cases: Record<string, [string, (source: RawSource) => void]> = {
    'a flipped bit': ['RECORD_CORRUPT', (source) => source.ws.send(flipped)],
    'a record cut short': ['RECORD_CORRUPT', (source) => source.ws.send(recordBytes('data', { sequence: 1 }).subarray(0, 2000))],
    'bytes behind a record': ['RECORD_CORRUPT', (source) => source.ws.send(Buffer.concat([recordBytes('open'), Buffer.alloc(100, 9)]))],
    'random bytes as records': ['RECORD_CORRUPT', (source) => source.ws.send(randomBytes(5000))],
    'a frame above the limit': ['WIRE_OVERSIZED', (source) => source.ws.send(Buffer.alloc(frameBytesMax + 1), () => undefined)],
    'a text above the limit': ['WIRE_OVERSIZED', (source) => source.ws.send(' '.repeat(controlBytesMax + 1), () => undefined)],
    'text that is no message': ['WIRE_GARBAGE', (source) => source.ws.send('{"t":"announce","group":"x"}')],
    'a second hello': ['WIRE_GARBAGE', (source) => source.say({ t: 'hello', versions: [1], sourceId, sourceName: 'raw', nonce: '05'.repeat(32) })],
    'a record of a group that was not announced': ['RECORD_MISPLACED', (source) => source.ws.send(recordBytes('open', { groupId: 'ee'.repeat(16) }))],
    'a sequence that was there already': ['RECORD_MISPLACED', (source) => { source.ws.send(recordBytes('open')); source.ws.send(recordBytes('open')); }],
    'a sequence left out': ['RECORD_MISPLACED', (source) => { source.ws.send(recordBytes('open')); source.ws.send(recordBytes('data', { sequence: 2 })); }],
    'a record beyond the end of the disk': ['RECORD_MISPLACED', (source) => { source.ws.send(recordBytes('open')); source.ws.send(recordBytes('zero', { sequence: 1, offset: 16 * 1024 * 1024 })); }],
    'a first sync that nobody began': ['RECORD_MISPLACED', (source) => source.ws.send(recordBytes('data', { point: 0 }))],
    'hashes that do not fit the blocks': ['WIRE_GARBAGE', (source) => source.say({ t: 'compare', group: groupId, id: 1, disk: 0, offset: 0, length: 65_536, blockBytes: 65_536, hashes: 'AAAA' })],
  };
  for (const [what, [code, misbehave]] of Object.entries(cases)) {
    await t.test(what, async (t) => {
      const loopback = await startIngest(t);
      const source = await RawSource.announced(loopback);
      misbehave(source);
      await source.closed();
      await isCountedAndAlive(t, loopback, code);
      const store = loopback.registry.stores.get(groupId)!;
      await waitFor(() => store.log.at(-1) === 'cut', { ...limit, what: 'the torn rest to be cut off' });
      t.equal(store.newest, null);
      t.ok(store.disks.get(0)!.equals(Buffer.alloc(16 * 1024 * 1024)), 'not a byte in the replica');
    });
  }
});

t.test('more than the credit ends the connection, before memory does', async (t) => {
  const loopback = await startIngest(t);
  const source = await RawSource.announced(loopback);
  const store = loopback.registry.stores.get(groupId)!;
  let release: () => void = () => undefined;
  const isReleased = new Promise<void>((resolve) => { release = resolve; });
  store.gate = () => isReleased;
  const piece = recordBytes('zero');
  const message = Buffer.concat(Array.from({ length: 13_000 }, () => piece));
  for (let sent = 0; sent <= creditBytes + message.length; sent += message.length) source.ws.send(message, () => undefined);
  await source.closed();
  t.equal(loopback.ingest.refusals().WIRE_OVERSIZED, 1);
  t.ok(store.recordsUnderWay <= 512, 'the store was given no more than a lane lets under way, whatever came');
  t.equal(store.log.length, 1, 'and took none');
  release();
});

t.test('what belongs to another source is refused, the connection stays', async (t) => {
  const loopback = await startIngest(t);
  const owner = await RawSource.announced(loopback);
  const thief = await RawSource.authenticated(loopback, '99'.repeat(16));
  thief.say({ t: 'announce', ...announcement() });
  t.match(await thief.hear('refused'), { code: 'GROUP_FOREIGN', group: groupId });
  thief.ws.send(recordBytes('open'));
  thief.say({ t: 'forget', group: groupId });
  t.match(await thief.hear('refused'), { code: 'GROUP_FOREIGN', group: groupId });
  thief.say({ t: 'compare', group: groupId, id: 1, disk: 0, offset: 0, length: 512, blockBytes: 4096, hashes: Buffer.alloc(32).toString('base64') });
  t.match(await thief.hear('refused'), { code: 'GROUP_FOREIGN', group: groupId }, 'said again to whoever asks again');
  t.equal(thief.isClosed, false);
  owner.ws.send(recordBytes('open'));
  owner.ws.send(recordBytes('part', { sequence: 1 }));
  t.match(await owner.hear('ack'), { group: groupId, term: 1, point: 1, part: 1 });
  t.same(loopback.registry.stores.get(groupId)!.log, ['cut', 'open:0', 'part:1'], 'nothing of the other one came through');
});

t.test('idle strangers go, the oldest first, and never keep a source out', async (t) => {
  const loopback = await startIngest(t, { limits: { unprovenMax: 4, handshakeMs: 60_000 } });
  const strangers: TLSSocket[] = [];
  for (let i = 0; i < 6; i++) strangers.push(await tls(loopback.ingest.address.port));
  await waitFor(() => strangers[0]!.destroyed && strangers[1]!.destroyed, { ...limit, what: 'the oldest two to be ended' });
  t.notOk(strangers[5]!.destroyed);
  await isCountedAndAlive(t, loopback, 'WIRE_SILENT');
  for (const stranger of strangers) stranger.destroy();
});

t.test('a handshake that takes too long is ended', async (t) => {
  const loopback = await startIngest(t, { limits: { handshakeMs: 200 } });
  const port = loopback.ingest.address.port;
  const tcp = connectTcp(port, '127.0.0.1');
  tcp.on('error', () => undefined);
  tcp.resume();
  const half = await RawSource.open(port);
  half.say({ t: 'hello', versions: [1], sourceId, sourceName: 'raw', nonce: '05'.repeat(32) });
  await Promise.all([once(tcp, 'close'), half.closed()]);
  await isCountedAndAlive(t, loopback, 'WIRE_SILENT');
});

t.test('a source that falls silent is let go of', async (t) => {
  const loopback = await startIngest(t, { limits: { heartbeatMs: 20, silenceMs: 200 } });
  const source = await RawSource.announced(loopback);
  source.ws.pause();
  await waitFor(() => loopback.ingest.sources().length === 0, { ...limit, what: 'the silent source to be gone' });
  t.equal(loopback.ingest.refusals().WIRE_SILENT, 1);
  source.ws.terminate();
});

t.test('one peer’s faults are counted each and logged once', async (t) => {
  const lines: string[] = [];
  const log = pino({ level: 'warn' }, new Writable({ write: (chunk: Buffer, _encoding, done) => { lines.push(chunk.toString()); done(); } }));
  const loopback = await startIngest(t, { log });
  for (let i = 0; i < 5; i++) {
    const source = await RawSource.open(loopback.ingest.address.port);
    source.ws.send('nonsense');
    await source.closed();
  }
  t.equal(loopback.ingest.refusals().WIRE_GARBAGE, 5);
  t.equal(lines.length, 1);
  t.match(JSON.parse(lines[0]!), { code: 'WIRE_GARBAGE', peer: '127.0.0.1' });
});
