import { access, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawn } from 'node:child_process';
import t from 'tap';
import { faultTable } from '../../journal/fault.ts';
import { awaitLine, BuiltCommand, ended } from './built-command.ts';
import { described, points, sourceTargetDown, sourceUp, targetUp, timeline } from './fixed-reports.ts';

const command = await BuiltCommand.build(t);
const folder = await mkdtemp(join(tmpdir(), 'ai-main-'));
t.teardown(() => rm(folder, { recursive: true, force: true }));
const sourceConfig = join(folder, 'source.yaml');
const targetConfig = join(folder, 'target.yaml');
const brokenConfig = join(folder, 'broken.yaml');
await writeFile(sourceConfig, `role: source\nname: alpha\ndata: ${folder}/s\n`);
await writeFile(targetConfig, `role: target\nname: bravo\ndata: ${folder}/t\nlisten: {port: 0}\n`);
await writeFile(brokenConfig, 'role: source\ndata: relative\nwhat: 1\n');

/** Roles that answer with fixed reports, and do what the name of the guest or a variable asks for. */
const fakeFault = `import { Fault } from '../journal/fault.js';\n`;
await command.replace('daemon/source.js', `${fakeFault}
const calls = [];
const told = (name) => async (...all) => { calls.push([name, ...all]); };
export async function startSource(options, deps) {
  if (process.env.FAKE === 'system') throw Object.assign(new Error("EACCES: permission denied, mkdir '/x'"), { code: 'EACCES', syscall: 'mkdir' });
  if (process.env.FAKE === 'fault') throw new Fault('STORE_LOCKED', 'locked', { group: 'web' });
  deps.log.info({ options, version: deps.version }, 'fake source');
  if (process.env.FAKE === 'rejection') setTimeout(() => Promise.reject(new Error('planted bug')), 100);
  const operations = {
    report: () => (process.env.FAKE === 'down' ? ${JSON.stringify(sourceTargetDown)} : { ...${JSON.stringify(sourceUp)}, calls }),
    pair: async (token) => ({ name: 'bravo', address: 'bravo:7228', fingerprint: token }),
    protect: async (request) => {
      calls.push(['protect', request]);
      if (request.name === 'bad') throw new Fault('GUEST_UNSUITED', 'it has no quorum', { guest: 'bad', disk: 1 });
      return { name: request.name, groupId: '00', target: 'bravo' };
    },
    unprotect: told('unprotect'), pause: told('pause'), resync: told('resync'), resume: told('resume'), setCapture: told('setCapture'), setRate: told('setRate'), setQmpPath: told('setQmpPath'),
    mark: async (request) => {
      calls.push(['mark', request]);
      const point = { term: 1, point: 13, cutAtMs: 0, isAppWanted: request.isApp };
      return request.isApp
        ? { ...point, kind: 'crash', notApp: 'AGENT_NONE', reason: { code: 'AGENT_NONE', message: 'no port' } }
        : { ...point, kind: 'mark', label: request.label, reason: null };
    },
  };
  return { operations, report: operations.report, close: async () => { deps.log.info('fake closed'); } };
}
`);
await command.replace('replica-target/target.js', `${fakeFault}
export async function startTarget(options, deps) {
  const operations = {
    report: () => (${JSON.stringify(targetUp)}),
    points: async () => (${JSON.stringify(points)}),
    timeline: async () => (${JSON.stringify(timeline)}),
    describePoint: async () => (${JSON.stringify(described)}),
    invite: async () => ({ token: 'AITOKEN', address: 'bravo:7228', fingerprint: 'ab', expiresAtMs: 9 }),
    failover: async (request) => ({ group: request.group, term: 2, point: ${JSON.stringify(points[2])}, lostMs: 1, rtoMs: 2, guests: [{ name: request.group, qmpPath: '/q', pid: 7, logPath: '/l' }], qmpPath: '/q', pid: 7, logPath: '/l', overlayPaths: [], accel: request.accel ?? 'kvm' }),
    stopFailover: async (group, isRolledBack) => { deps.log.info({ group, isRolledBack }, 'fake stop'); },
    seedFrom: async (group, disk, imagePath) => { deps.log.info({ group, disk, imagePath }, 'fake seed'); },
  };
  return { operations, report: operations.report, close: async () => undefined };
}
`);

