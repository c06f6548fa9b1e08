import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { pino } from 'pino';
import t from 'tap';
import { FailureLimit, networkOf } from '../../../console/api/failure-limit.ts';
import { listenOnNet, makeNetServer } from '../../../console/api/net-door.ts';
import { TargetClient } from '../../../console/control-client.ts';
import { nodeClock } from '../../../host/node/clock.ts';
import { fingerprintOf, makeCertificate, type OwnCertificate } from '../../../journal/identity.ts';
import { targetUp } from '../fixed-reports.ts';
import { openTargetApi } from './open-api.ts';

t.test('the certificate is checked before the token is sent', async (t) => {
  const api = await openTargetApi(t);
  const token = await api.token('read');
  const place = { host: '127.0.0.1', port: api.port, token };
  t.strictSame(await new TargetClient({ ...place, fingerprint: api.fingerprint }).report(), targetUp);
  await t.rejects(new TargetClient({ ...place, fingerprint: 'ab'.repeat(32) }).report(), { code: 'API_UNTRUSTED', facts: { found: api.fingerprint } });
  await t.rejects(new TargetClient({ ...place, fingerprint: null }).report(), { code: 'API_UNTRUSTED', message: /nobody known here vouches/ });
  const { cert } = await makeCertificate('somebody else');
  await t.rejects(new TargetClient({ ...place, fingerprint: null, ca: cert }).report(), { code: 'API_UNTRUSTED' });
  t.match(await api.local.tokens(), [{ name: String }], 'and none of these came through');
  await t.rejects(new TargetClient({ ...place, port: 1, fingerprint: api.fingerprint }).report(), { code: 'DAEMON_UNREACHABLE' });
});

t.test('another certificate of the role is shown to who connects from then on', async (t) => {
  const next = await makeCertificate('api-test');
  let show!: (shown: OwnCertificate) => void;
  const server = makeNetServer({ host: '127.0.0.1', port: 0, ...await makeCertificate('api-test'), onShown: (listener) => { show = listener; } }, pino({ level: 'silent' }));
  const { port } = await listenOnNet(server, { host: '127.0.0.1', port: 0, ...next }, pino({ level: 'silent' }));
  t.teardown(() => server.close());
  const seen = async (): Promise<string> => {
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
    await once(socket, 'secureConnect');
    const { fingerprint256 } = socket.getPeerCertificate();
    t.equal(socket.getProtocol(), 'TLSv1.3');
    socket.destroy();
    return fingerprint256.replaceAll(':', '').toLowerCase();
  };
  t.not(await seen(), fingerprintOf(next.cert));
  show(next);
  t.equal(await seen(), fingerprintOf(next.cert));
});

t.test('a flood of wrong tokens is refused cheaply, and keeps nobody out', async (t) => {
  const api = await openTargetApi(t);
  const token = await api.token('read');
  const answers = [];
  for (let at = 0; at < 30; at += 1) answers.push(await api.ask('/v1/report', { token: `afterimage_${at}` }));
  t.strictSame(answers.map(({ status }) => status), [...Array<number>(20).fill(401), ...Array<number>(10).fill(429)]);
  t.match(answers.at(-1), { headers: { 'retry-after': /^\d+$/ }, json: { code: 'REQUEST_FLOOD' } });
  t.equal((await api.ask('/v1/report', { token })).status, 200, 'a right one goes on');
  t.equal(api.logged().split('a request with a token that is not good').length - 1, 1, 'one line for all of them');
  t.match(await api.ask('/v1/report', { headers: { authorization: 'Basic YTpi' } }), { status: 429 });
  t.match(await api.ask('/v1/report?ticket=x'), { status: 401, json: { detail: /needs an operator/ } }, 'a ticket is for streams');
});

t.test('addresses', async (t) => {
  t.equal(networkOf('::ffff:192.0.2.1'), '192.0.2.1');
  t.equal(networkOf('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2');
  t.equal(networkOf('2001:db8::6'), '2001:db8:0:0');
  let nowMs = 0;
  const limit = new FailureLimit({ ...nodeClock, monotonicMs: () => nowMs });
  for (let at = 0; at < 20; at += 1) t.equal(limit.fail('2001:db8::1'), null);
  t.equal(limit.fail('2001:db8::2'), 60, 'the same network');
  t.equal(limit.fail('2001:db9::2'), null);
  nowMs = 60_000;
  t.equal(limit.fail('2001:db8::1'), null, 'a minute later');
});

t.test('strangers hold little, and not for long', async (t) => {
  const { key, cert } = await makeCertificate('limits');
  const api = await openTargetApi(t, {}, { listen: { host: '127.0.0.1', port: 0, key, cert, limits: { connectionsPerAddressMax: 4, headersMs: 300, requestMs: 600, headerBytesMax: 4096 } } });
  const sockets: Socket[] = [];
  t.teardown(() => { for (const socket of sockets) socket.destroy(); });
  const open = (): Socket => {
    const socket = connect({ host: '127.0.0.1', port: api.port });
    socket.on('error', () => undefined);
    sockets.push(socket);
    return socket;
  };
  const silent = Array.from({ length: 4 }, open);
  const ended = silent.map((socket) => once(socket.resume(), 'close'));
  await Promise.all(silent.map(async (socket) => { if (socket.connecting) await once(socket, 'connect'); }));
  await once(open().resume(), 'close');
  t.pass('a fifth from the same address is let go');
  await Promise.all(ended);
  t.pass('those that begin no handshake as well');
  // Slowloris: headers that never end.
  const slow = connectTls({ host: '127.0.0.1', port: api.port, rejectUnauthorized: false });
  sockets.push(slow);
  slow.on('error', () => undefined);
  await once(slow, 'secureConnect');
  slow.write('GET /v1/report HTTP/1.1\r\nhost: a\r\n');
  const [chunk] = await once(slow, 'data') as [Buffer];
  t.match(chunk.toString(), /^HTTP\/1.1 408/);
  const large = connectTls({ host: '127.0.0.1', port: api.port, rejectUnauthorized: false });
  sockets.push(large);
  large.on('error', () => undefined);
  await once(large, 'secureConnect');
  large.write(`GET /v1/report HTTP/1.1\r\nhost: a\r\nx: ${'x'.repeat(8000)}\r\n\r\n`);
  t.match(String((await once(large, 'data') as [Buffer])[0]), /^HTTP\/1.1 431/);
  const old = connectTls({ host: '127.0.0.1', port: api.port, rejectUnauthorized: false, maxVersion: 'TLSv1.2' });
  sockets.push(old);
  await t.rejects(once(old, 'secureConnect'), 'TLS 1.2 is refused');
});
