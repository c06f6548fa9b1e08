import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import t from 'tap';
import { parseConfig, type TargetConfig } from '../../../console/config/config.ts';
import { openTargetControl } from '../../../console/control.ts';
import { thisHost } from '../../../console/doctor/binaries.ts';
import { fail, ok, runChecks, warn } from '../../../console/doctor/check.ts';
import { planChecks } from '../../../console/doctor/checks-plan.ts';
import { fileSystemOf, mountTypeOf } from '../../../console/doctor/file-systems.ts';
import { fallocateCheck, fileSystemCheck, judgeFileSystem, permissionCheck, secretFilesCheck, spaceCheck } from '../../../console/doctor/folder-checks.ts';
import { clockCheck, nodeCheck, portCheck, reachableCheck } from '../../../console/doctor/host-checks.ts';
import { immutableCheck, isAble, judgeImmutable } from '../../../console/doctor/immutable-check.ts';
import { kvmCheck } from '../../../console/doctor/kvm-check.ts';
import { qemuCheck, qemuFeaturesCheck, qemuImgCheck } from '../../../console/doctor/qemu-checks.ts';
import { formatDoctor } from '../../../console/render/doctor.ts';
import { plainLook } from '../../../console/render/look.ts';

const folder = await mkdtemp(join(tmpdir(), 'ai-doctor-'));
t.teardown(() => rm(folder, { recursive: true, force: true }));

t.test('a report is as bad as its worst check, whatever a check does', async (t) => {
  const report = await runChecks([
    { name: 'a', run: async () => ok('fine') },
    { name: 'b', run: async () => ({ ...fail('gone', 'apt install x'), packages: ['x', 'y'] }) },
    { name: 'c', run: async () => { throw new Error('boom'); } },
    { name: 'd', run: async () => ({ ...warn('odd', 'look'), packages: ['y'] }) },
  ]);
  t.match(report, { verdict: 'fail', install: ['x', 'y'], checks: [{ name: 'a', verdict: 'ok' }, { name: 'b' }, { name: 'c', verdict: 'fail', found: 'could not be checked: boom' }, { name: 'd', verdict: 'warn' }] });
  t.equal((await runChecks([])).verdict, 'ok');
  t.equal((await runChecks([{ name: 'd', run: async () => warn('odd', '') }])).verdict, 'warn');
  t.equal(formatDoctor(plainLook, report), [
    '      CHECK  FOUND',
    'ok    a      fine',
    'fail  b      gone',
    'fail  c      could not be checked: boom',
    'warn  d      odd',
    '',
    'fail  b: apt install x',
    'fail  c: Report this with the message.',
    'warn  d: look',
    '',
    'To install what is missing:',
    '  apt install x y',
    '',
    'It will not work yet.',
    '',
  ].join('\n'));
});

