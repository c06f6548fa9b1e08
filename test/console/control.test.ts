import { chmod, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import t from 'tap';
import { bodyBytesMax } from '../../console/control-api.ts';
import { SourceClient, TargetClient } from '../../console/control-client.ts';
import { openSourceControl, openTargetControl } from '../../console/control.ts';
import { Fault } from '../../journal/fault.ts';
import { described, points, startChecked, sourceUp, targetUp, timeline } from './fixed-reports.ts';
import { certificate, failedOver, sourceOperations, targetOperations, tested, verified } from './told-operations.ts';

const log = pino({ level: 'silent' });

async function socketFolder(t: { teardown(after: () => unknown): unknown }): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'ai-control-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

t.test('every operation of a source arrives as it was sent', async (t) => {
  const path = join(await socketFolder(t), 'made', 'control.sock');
  const calls: unknown[][] = [];
  const control = await openSourceControl(path, sourceOperations(calls), log);
  t.teardown(() => control.close());
  t.equal((await stat(path)).mode & 0o777, 0o600, 'only the owner may connect');
  t.equal((await stat(join(path, '..'))).mode & 0o777, 0o700);
  const client = new SourceClient(path);
  t.strictSame(await client.report(), sourceUp);
  t.strictSame(await client.pair('TOKEN'), { name: 'bravo', address: 'bravo:7228', fingerprint: 'ab' });
  t.strictSame(await client.pairings(), { certificate, targets: [] });
  t.strictSame(await client.revoke('bravo'), { name: 'bravo' });
  t.strictSame(await client.rotate(false), certificate);
  const request = { name: 'web', qmpPath: '/run/web.qmp', rpoMs: 1000, target: 'bravo', rateBytesPerSecond: 5, isPaused: true, storageDaemonDisks: ['n0'] };
  t.strictSame(await client.protect(request), { name: 'web', groupId: '00', target: 'bravo' });
  await client.protect({ name: 'web', qmpPath: '/run/web.qmp', rpoMs: 3_600_000 });
  await client.unprotect('web', true);
  await client.pause('web');
  await client.resync('web');
  await client.resume('web');
  await client.setCapture('web', 'writelog');
  await client.setRate('web', 0);
  await client.setQmpPath('web', '/run/web-2.qmp');
  const adopted = { name: 'web', groupId: 'ab'.repeat(16), qmpPath: '/run/c.sock', base: { term: 1, point: 7 }, term: 2, rpoMs: 1000, target: { name: 'bravo', fingerprint: 'cd' }, points: { nbdPath: '/n', controlPath: '/c' }, token: null };
  await client.adopt(adopted);
  t.equal(await client.surrender('ab'.repeat(16), 2), null);
  await client.abandon('ab'.repeat(16));
  t.strictSame(await client.mark({ name: 'web', isApp: true, label: 'before "upgrade"' }), { term: 1, point: 13, kind: 'app', cutAtMs: 5, isAppWanted: true, reason: null, frozenMs: 40, label: 'before "upgrade"' });
  for (const label of ['', 'x'.repeat(201), 'two\nlines']) await t.rejects(client.mark({ name: 'web', label }), { code: 'REQUEST_INVALID', message: /^label: / });
  t.strictSame(calls, [
    ['pair', 'TOKEN'], ['revoke', 'bravo'], ['rotate', false], ['protect', request], ['protect', { name: 'web', qmpPath: '/run/web.qmp', rpoMs: 3_600_000 }],
    ['unprotect', 'web', true], ['pause', 'web'], ['resync', 'web'], ['resume', 'web'], ['setCapture', 'web', 'writelog'], ['setRate', 'web', 0], ['setQmpPath', 'web', '/run/web-2.qmp'],
    ['adopt', adopted], ['abandon', 'ab'.repeat(16)], ['mark', { name: 'web', isApp: true, label: 'before "upgrade"' }],
  ]);
});

t.test('every operation of a target arrives as it was sent', async (t) => {
  const path = join(await socketFolder(t), 'control.sock');
  const calls: unknown[][] = [];
  const control = await openTargetControl(path, targetOperations(calls), log);
  t.teardown(() => control.close());
  const client = new TargetClient(path);
  t.strictSame(await client.report(), targetUp);
  t.strictSame(await client.points('web'), points);
  t.strictSame(await client.timeline('web'), timeline);
  t.strictSame(await client.describePoint('web', 'before & after'), described);
  const hold = { group: 'web', at: '1.2', reason: 'export', forMs: 5000 };
  t.strictSame(await client.holdPoint(hold), { ...described, hold: timeline.holds[0] });
  await client.releasePoint('web', 'h1');
  t.strictSame(await client.verify('web', '-1h'), verified);
  await client.verify('web', undefined);
  t.strictSame(await client.invite({ forMs: 60_000, name: 'alpha' }), { token: 'T', address: 'bravo:7228', fingerprint: 'ab', expiresAtMs: 9 });
  await t.rejects(client.invite({ forMs: 1 }), { code: 'REQUEST_INVALID', message: /forMs/ });
  t.strictSame(await client.pairings(), { certificate, sources: [], invitations: [], oldSecretCount: 2 });
  t.strictSame(await client.revoke('alpha'), { name: 'alpha', sourceId: 'cd' });
  t.equal(await client.revokeOldSecrets(), 2);
  t.strictSame(await client.rotate(true), certificate);
  t.strictSame(await client.checkStart({ group: 'web', accel: 'tcg', network: 'user' }), startChecked);
  t.strictSame(await client.failover({ group: 'web', at: '-15m', accel: 'tcg', network: 'user' }), failedOver);
  const planned = { group: 'web', planned: { shutdownMs: 60_000, onLimit: 'stop' as const }, decision: { act: 'commit' as const, afterMs: 0 } };
  t.strictSame(await client.failover(planned), failedOver);
  await t.rejects(client.failover({ group: 'web', planned: { shutdownMs: 0, onLimit: 'stop' } }), { code: 'REQUEST_INVALID', message: /shutdownMs/ });
  await client.commitFailover('web');
  t.strictSame(await client.changedSince('ab'.repeat(16), { term: 1, point: 1 }, { term: 1, point: 2 }), []);
  t.strictSame(await client.testFailover({ group: 'web', at: '1.2', limitMs: 60_000, budgetBytes: 1 << 30, network: 'isolated', accel: 'kvm' }), tested);
  await client.stopTest('web');
  await t.rejects(client.testFailover({ group: 'web', network: 'everywhere' as never }), { code: 'REQUEST_INVALID', message: /network/ });
  await client.stopFailover('web', true);
  await client.seedFrom('web', 1, '/images/web.raw');
  t.strictSame(calls, [
    ['points', 'web'], ['timeline', 'web'], ['describePoint', 'web', 'before & after'], ['holdPoint', hold], ['releasePoint', 'web', 'h1'], ['verify', 'web', '-1h'], ['verify', 'web', null], ['invite', { forMs: 60_000, name: 'alpha' }], ['revoke', 'alpha'], ['rotate', true], ['checkStart', { group: 'web', accel: 'tcg', network: 'user' }], ['failover', { group: 'web', at: '-15m', accel: 'tcg', network: 'user' }],
    ['failover', planned], ['commitFailover', 'web'],
    ['testFailover', { group: 'web', at: '1.2', limitMs: 60_000, budgetBytes: 1 << 30, network: 'isolated', accel: 'kvm' }], ['stopTest', 'web'], ['stopFailover', 'web', true], ['seedFrom', 'web', 1, '/images/web.raw'],
  ]);
});

t.test('faults arrive as they were thrown; bugs and malformed requests by name', async (t) => {
  const path = join(await socketFolder(t), 'control.sock');
  const calls: unknown[][] = [];
  const control = await openTargetControl(path, targetOperations(calls, {
    points: async (group) => { throw new Fault('GROUP_UNKNOWN', `no group ${group}`, { group, big: 2n ** 60n, cause: new Error('inner') }); },
    invite: async () => { throw new TypeError('cannot read properties of undefined'); },
  }), log);
  t.teardown(() => control.close());
  const client = new TargetClient(path);
  await t.rejects(client.points('none'), { name: 'Fault', code: 'GROUP_UNKNOWN', message: 'no group none', facts: { group: 'none', big: String(2n ** 60n), cause: 'inner' } });
  await t.rejects(client.invite(), { code: 'INTERNAL', message: /cannot read properties/ });
  await t.rejects(client.points('../etc'), { code: 'REQUEST_INVALID', message: /^group: / });
  await t.rejects(client.seedFrom('web', -1, 'relative'), { code: 'REQUEST_INVALID', message: /disk: .*; imagePath: not an absolute path/ });
  await t.rejects(client.failover({ group: 'web', surprise: 1 } as never), { code: 'REQUEST_INVALID', message: /surprise/ });
  await t.rejects(client.seedFrom('web', 0, `/${'x'.repeat(bodyBytesMax)}`), { code: 'REQUEST_INVALID' });
  await t.rejects(new SourceClient(path).pause('web'), { code: 'REQUEST_INVALID', message: 'this daemon has no POST /v1/guests/web/pause' });
  t.strictSame(calls, [], 'nothing malformed reached the role');
  t.match(await raw(path, 'POST /v1/pairing-tokens HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 4\r\nconnection: close\r\n\r\n{"a:'), /^HTTP\/1.1 400 [^]*REQUEST_INVALID/);
  t.match(await raw(path, 'not http at all\r\n\r\n'), /^HTTP\/1.1 400/);
  t.strictSame(await client.report(), targetUp, 'and it still answers');
});

function raw(path: string, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path }, () => socket.write(text));
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', reject);
    socket.on('close', () => resolve(Buffer.concat(chunks).toString('utf8')));
  });
}

