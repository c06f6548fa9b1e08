/** Peers at the target's door that waste its time instead of breaking its protocol, and those who say again what somebody said before. */
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import type { WebSocket } from 'ws';
import { makeRecord } from '../../journal/record.ts';
import { encodePayload } from '../../journal/seal.ts';
import { protocolPath } from '../../journal/wire.ts';
import type { GroupRegistry } from '../../replica-target/store/store.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { announcement, groupId, startIngest, startIngestOver, type Loopback } from '../ingest/loopback.ts';
import { RawSource, recordBytes } from '../ingest/raw-source.ts';
import { groups, openOn } from '../store/store-rig.ts';
import { waitFor } from '../support/wait.ts';

const limit = { limitMs: 20_000, everyMs: 5 };

function quiet<T extends Socket>(t: Test, socket: T): T {
  socket.on('error', () => undefined);
  socket.resume();
  t.teardown(() => socket.destroy());
  return socket;
}

async function throughTls(t: Test, port: number): Promise<TLSSocket> {
  const socket = quiet(t, connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false }));
  await once(socket, 'secureConnect');
  return socket;
}

/** Another byte again and again, so that the connection is never silent. */
function drip(t: Test, socket: Socket, bytes: Buffer): void {
  let at = 0;
  const timer = setInterval(() => {
    if (socket.destroyed) return clearInterval(timer);
    socket.write(bytes.subarray(at % bytes.length, at % bytes.length + 1));
    at += 1;
  }, 10);
  t.teardown(() => clearInterval(timer));
}

async function isServed(t: Test, loopback: Loopback): Promise<void> {
  const source = await RawSource.authenticated(loopback, '77'.repeat(16));
  source.say({ t: 'announce', ...announcement({ group: 'bb'.repeat(16), name: 'other' }) });
  t.match(await source.hear('group'), { group: 'bb'.repeat(16) }, 'a source that proves itself is served');
  source.ws.terminate();
}

t.test('a flood of connections: few are kept, and a source gets in behind it', async (t) => {
  const unprovenMax = 8;
  const loopback = await startIngest(t, { limits: { unprovenMax, handshakeMs: 60_000 } });
  const flood = Array.from({ length: 400 }, () => quiet(t, connectTcp(loopback.ingest.address.port, '127.0.0.1')));
  await waitFor(() => flood.filter(({ destroyed, connecting }) => !destroyed && !connecting).length <= unprovenMax, { ...limit, what: 'all but the newest to be ended' });
  await isServed(t, loopback);
  t.ok((loopback.ingest.refusals()['WIRE_SILENT'] ?? 0) >= flood.length - unprovenMax, 'each is counted');
});

const upgrade = `GET ${protocolPath} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`;
/** A handshake record of TLS that is announced to be 512 bytes long, and the client's greeting in it 508. */
const greetingBegun = Buffer.concat([Buffer.from('1603010200010001fc0303', 'hex'), Buffer.alloc(400, 7)]);
const slow: Readonly<Record<string, (t: Test, port: number) => Promise<Socket>>> = {
  'in TLS': async (t, port) => {
    const socket = quiet(t, connectTcp(port, '127.0.0.1'));
    await once(socket, 'connect');
    drip(t, socket, greetingBegun);
    return socket;
  },
  'in the head of its request': async (t, port) => {
    const socket = await throughTls(t, port);
    socket.write(`GET ${protocolPath} HTTP/1.1\r\nX-Slow: `);
    drip(t, socket, Buffer.from('a'));
    return socket;
  },
  'in the body of a request that has none': async (t, port) => {
    const socket = await throughTls(t, port);
    socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n');
    drip(t, socket, Buffer.from('a'));
    return socket;
  },
  'in its first frame': async (t, port) => {
    const socket = await throughTls(t, port);
    socket.write(upgrade);
    // Text, masked, 32 KiB long.
    socket.write(Buffer.from('81fe800000000000', 'hex'));
    drip(t, socket, Buffer.from(' '));
    return socket;
  },
  'in pings': async (t, port) => {
    const socket = await throughTls(t, port);
    socket.write(upgrade);
    drip(t, socket, Buffer.from('898000000000', 'hex'));
    return socket;
  },
};

for (const [where, begin] of Object.entries(slow)) {
  t.test(`a peer that is slow ${where} is ended all the same`, async (t) => {
    const loopback = await startIngest(t, { limits: { handshakeMs: 300 } });
    const socket = await begin(t, loopback.ingest.address.port);
    await waitFor(() => socket.destroyed, { ...limit, what: 'the end of the connection' });
    t.equal(loopback.ingest.sources().length, 0);
    await isServed(t, loopback);
  });
}