async function startDaemon(t: { teardown(after: () => unknown): unknown }, args: readonly string[], environment: NodeJS.ProcessEnv = {}) {
  const child = command.start(args, environment);
  t.teardown(() => child.kill('SIGKILL'));
  const end = ended(child);
  await awaitLine(child, (line) => (JSON.parse(line) as { msg?: string }).msg === 'ready');
  return { child, end };
}

t.test('usage: exit code 64 and what is expected', async (t) => {
  await Promise.all(([
    [[], /Usage: afterimage/],
    [['prtect'], /unknown command 'prtect'[^]*Did you mean protect/],
    [['protect', 'web'], /required option '--qmp <path>'/],
    [['protect', 'web', '--qmp', '/q', '--rpo', '2h'], /Expected a duration from 100ms to 1h/],
    [['protect', '../x', '--qmp', '/q'], /Expected letters, digits/],
    [['protect', 'web', '--qmp', '/q', '--rate', 'fast'], /Expected a size such as 100MiB/],
    [['mark', 'web', '--label', 'x'.repeat(201)], /Expected one line of at most 200 characters/],
    [['mark', 'web', '--limit', '2h'], /Expected a duration from 1s to 1h/],
    [['explain', 'NBD_X'], /there are NBD_PROTOCOL, /],
    [['failover', 'web', '--config', sourceConfig], /failover is asked of a target, and .*source\.yaml configures a source/],
    [['pair', 'T', '--config', targetConfig], /pair is asked of a source, and .*target\.yaml configures a target/],
    [['source', 'run', '--config', targetConfig], /configures a target/],
  ] as const).map(async ([args, words]) => {
    const { code, stderr } = await command.run(args);
    t.equal(code, 64, args.join(' '));
    t.match(stderr, words);
  }));
});

t.test('config: exit code 78 and every problem with its place', async (t) => {
  await Promise.all([['source', 'run'], ['status'], ['doctor'], ['pair', 'T']].map(async (args) => {
    const { code, stderr, stdout } = await command.run([...args, '--config', brokenConfig]);
    t.equal(code, 78, args.join(' '));
    t.equal(stderr, `${brokenConfig}:2:7: data: expected an absolute path, found "relative"\n${brokenConfig}:3:1: what: unknown key; expected one of role, name, data, tls, spool, guests, limits, witness, control, localTarget, api, log, metrics, alerts\n`);
    t.equal(stdout, '');
  }));
  const fromEnvironment = await command.run(['status', '--json'], { AFTERIMAGE_CONFIG: brokenConfig });
  t.equal(fromEnvironment.code, 78);
  t.match(JSON.parse(fromEnvironment.stdout), { error: { code: 'CONFIG_INVALID', facts: { problems: [{ line: 2, column: 7, key: 'data' }, { line: 3, column: 1, key: 'what' }] } } });
  const missing = await command.run(['status', '--config', join(folder, 'none.yaml')]);
  t.match(missing, { code: 78, stderr: /none\.yaml: cannot read the configuration: there is no such file/ });
});

t.test('no daemon: exit code 69', async (t) => {
  const { code, stderr } = await command.run(['status', '--config', sourceConfig]);
  t.equal(code, 69);
  t.match(stderr, /^DAEMON_UNREACHABLE: no daemon answers at .*control\.sock: there is no such socket\n {2}what it means .*\n {2}the daemon now .*\n {2}you can .*\n$/);
});