t.test('QEMU: the installed one is fit, others are told apart', async (t) => {
  t.match(await qemuCheck(thisHost).run(), { verdict: 'ok', found: /qemu-system-.*version \d/ });
  t.match(await qemuFeaturesCheck(thisHost).run(), { verdict: 'ok', found: /quorum/ });
  t.match(await qemuImgCheck(thisHost).run(), { verdict: 'ok' });
  const fakes = join(folder, 'bin');
  await mkdir(fakes);
  const host = { path: fakes, arch: 'x64', nodeVersion: 'v20.16.0' };
  const script = (name: string, text: string) => writeFile(join(fakes, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  t.match(await qemuCheck(host).run(), { verdict: 'fail', packages: ['qemu-system-x86'], advice: 'apt install qemu-system-x86' });
  t.match(await qemuImgCheck(host).run(), { verdict: 'fail', packages: ['qemu-utils'] });
  t.match(await qemuCheck({ ...host, arch: 'arm64' }).run(), { packages: ['qemu-system-arm'] });
  await script('qemu-system-x86_64', 'echo QEMU emulator version 6.2.0; exit 0');
  t.match(await qemuCheck(host).run(), { verdict: 'fail', found: /version 6\.2\.0/, advice: /7\.2 or later/ });
  t.match(await qemuFeaturesCheck(host).run(), { verdict: 'fail', found: /could not be asked: it ended with 0/ });
  await script('qemu-system-x86_64', 'echo no such machine >&2; exit 3');
  t.match(await qemuCheck(host).run(), { verdict: 'fail', found: /does not run: no such machine/ });
  t.match(await qemuFeaturesCheck(host).run(), { verdict: 'fail', found: /it ended with 3: no such machine/ });
  await chmod(join(fakes, 'qemu-system-x86_64'), 0o644);
  t.match(await qemuCheck(host).run(), { verdict: 'fail', found: /is not installed/ }, 'not executable');
});

t.test('Node, clock, KVM', async (t) => {
  const verdict = async (nodeVersion: string) => (await nodeCheck({ ...thisHost, nodeVersion }).run()).verdict;
  t.strictSame(await Promise.all(['v20.15.9', 'v20.16.0', 'v18.20.0', 'v24.0.0'].map(verdict)), ['fail', 'ok', 'fail', 'ok']);
  t.match((await clockCheck().run()).verdict, /^(ok|warn)$/);
  t.equal((await kvmCheck(thisHost, false).run()).verdict, 'warn', 'that it can be opened says little');
});

t.test('file systems', async (t) => {
  t.strictSame(fileSystemOf(0xef53, 'ext4'), { name: 'ext4', kind: 'local' });
  t.strictSame(fileSystemOf(0x6969, 'nfs4'), { name: 'NFS', kind: 'network' });
  t.strictSame(fileSystemOf(0xff534d42 | 0, null), { name: 'CIFS', kind: 'network' }, 'sign-extended numbers as well');
  t.strictSame(fileSystemOf(0x01021997, '9p'), { name: '9p', kind: 'network' });
  t.strictSame(fileSystemOf(0x65735546, 'fuse.sshfs'), { name: 'fuse.sshfs', kind: 'network' });
  t.strictSame(fileSystemOf(0x65735546, 'virtiofs'), { name: 'virtiofs', kind: 'network' });
  t.strictSame(fileSystemOf(0x65735546, 'fuseblk'), { name: 'fuseblk', kind: 'local' });
  t.strictSame(fileSystemOf(0x12345, null), { name: '0x12345', kind: 'unknown' });
  const mounts = [
    '22 1 8:1 / / rw - ext4 /dev/sda1 rw', '30 22 0:25 / /srv rw shared:1 - nfs4 host:/x rw', '31 22 0:26 / /srv/with\\040space rw - fuse.sshfs x rw', '32 22 0:27 / /tmp rw - ext4 a rw', '33 22 0:28 / /tmp rw - tmpfs b rw',
  ].join('\n');
  t.equal(mountTypeOf(mounts, '/srv/a'), 'nfs4');
  t.equal(mountTypeOf(mounts, '/srvx'), 'ext4');
  t.equal(mountTypeOf(mounts, '/srv/with space/x'), 'fuse.sshfs');
  t.equal(mountTypeOf(mounts, '/tmp/x'), 'tmpfs', 'the later mount hides the earlier');
  t.equal(mountTypeOf('', '/x'), null);
  t.match(judgeFileSystem({ name: 'NFS', kind: 'network' }, true), { verdict: 'fail', advice: /hang the guests/ });
  t.match(judgeFileSystem({ name: 'NFS', kind: 'network' }, false), { verdict: 'warn' });
  t.match(judgeFileSystem({ name: 'ext4', kind: 'local' }, true), { verdict: 'ok' });
  t.match(judgeFileSystem({ name: 'odd', kind: 'unknown' }, true), { verdict: 'warn' });
  t.match(await fileSystemCheck('spool', '/proc/self', true).run(), { verdict: 'warn', found: /^proc: not known/ }, 'the name comes from the mounts');
});

t.test('folders', async (t) => {
  const data = join(folder, 'data');
  t.match(await permissionCheck('data', data, true).run(), { verdict: 'ok', found: `${data} will be made` });
  await mkdir(data, { mode: 0o700 });
  t.match(await permissionCheck('data', data, true).run(), { verdict: 'ok', found: /mode 700/ });
  await chmod(data, 0o750);
  t.match(await permissionCheck('data', data, true).run(), { verdict: 'fail', advice: `chmod go-rw ${data}` });
  await chmod(data, 0o711);
  t.match(await permissionCheck('data', data, true).run(), { verdict: 'ok' }, 'as the unit makes a source’s');
  await chmod(data, 0o750);
  t.match(await permissionCheck('spool', data, false).run(), { verdict: 'ok' });
  await chmod(data, 0o777);
  t.match(await permissionCheck('spool', data, false).run(), { verdict: 'fail', advice: `chmod o-w ${data}` });
  await chmod(data, 0o700);
  t.match(await permissionCheck('data', join(data, 'a/b'), true).run(), { verdict: 'ok', found: /will be made/ });

  t.match(await secretFilesCheck(data).run(), { verdict: 'ok', found: /none yet/ });
  await mkdir(join(data, 'targets'));
  await writeFile(join(data, 'source.json'), '{}', { mode: 0o600 });
  await writeFile(join(data, 'targets/bravo.json'), '{}', { mode: 0o600 });
  t.match(await secretFilesCheck(data).run(), { verdict: 'ok', found: '2, all private' });
  await chmod(join(data, 'targets/bravo.json'), 0o644);
  t.match(await secretFilesCheck(data).run(), { verdict: 'fail', found: `others may read ${join(data, 'targets/bravo.json')}` });

  t.match(await fallocateCheck('spool', join(data, 'spool')).run(), { verdict: 'ok' });
  t.match(await fallocateCheck('spool', '/proc/self').run(), { verdict: 'fail', found: /cannot be made/ });
  t.match(await spaceCheck('spool', data, 0, 1).run(), { verdict: 'ok' });
  t.match(await spaceCheck('spool', data, 0, 2 ** 52).run(), { verdict: 'warn', advice: /does not fit/ });
  t.match(await spaceCheck('spool', data, 2 ** 52, 1).run(), { verdict: 'fail', advice: /keepFree/ });
  t.match(await spaceCheck('data', join(data, 'not/there'), 1, null).run(), { verdict: 'ok' });
});

t.test('ports', async (t) => {
  const other = await listening(0);
  const taken = (other.address() as { port: number }).port;
  t.teardown(() => other.close());
  const config = (port: number): TargetConfig => parseConfig('F', `role: target\nname: bravo\ndata: ${folder}/t\nlisten: {host: 127.0.0.1, port: ${port}}`) as TargetConfig;
  t.match(await portCheck(config(taken)).run(), { verdict: 'fail', found: /taken by another process/ });
  t.match(await portCheck(config(0)).run(), { verdict: 'ok' });
  const control = await openTargetControl(config(taken).controlPath, { report: () => ({}) } as never, pino({ level: 'silent' }));
  t.match(await portCheck(config(taken)).run(), { verdict: 'ok', found: /this target listens/ });
  await control.close();
  t.match(await reachableCheck('bravo', '127.0.0.1', taken).run(), { verdict: 'ok' });
  await new Promise((resolve) => { other.close(resolve); });
  t.match(await portCheck(config(taken)).run(), { verdict: 'ok', found: /is free/ });
  t.match(await reachableCheck('bravo', '127.0.0.1', taken).run(), { verdict: 'fail', found: /ECONNREFUSED/ });
  t.match(await portCheck({ ...config(taken), options: { ...config(taken).options, listen: { host: '192.0.2.1', port: taken } } }).run(), { verdict: 'fail', found: /EADDRNOTAVAIL/ });
});

function listening(port: number): Promise<Server> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy());
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}