t.test('a peer that ends its half of the connection is let go of', async (t) => {
  const loopback = await startIngest(t, { limits: { handshakeMs: 60_000 } });
  for (const begin of [async () => quiet(t, connectTcp(loopback.ingest.address.port, '127.0.0.1')), () => throughTls(t, loopback.ingest.address.port)]) {
    const socket = await begin();
    socket.end();
    await waitFor(() => socket.destroyed, { ...limit, what: 'the other half to end' });
  }
  const source = await RawSource.announced(loopback);
  (source.ws as WebSocket & { _socket: Socket })._socket.end();
  await waitFor(() => loopback.ingest.sources().length === 0, { ...limit, what: 'the source to be gone' });
  await isServed(t, loopback);
});

/** Over a real store. */
async function overStore(t: Test): Promise<{ readonly loopback: Loopback<GroupRegistry>; readonly registry: GroupRegistry }> {
  const disk = new SimulatedDisk();
  await disk.makeFolder(groups);
  const registry = await openOn(disk);
  t.teardown(() => registry.close());
  return { registry, loopback: await startIngestOver(t, registry) };
}

function sealBytes(records: number, point = 1, deltaId = 1n, base: { term: number; point: number } | null = null): Buffer {
  const disks = [{ disk: 0, sizeBytes: 16 * 1024 * 1024 }];
  return makeRecord({ kind: 'seal', codec: 'none', groupId, deltaId, point, term: 1, sequence: records - 1, disk: 0, offset: 0, length: 0 }, encodePayload({ base, kind: 'crash', cutAtMs: 1, records, changedBytes: 4096, disks })).bytes;
}

t.test('a recorded session said again, byte by byte: no one gets in by it, and nothing is taken twice', async (t) => {
  const { loopback, registry } = await overStore(t);
  const source = await RawSource.authenticated(loopback);
  const said: (string | Buffer)[] = [];
  const send = (message: string | Buffer): void => {
    said.push(message);
    source.ws.send(message);
  };
  source.say({ t: 'announce', ...announcement() });
  await source.hear('group');
  source.say({ t: 'seedBegin', group: groupId, deltaId: '00000000000000aa' });
  await source.hear('group');
  source.say({ t: 'seedEnd', group: groupId });
  await source.hear('seeded');
  for (const bytes of [recordBytes('open'), recordBytes('data', { sequence: 1 }), sealBytes(3)]) send(bytes);
  t.match(await source.hear('ack'), { point: 1 });
  const before = registry.find(groupId)!.report();

  // By the source itself, or who has its key: what was sealed is not opened once more.
  for (const message of said) source.ws.send(message);
  await source.closed();
  t.equal(loopback.ingest.refusals()['RECORD_MISPLACED'], 1);
  t.match(registry.find(groupId)!.report(), { newest: before.newest, pointCount: before.pointCount });

  // Its own frames in another order.
  for (const frames of [[sealBytes(3, 2, 2n, { term: 1, point: 1 })], [recordBytes('data', { sequence: 1, point: 2, deltaId: 2n }), recordBytes('open', { point: 2, deltaId: 2n })]]) {
    const other = await RawSource.announced(loopback);
    for (const frame of frames) other.ws.send(frame);
    await other.closed();
    t.match(registry.find(groupId)!.report(), { newest: before.newest, pointCount: before.pointCount });
  }
  t.equal(loopback.ingest.refusals()['RECORD_MISPLACED'], 3);
});

t.test('what a listener recorded of a handshake proves nothing the next time', async (t) => {
  const loopback = await startIngest(t);
  const said: string[] = [];
  const send = RawSource.prototype.say;
  t.teardown(() => { RawSource.prototype.say = send; });
  RawSource.prototype.say = function say(message) {
    said.push(JSON.stringify(message));
    send.call(this, message);
  };
  const source = await RawSource.authenticated(loopback);
  RawSource.prototype.say = send;
  source.ws.terminate();
  await waitFor(() => loopback.ingest.sources().length === 0, { ...limit, what: 'the source to be gone' });
  const again = await RawSource.open(loopback.ingest.address.port);
  for (const message of said) again.ws.send(message);
  again.say({ t: 'announce', ...announcement() });
  await again.closed();
  t.equal(loopback.registry.stores.size, 0);
  t.ok((loopback.ingest.refusals()['WIRE_SECRET'] ?? 0) + (loopback.ingest.refusals()['WIRE_GARBAGE'] ?? 0) >= 1);
});