t.test('help, version, explain', async (t) => {
  t.match(await command.run(['--version']), { code: 0, stdout: /^\d+\.\d+\.\d+\n$/ });
  t.match(await command.run(['failover', '--help']), { code: 0, stdout: /--yes/ });
  const all = await command.run(['explain']);
  for (const code of Object.keys(faultTable)) t.match(all.stdout, new RegExp(`^${code} `, 'm'));
  t.match(await command.run(['explain', 'term-old']), { code: 0, stdout: /^TERM_OLD\n {2}what it means {4}The source belongs to a lower term/ });
  t.strictSame(JSON.parse((await command.run(['explain', 'TERM_OLD', '--json'])).stdout), { code: 'TERM_OLD', ...faultTable.TERM_OLD });
});

t.test('a source from start to end', async (t) => {
  const { child, end } = await startDaemon(t, ['source', 'run', '--config', sourceConfig]);
  const ask = (...args: string[]) => command.run([...args, '--config', sourceConfig]);
  t.match(await ask('protect', 'web', '--qmp', '/run/web.qmp'), { code: 0, stdout: /web is being protected to bravo/ });
  t.match(await ask('protect', 'mail', '--qmp', '/run/m.qmp', '--rpo', '1s', '--capture', 'writelog', '--rate', '1MiB', '--target', 'bravo', '--seed-hint', '--storage-daemon-disk', 'n0', 'n1'),
    { code: 0, stdout: /^ {2}afterimage seed-from mail 0 IMAGE {4}# .*8\.0 GiB\nThen here:\n {2}afterimage resume mail$/m });
  t.match(await ask('protect', 'bad', '--qmp', '/q'), { code: 1, stdout: '', stderr: /^GUEST_UNSUITED: guest bad, disk 1: it has no quorum\n {2}what it means / });
  await Promise.all([
    ...[['unprotect', 'web', '--forget'], ['pause', 'web'], ['resume', 'web'], ['resync', 'web'], ['rate', 'web', '0'], ['qmp', 'web', '/run/w2.qmp']].map(async (args) => t.match(await ask(...args), { code: 0 }, args.join(' '))),
    (async () => t.match(await ask('pair', ' TOKEN '), { code: 0, stdout: 'paired with bravo at bravo:7228, fingerprint TOKEN\n' }))(),
    (async () => t.match(await command.run(['pair', '-', '--config', sourceConfig], {}, 'HIDDEN\n'), { code: 0, stdout: 'paired with bravo at bravo:7228, fingerprint HIDDEN\n' }, 'from standard input'))(),
    (async () => t.match(await command.run(['pair', '-', '--config', sourceConfig], {}, 'x'.repeat(100_000)), { code: 64, stderr: /longer than the 8192 bytes/ }))(),
  ]);
  t.match(await ask('mark', 'web', '--label', 'before upgrade'), { code: 0, stdout: /^web: point 1\.13 is mark, cut 1970-.*, labelled "before upgrade"\n$/ });
  t.match(await ask('mark', 'web', '--app', '--limit', '5s'), { code: 0, stdout: /is crash, cut .*, not app: AGENT_NONE: no port\n$/ });
  t.match(JSON.parse((await ask('mark', 'web', '--json')).stdout), { term: 1, point: 13, kind: 'mark', reason: null });
  const { code, stdout } = await ask('status', '--json');
  t.equal(code, 0);
  t.equal(stdout.trimEnd().split('\n').length, 1, 'one line, for scripts');
  const { calls, ...report } = JSON.parse(stdout) as { calls: unknown[][] };
  t.strictSame(report, sourceUp);
  t.strictSame([...calls.slice(0, 3), ...calls.slice(3).filter(([what]) => what === 'mark'), ...calls.slice(3).filter(([what]) => what !== 'mark').sort()], [
    ['protect', { name: 'web', qmpPath: '/run/web.qmp', rpoMs: 5000, capture: 'cbt' }],
    ['protect', { name: 'mail', qmpPath: '/run/m.qmp', rpoMs: 1000, capture: 'writelog', target: 'bravo', rateBytesPerSecond: 1024 ** 2, isPaused: true, storageDaemonDisks: ['n0', 'n1'] }],
    ['protect', { name: 'bad', qmpPath: '/q', rpoMs: 5000, capture: 'cbt' }],
    ['mark', { name: 'web', isApp: false, label: 'before upgrade', limitMs: 60_000 }], ['mark', { name: 'web', isApp: true, limitMs: 5000 }], ['mark', { name: 'web', isApp: false, limitMs: 60_000 }],
    ['pause', 'web'], ['resume', 'web'], ['resync', 'web'], ['setQmpPath', 'web', '/run/w2.qmp'], ['setRate', 'web', 0], ['unprotect', 'web', true],
  ]);
  const [all, mail, nobody, second] = await Promise.all([ask('status'), ask('status', 'mail'), ask('status', 'nobody'), ask('source', 'run')]);
  t.match(all, { code: 0, stdout: /^source 0\.1\.0, [^]*\nGUEST +PHASE[^]*\nweb +protected/ });
  t.match(mail, { code: 0, stdout: /^mail: first sync /m });
  t.notMatch(mail.stdout, /^web /m);
  t.match(nobody, { code: 1, stderr: /^GROUP_UNKNOWN/ });

  const watching = command.start(['status', '--watch', '--json', '--config', sourceConfig]);
  t.teardown(() => watching.kill('SIGKILL'));
  let seen = 0;
  await awaitLine(watching, (line) => JSON.parse(line) as boolean && (seen += 1) > 3);
  watching.kill('SIGTERM');

  t.match(second, { code: 1, stderr: /^STORE_LOCKED: another process writes the audit trail/ }, 'one daemon for a data folder');

  child.kill('SIGTERM');
  const done = await end;
  t.match(done, { code: 0, signal: null, stderr: '' });
  const log = done.stdout.trimEnd().split('\n').map((line) => JSON.parse(line) as { msg: string; role: string });
  t.strictSame(log.filter(({ msg }) => !/request|no quorum/.test(msg)).map(({ msg }) => msg), ['source 0.1.0 starts', 'fake source', 'ready', 'stopping', 'fake closed', 'stopped']);
  t.match(log[1], { role: 'source', options: { name: 'alpha', dataFolder: join(folder, 's') }, version: '0.1.0' });
  await t.rejects(access(join(folder, 's/control.sock')), { code: 'ENOENT' }, 'the socket is gone');
});

t.test('a target from start to end', async (t) => {
  const { child, end } = await startDaemon(t, ['target', 'run', '--config', targetConfig]);
  const ask = (...args: string[]) => command.run(args, { AFTERIMAGE_CONFIG: targetConfig });
  await Promise.all([
    async () => t.match(await ask('target', 'token'), { code: 0, stdout: 'AITOKEN\n' }),
    async () => t.match(await ask('target', 'invite'), { code: 0, stdout: 'AITOKEN\n', stderr: /for bravo:7228, fingerprint ab\./ }),
    async () => t.strictSame(JSON.parse((await ask('target', 'invite', '--json')).stdout), { token: 'AITOKEN', address: 'bravo:7228', fingerprint: 'ab', expiresAtMs: 9 }),
    async () => t.match(await ask('status'), { code: 0, stdout: /^web +protected/m }),
    async () => t.strictSame(JSON.parse((await ask('points', 'web', '--json')).stdout), timeline),
    async () => t.match(await ask('points', 'web'), { code: 0, stdout: /^web: every point from [^]*\nPOINT +KIND[^]*\n +1\.3 +crash/ }),
    async () => t.match(await ask('view', 'web', '--at', '-15m'), { code: 0, stdout: 'nbd+unix:///web/drive0@1.2?socket=%2Fsrv%2Fafterimage%2Fpoints.sock\nnbds://192.0.2.9:10809/web/drive0@1.2\n', stderr: /web at point 1\.2 \(app/ }),
    async () => t.match(await ask('view', 'web', '--at', '25:61'), { code: 1, stderr: /^POINT_UNKNOWN: 25:61 is no time/ }),
    async () => t.match(await ask('export', 'web', '--to', '/x'), { code: 64, stderr: /--format/ }),
    async () => t.match(await ask('failover', 'web'), { code: 64, stdout: '', stderr: /web would boot here from point 1\.3[^]*would be lost[^]*there is no terminal: give --yes/ }),
    async () => t.match(await ask('failover', 'nobody'), { code: 1, stderr: /^GROUP_UNKNOWN: .*there are web, full/ }),
    async () => t.match(JSON.parse((await ask('failover', 'web', '--yes', '--json', '--accel', 'tcg')).stdout), { group: 'web', term: 2, accel: 'tcg', rtoMs: 2 }),
    async () => t.match(await ask('failover', 'web', '--yes'), { code: 0, stdout: /^web runs here from point 1\.3, in term 2/ }),
    async () => t.match(await ask('failover-stop', 'web', '--roll-back', '--yes'), { code: 0, stdout: /takes changes from its source again/ }),
    async () => t.match(await ask('seed-from', 'web', 'drive0', '/images/web.raw'), { code: 0, stdout: /disk 0 \(drive0\) will be compared with \/images\/web\.raw/ }),
    async () => t.match(await ask('seed-from', 'web', '9', '/images/web.raw'), { code: 64, stderr: /expected a disk of web: 0 \(drive0\)/ }),
  ].map((check) => check()));
  child.kill('SIGINT');
  const done = await end;
  t.match(done, { code: 0 });
  t.match(done.stdout, /"group":"web","isRolledBack":true,"msg":"fake stop"/);
  t.match(done.stdout, /"disk":0,"imagePath":"\/images\/web\.raw","msg":"fake seed"/);
});

t.test('status while the target is down', async (t) => {
  const { child, end } = await startDaemon(t, ['source', 'run', '--config', sourceConfig], { FAKE: 'down' });
  const { code, stdout } = await command.run(['status', '--json', '--config', sourceConfig]);
  t.equal(code, 0);
  t.match(JSON.parse(stdout), { targets: [{ state: 'down', sinceMs: Number }], guests: [{ phase: 'behind', behindBytes: 700 * 1024 ** 2, clocks: { newestPointMs: 601_000 } }] });
  child.kill('SIGTERM');
  t.match(await end, { code: 0 });
});

t.test('a role that cannot start: exit code 1; a bug: 70', async (t) => {
  // One after the other: a data folder is one daemon's.
  const run = (FAKE: string) => command.run(['source', 'run', '--config', sourceConfig], { FAKE });
  const [locked, buggy, refused] = [await run('fault'), await run('rejection'), await run('system')];
  t.match(locked, { code: 1, stderr: /^STORE_LOCKED: guest web: locked\n/ });
  t.match(refused, { code: 1, stderr: /^error: EACCES: permission denied, mkdir '\/x'\n.*afterimage doctor/ });
  t.equal(buggy!.code, 70);
  t.match(buggy!.stdout, /"level":60.*planted bug.*"msg":"a bug: ended, to be started anew"/);
});

t.test('a service manager that asked for it is told', async (t) => {
  const path = join(folder, 'notify');
  // Which a source makes, and this one is none.
  await mkdir(join(folder, 's', 'spool'), { recursive: true, mode: 0o711 });
  const receiver = spawn('socat', ['-u', `UNIX-RECV:${path}`, 'STDOUT'], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => receiver.kill('SIGKILL'));
  await until(() => access(path).then(() => true, () => false));
  let told = '';
  receiver.stdout.on('data', (chunk: Buffer) => { told += chunk.toString('utf8'); });
  const { child, end } = await startDaemon(t, ['source', 'run', '--config', sourceConfig], { NOTIFY_SOCKET: path, WATCHDOG_USEC: '200000' });
  await until(async () => (told.match(/WATCHDOG=1/g)?.length ?? 0) >= 2);
  t.ok(told.startsWith(`EXTEND_TIMEOUT_USEC=60000000READY=1\nMAINPID=${child.pid}`), told);
  child.kill('SIGTERM');
  t.match(await end, { code: 0 });
  await until(async () => told.endsWith('STOPPING=1'));
});

t.test('a person at a terminal is asked, and sees what would be lost', async (t) => {
  const { child, end } = await startDaemon(t, ['target', 'run', '--config', targetConfig]);
  const answered = async (answer: string) => {
    const line = `'${process.execPath}' '${join(command.folder, 'console/main.js')}' failover web --config '${targetConfig}'`;
    const terminal = spawn('script', ['-qfec', line, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, TERM: 'xterm', NO_COLOR: '' } });
    t.teardown(() => terminal.kill('SIGKILL'));
    const done = ended(terminal);
    let text = '';
    terminal.stdout.on('data', (chunk: Buffer) => { text += chunk.toString('utf8'); });
    await until(async () => text.includes('Type yes: '));
    terminal.stdin.write(answer);
    return done;
  };
  t.match(await answered('yes\n'), { code: 0, stdout: /would boot here from point 1\.3[^]*would be lost[^]*\u001b\[32mweb runs here/ });
  t.match(await answered('y\n'), { code: 1, stdout: /Nothing was done\./ });
  t.match(await answered('\u0004'), { code: 1, stdout: /Nothing was done\./ });
  child.kill('SIGTERM');
  t.match(await end, { code: 0 });
});

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (const endMs = Date.now() + 20_000; !await isSo();) {
    if (Date.now() > endMs) throw new Error('waited in vain');
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}

t.test('doctor on a machine without QEMU says what to install', async (t) => {
  const bare = { PATH: join(folder, 'empty') };
  const page = await command.run(['doctor'], bare);
  t.equal(page.code, 1);
  t.match(page.stdout, /^fail +QEMU +qemu-system-\w+ is not installed$/m);
  t.match(page.stdout, /^To install what is missing:\n {2}apt install qemu-system-\S+ qemu-utils$/m);
  const { code, stdout } = await command.run(['doctor', '--json', '--config', sourceConfig], bare);
  t.equal(code, 1);
  t.match(JSON.parse(stdout), { verdict: 'fail', install: [/^qemu-system-/, 'qemu-utils'] });
});

t.test('a daemon elsewhere, with a token', async (t) => {
  const config = join(folder, 'open.yaml');
  await writeFile(config, `role: target\nname: bravo\ndata: ${folder}/o\nlisten: {port: 0}\napi: {listen: {host: 127.0.0.1, port: 0}}\n`);
  const daemon = command.start(['target', 'run', '--config', config]);
  t.teardown(() => daemon.kill('SIGKILL'));
  let facts: { readonly host?: string; readonly port?: number; readonly fingerprint?: string } = {};
  await awaitLine(daemon, (line) => {
    const found = JSON.parse(line) as typeof facts & { readonly msg?: string };
    if (found.fingerprint !== undefined) facts = found;
    return found.msg === 'ready';
  });
  const made = await command.run(['token', 'create', 'night', '--scope', 'read', '--for', '1d', '--config', config]);
  t.match(made, { code: 0, stdout: /^afterimage_\S+\n$/, stderr: /^night may read until / });
  const tokenFile = join(folder, 'token');
  await writeFile(tokenFile, made.stdout, { mode: 0o600 });
  const ask = (...args: string[]) => command.run(args, { AFTERIMAGE_API: `https://127.0.0.1:${facts.port}`, AFTERIMAGE_TOKEN_FILE: tokenFile, AFTERIMAGE_FINGERPRINT: facts.fingerprint });
  t.match(await ask('status'), { code: 0, stdout: /^web +protected/m });
  t.match(await ask('failover', 'web', '--yes'), { code: 1, stderr: /^OPERATOR_SCOPE: .*takes administer/ });
  t.match(await ask('export', 'web', '--format', 'raw', '--to', folder), { code: 64, stderr: /run it there/ });
  t.match(await ask('status', '--fingerprint', 'ab'.repeat(32)), { code: 1, stderr: /^API_UNTRUSTED/ });
  t.match(await command.run(['token', 'list', '--config', config]), { code: 0, stdout: /^night +read/m });
  t.match(await command.run(['token', 'revoke', 'night', '--config', config]), { code: 0 });
  t.match(await ask('status'), { code: 1, stderr: /^OPERATOR_TOKEN/ });
});