t.test('locked points: what the file system has, and what the daemon may', async (t) => {
  t.match(judgeImmutable('unknown', true), { verdict: 'warn', found: /file system has no immutable/ });
  t.match(judgeImmutable('set', true), { verdict: 'ok', found: /the daemon can/ });
  t.match(judgeImmutable('refused', true), { verdict: 'ok' }, 'asked by somebody else than the daemon');
  t.match(judgeImmutable('set', false), { verdict: 'warn', found: /the daemon lacks CAP_LINUX_IMMUTABLE/, advice: /AmbientCapabilities/ });
  t.match(judgeImmutable('set', null), { verdict: 'ok', found: /does not run/ });
  t.match(judgeImmutable('refused', null), { verdict: 'warn', found: /this user lacks/ });
  t.ok(isAble('Name:\tnode\nCapEff:\t0000000000000200\n'));
  t.notOk(isAble('CapEff:\t000001fffffffdff\n'));

  const data = join(folder, 'locks');
  await mkdir(data);
  const nobody = join(folder, 'none.sock');
  const alone = await immutableCheck(data, nobody).run();
  t.match(alone.found, isAble(await readFile('/proc/self/status', 'utf8')) ? /can be made immutable|no immutable attribute/ : /this user lacks|no immutable attribute/);
  // As the process behind the socket may, whoever asks: this one takes off the power, and starts nothing that has it.
  const path = join(folder, 'daemon.sock');
  const weak = spawn('setpriv', ['--bounding-set', '-linux_immutable', '--inh-caps', '-linux_immutable', process.execPath, '-e', 'require("node:net").createServer((s) => s.destroy()).listen(process.argv[1], () => console.log("up"))', path], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => weak.kill('SIGKILL'));
  await once(weak.stdout, 'data');
  const asked = await immutableCheck(data, path).run();
  t.match(asked, { verdict: 'warn', found: alone.found.includes('no immutable attribute') ? /no immutable attribute/ : /the daemon lacks CAP_LINUX_IMMUTABLE/ });
  t.strictSame(await readdir(data), [], 'nothing is left');
});

t.test('which checks a host needs', async (t) => {
  const names = (configs: readonly Parameters<typeof planChecks>[0]['configs'][number][]): string[] =>
    planChecks({ host: thisHost, configs, guests: [{ qmpPath: '/q', holder: null }], targets: [{ name: 'bravo', host: 'b', port: 1 }], isKvmTried: false }).map(({ name }) => name);
  const common = ['Node', 'QEMU', 'QEMU features', 'qemu-img'];
  const asked = ['target bravo', 'socket /q', 'guest /q'];
  t.strictSame(names([]), [...common, 'KVM', 'clock', ...asked]);
  t.strictSame(names([parseConfig('F', 'role: source\nname: a\ndata: /d')]), [
    ...common, 'clock', 'source data permissions', 'key files', 'spool permissions', 'spool file system', 'spool preallocation', 'spool space', ...asked,
  ]);
  t.strictSame(names([parseConfig('F', 'role: target\nname: a\ndata: /d')]), [
    ...common, 'KVM', 'clock', 'target data permissions', 'key files', 'target data file system', 'target data preallocation', 'target data space', 'locked points', 'port', ...asked,
  ]);
});