t.test('DAEMON_UNREACHABLE when no one, or someone else, answers', async (t) => {
  const folder = await socketFolder(t);
  const path = join(folder, 'control.sock');
  await t.rejects(new SourceClient(path).report(), { code: 'DAEMON_UNREACHABLE', message: /there is no such socket/ });
  const other = createServer((_request, response) => response.end('<html>'));
  await new Promise<void>((resolve) => { other.listen(path, resolve); });
  await t.rejects(new SourceClient(path).report(), { code: 'DAEMON_UNREACHABLE', message: /no Afterimage daemon/ });
  await new Promise((resolve) => { other.close(resolve); });
  const dead = createServer((request) => request.socket.destroy());
  await new Promise<void>((resolve) => { dead.listen(path, resolve); });
  await t.rejects(new SourceClient(path).report(), { code: 'DAEMON_UNREACHABLE' });
  await new Promise((resolve) => { dead.close(resolve); });
});

t.test('the socket is only opened where it is safe', async (t) => {
  const folder = await socketFolder(t);
  const path = join(folder, 'control.sock');
  const open = () => openSourceControl(path, sourceOperations([]), log);
  const first = await open();
  await t.rejects(open(), { code: 'CONTROL_SOCKET', message: /another daemon listens there/ });
  t.strictSame(await new SourceClient(path).report(), sourceUp, 'the first one is untouched');
  await first.close();
  await t.rejects(stat(path), { code: 'ENOENT' }, 'closing removes it');

  // A socket that a killed process left behind: bound, and then its listener gone without unlink.
  const { spawnSync } = await import('node:child_process');
  spawnSync(process.execPath, ['-e', `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`]);
  t.ok((await stat(path)).isSocket(), 'left behind');
  const second = await open();
  t.strictSame(await new SourceClient(path).report(), sourceUp);
  await second.close();

  await writeFile(path, 'precious');
  await t.rejects(open(), { code: 'CONTROL_SOCKET', message: /no socket is there already/ });
  await rm(path);
  await chmod(folder, 0o777);
  await t.rejects(open(), { code: 'CONTROL_SOCKET', message: /others may write to its folder \(mode 777\)/ });
});
