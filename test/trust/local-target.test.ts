/**
 * The target of this host, run as a user of its own beside a source that runs as root: it may have the source follow the guests that it has started, and whoever has taken that user
 * over gets nothing else. Real sockets, real users. The whole of it, with a guest, is in test/package/debian-package.test.ts.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import t, { type Test } from 'tap';
import { callApi } from '../../console/api-call.ts';
import { sourceRoutes } from '../../console/api/source-routes.ts';
import { openSourceControl } from '../../console/control.ts';
import { boundAbandon, boundAdoption } from '../../daemon/neighbour-plan.ts';
import type { AdoptRequest } from '../../daemon/operations.ts';
import type { ProtectedGuest } from '../../daemon/source-state.ts';
import type { NewEntry } from '../../host/audit-trail.ts';
import { findAccount } from '../../host/node/account.ts';
import { makeToken } from '../../journal/identity.ts';
import { connectGuest } from '../../qemu/connect-guest.ts';
import { connectGuestAgent } from '../../qemu/guest-agent.ts';
import { formatPlace, parsePlace } from '../../qemu/guest-place.ts';
import { recordFiles, withNamedFile } from '../../qemu/hardware-files.ts';
import { connectNbd } from '../../qemu/nbd-client.ts';
import { sourceOperations } from '../console/told-operations.ts';

/** Neither has to be in the machine's user list. */
const [neighbour, stranger] = [61_234, 61_235];
const isRoot = process.geteuid!() === 0;
const skip = isRoot ? false : 'another user cannot be played without root';
const [groupId, otherId] = ['ab'.repeat(16), 'cd'.repeat(16)];
const from = { uid: neighbour, targetName: 'alpha' };
const request0: AdoptRequest = {
  name: 'web', groupId, qmpPath: '/srv/g/capture.sock', base: { term: 2, point: 7 }, term: 3, rpoMs: 1000,
  target: { name: 'alpha', fingerprint: 'aa' }, points: { nbdPath: '/srv/points.sock', controlPath: '/run/t.sock' }, token: null,
};

async function openFolder(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'nb-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  await chmod(folder, 0o755);
  return folder;
}

/** A script of that user's; ended with the test. */
function runAs(t: Test, uid: number, script: string, ...args: readonly string[]): ChildProcess {
  const child = spawn(process.execPath, ['-e', script, ...args], { uid, gid: uid, cwd: '/', stdio: ['ignore', 'pipe', 'inherit'], env: {} });
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'close');
  });
  return child;
}

interface Asked { readonly method: string; readonly path: string; readonly body?: unknown }

/** What requests of that user, one after the other, are answered: the status and the text, or the error's code. */
async function askAllAs(t: Test, uid: number, socketPath: string, requests: readonly Asked[]): Promise<string[]> {
  const child = runAs(t, uid, `
    const [socketPath, requests] = process.argv.slice(1);
    const ask = ({ method, path, body }) => new Promise((resolve) => {
      const asked = require('node:http').request({ socketPath, method, path, agent: false, headers: body === undefined ? {} : { 'content-type': 'application/json' } }, (reply) => {
        let text = ''; reply.on('data', (chunk) => { text += chunk; }); reply.on('end', () => resolve(reply.statusCode + ' ' + text));
      });
      asked.on('error', (error) => resolve(error.code));
      asked.end(body === undefined ? undefined : JSON.stringify(body));
    });
    (async () => { for (const one of JSON.parse(requests)) console.log(await ask(one)); })();`, socketPath, JSON.stringify(requests));
  let said = '';
  child.stdout!.on('data', (chunk: Buffer) => { said += chunk.toString(); });
  await once(child, 'close');
  return said.trimEnd().split('\n');
}

async function askAs(t: Test, uid: number, socketPath: string, method: string, path: string, body?: unknown): Promise<string> {
  return (await askAllAs(t, uid, socketPath, [{ method, path, body }]))[0]!;
}

t.test('over the control socket it may ask for what adoption takes, and for nothing else', { skip }, async (t) => {
  const folder = await openFolder(t);
  const path = join(folder, 'source.sock');
  const calls: unknown[][] = [];
  const noted: NewEntry[] = [];
  const control = await openSourceControl(path, sourceOperations(calls), pino({ level: 'silent' }), {
    localTarget: { uid: neighbour, gid: neighbour, name: 'alpha' }, audit: { note: async (entry) => { noted.push(entry); }, alarms: () => [] },
  });
  t.teardown(() => control.close());
  const { mode, uid, gid } = await stat(path);
  t.strictSame([mode & 0o777, uid, gid], [0o660, 0, neighbour]);

  t.match(await askAs(t, neighbour, path, 'GET', '/v1/identity'), /^200 \{"sourceId":"[^"]+"\}$/);
  t.match(await askAs(t, neighbour, path, 'POST', '/v1/adoptions', request0), /^204/);
  t.match(await askAs(t, neighbour, path, 'POST', `/v1/groups/${groupId}/surrender`, { term: 3 }), /^200 \{"guest":null\}/);
  t.match(await askAs(t, neighbour, path, 'POST', `/v1/groups/${groupId}/abandon`), /^204/);
  t.strictSame(calls, [['adopt', request0, from], ['abandon', groupId, from]], 'and the source is told who asks');
  t.match(noted.map(({ who, act }) => [act, who]), [['adopt', { kind: 'local', uid: neighbour }], ['surrender', {}], ['abandon', { uid: neighbour }]]);
  calls.splice(0);
  t.match(await askAs(t, neighbour, path, 'POST', '/v1/adoptions', { ...request0, from: { uid: 0, targetName: 'bravo' } }), /^400 /, 'who asks is not for it to say');

  const others = Object.entries(sourceRoutes).filter(([name]) => !['identity', 'adopt', 'surrender', 'abandon'].includes(name));
  const answers = await askAllAs(t, neighbour, path, others.map(([, route]) => ({ method: route.method, path: route.path.replace(/\{\w+\}/g, 'web'), ...(['POST', 'PUT'].includes(route.method) ? { body: {} } : {}) })));
  for (const [index, [name]] of others.entries()) t.match(answers[index], /^403 .*CONTROL_PEER.*nothing else/, name);
  t.ok(others.length > 15, `${others.length} others`);
  // A member of its group, and once the mode was changed anybody.
  t.match(await askAs(t, stranger, path, 'GET', '/v1/identity'), /EACCES/);
  await chmod(path, 0o666);
  t.match(await askAs(t, stranger, path, 'GET', '/v1/identity'), /^403 .*CONTROL_PEER.*user 61235/);
  t.strictSame(calls, [], 'nothing was done');
  await new Promise<void>((resolve, reject) => {
    request({ socketPath: path, path: '/v1/report' }, (reply) => { t.equal(reply.statusCode, 200, 'root may all'); reply.resume().on('end', resolve); }).on('error', reject).end();
  });
});

t.test('a socket that it names is spoken to only while its own process listens there', { skip }, async (t) => {
  const folder = await openFolder(t);
  const own = join(folder, 'own');
  await writeFile(join(folder, 'x'), '');
  await chown(folder, neighbour, neighbour);
  const listener = runAs(t, neighbour, `require('node:net').createServer((socket) => {
    socket.on('error', () => {});
    socket.write('{"QMP": {"version": {"qemu": {"major": 8, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}\\n');
    socket.on('data', (bytes) => { for (const line of String(bytes).trim().split('\\n')) socket.write(JSON.stringify({ return: {}, id: JSON.parse(line).id }) + '\\n'); });
  }).listen(process.argv[1], () => console.log('up'));`, own);
  await once(listener.stdout!, 'data');
  const { qmp, owner } = await connectGuest(`user://${neighbour}${own}`);
  qmp.close();
  t.strictSame(owner, { uid: neighbour, gid: neighbour }, 'what is made for the guest is that user’s');
  await t.rejects(connectGuest(`user://${stranger}${own}`), { code: 'QMP_UNREACHABLE', message: /user 61234 listens/ });

  // Another guest's monitor, say, which root may connect to and it may not: behind a link in its own folder, under a name that was fine before.
  const heard: Buffer[] = [];
  let connected = 0;
  const others = createServer((socket) => { connected += 1; socket.on('error', () => undefined).on('data', (bytes: Buffer) => heard.push(bytes)); });
  await new Promise<void>((resolve) => others.listen(join(folder, 'others'), resolve));
  t.teardown(() => others.close());
  const path = join(folder, 'swapped');
  await symlink(join(folder, 'others'), path);
  const place = `user://${neighbour}${path}`;
  await t.rejects(connectGuest(place), { code: 'QMP_UNREACHABLE', message: /user 0 listens/ });
  await t.rejects(connectGuestAgent(place), { code: 'AGENT_UNREACHABLE', message: /user 0 listens/ });
  await t.rejects(connectNbd({ path, listenerUid: neighbour, exportName: 'x' }), { code: 'NBD_CLOSED', message: /user 0 listens/ });
  await t.rejects(callApi(place, { method: 'GET', path: '/v1', timeoutMs: 5000 }), { code: 'API_UNTRUSTED', message: /user 0 listens/ });
  t.ok(connected >= 4, 'it was reached');
  t.equal(Buffer.concat(heard).length, 0, 'and not a byte was said');
});

t.test('files that its QEMU names are read no further than it could read them', { skip }, async (t) => {
  const folder = await openFolder(t);
  const make = async (name: string, uid: number, mode: number): Promise<string> => {
    const path = join(folder, name);
    await writeFile(path, name);
    await chown(path, uid, uid);
    await chmod(path, mode);
    return path;
  };
  const [secret, open, own] = [await make('secret', 0, 0o640), await make('open', 0, 0o644), await make('own', neighbour, 0o600)];
  const read = (path: string, uid: number | undefined) => withNamedFile(path, uid, async (file) => (await file.readFile()).toString());
  await t.rejects(read(secret, neighbour), { code: 'EACCES' });
  await symlink(secret, join(folder, 'link'));
  await t.rejects(read(join(folder, 'link'), neighbour), { code: 'EACCES' });
  t.equal(await read(open, neighbour), 'open');
  t.equal(await read(own, neighbour), 'own');
  t.equal(await read(secret, undefined), 'secret', 'of a guest that root protects');
  t.strictSame((await recordFiles([secret, open, own, '/dev/zero'], neighbour)).map(({ path }) => path), [open, own]);
  await t.rejects(read('/dev/zero', undefined), { code: 'EINVAL' }, 'a file without an end is none');
});

t.test('what it asks for is bounded', async (t) => {
  const facts = { guests: [] as ProtectedGuest[], isTargetKnown: (name: string): boolean => name === 'bravo', isRunning: false };
  const bound = (change: Partial<AdoptRequest>, more: Partial<typeof facts> = {}) => () => boundAdoption({ ...request0, ...change }, from, { ...facts, ...more });
  const refused = { code: 'ADOPTION_REFUSED' };
  const given = bound({ members: [{ name: 'a', qmpPath: '/srv/a' }, { name: 'b', qmpPath: '/srv/b' }] })();
  t.strictSame([given.qmpPath, given.points, given.members], [
    'user://61234/srv/g/capture.sock', { nbdPath: 'user://61234/srv/points.sock', controlPath: 'user://61234/run/t.sock' },
    [{ name: 'a', qmpPath: 'user://61234/srv/a' }, { name: 'b', qmpPath: 'user://61234/srv/b' }],
  ], 'each place is that user’s');
  t.equal(formatPlace(parsePlace(given.qmpPath)!), given.qmpPath, 'also after a restart');
  for (const qmpPath of ['libvirt://web', 'pve://101', 'user://0/run/other.sock']) {
    t.throws(bound({ qmpPath }), refused, qmpPath);
    t.throws(bound({ members: [{ name: 'a', qmpPath: '/srv/a' }, { name: 'b', qmpPath }] }), refused);
  }
  t.throws(bound({ target: { name: 'bravo', fingerprint: 'bb' } }), refused, 'its guests go to no other target');

  const token = (targetName: string, fingerprint: string) => makeToken({ host: '127.0.0.1', port: 7228, fingerprint, secret: Buffer.alloc(32), targetId: groupId, targetName });
  const aa = 'aa'.repeat(32);
  t.ok(bound({ target: { name: 'alpha', fingerprint: aa }, token: token('alpha', aa) })(), 'the first time it pairs');
  t.throws(bound({ target: { name: 'alpha', fingerprint: aa }, token: token('alpha', 'bb'.repeat(32)) }), refused);
  t.throws(bound({ target: { name: 'alpha', fingerprint: aa }, token: token('bravo', aa) }), refused, 'no other target’s place is taken');
  t.throws(bound({ target: null, token: token('alpha', aa) }), refused);
  t.throws(bound({ target: { name: 'alpha', fingerprint: aa }, token: token('alpha', aa) }, { isTargetKnown: () => true }), { ...refused, message: /by hand/ }, 'nor its own, once it is paired or was revoked');

  const known = (more: Partial<ProtectedGuest>): Partial<typeof facts> => ({ guests: [{ name: 'web', groupId, qmpPath: '/run/web.qmp', target: 'bravo', rpoMs: 1000, capture: 'cbt', rateBytesPerSecond: 0, isPaused: false, ...more }] });
  const images = { state: 'relinquished' as const, term: 2, sourceId: 'x', point: { term: 2, point: 7 }, images: [] };
  t.throws(bound({}, known({})), { ...refused, message: /was not handed over/ }, 'a guest that is protected elsewhere');
  t.throws(bound({ target: null }, known({})), refused);
  t.throws(bound({ name: 'web2' }, known({})), { code: 'GUEST_TAKEN' }, 'its group under another name');
  t.ok(bound({ groupId: otherId, name: 'db' }, known({}))(), 'another guest');
  t.ok(bound({ target: null }, known({ handover: images }))(), 'one that was handed over comes home');
  t.ok(bound({}, known({ supersededBy: 2 }))(), 'one that is live elsewhere');
  t.ok(bound({}, known({ target: 'alpha' }))(), 'one that was protected to that very target, and is down');
  t.throws(bound({}, { ...known({ target: 'alpha' }), isRunning: true }), { ...refused, message: /runs here/ });
  t.ok(bound({}, { ...known({ qmpPath: `user://${neighbour}/srv/x` }), isRunning: true })(), 'one of its own');
  t.throws(bound({}, known({ qmpPath: `user://${stranger}/srv/x` })), refused);

  const guest = known({}).guests![0]!;
  t.throws(() => boundAbandon(guest, from), refused, 'none is let go of that it did not bring');
  t.doesNotThrow(() => boundAbandon({ ...guest, qmpPath: `user://${neighbour}/srv/x` }, from));
});

t.test('users are found by name and by number', async (t) => {
  t.strictSame(await findAccount('root'), { uid: 0, gid: 0 });
  t.strictSame(await findAccount('0'), { uid: 0, gid: 0 });
  t.equal(await findAccount('no-such-user-here'), null);
});

t.test('places of one user’s', async (t) => {
  for (const text of ['user://', 'user://x/run/a', 'user://1', 'user://4294967295/a', 'user://-1/a', 'user://1/a\0b']) t.equal(parsePlace(text), undefined, JSON.stringify(text));
  t.strictSame(parsePlace('user://0/run/a,b'), { kind: 'socket', path: '/run/a,b', uid: 0 });
});
