/**
 * The Debian package on a machine of its own with systemd as process 1: installed, started in its sandbox, upgraded with a guest protected, its
 * failed-over guest followed by the source of the same host, outliving restarts, removed, purged. This machine's Node is no Debian package, hence --force-depends.
 */
import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { SourceClient, TargetClient } from '../../console/control-client.ts';
import { BuiltCommand } from '../console/built-command.ts';
import { isLong } from '../support/extent.ts';
import { buildLabGuest } from '../../scripts/lab/lab-guest.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';
import { BootedMachine, whyNoMachine } from './booted-machine.ts';

const root = join(import.meta.dirname, '..', '..');
const skip = isLong ? await whyNoMachine() ?? false : 'with --long';

void t.test('installed, started, upgraded under a guest, failed over, removed, purged', { skip, timeout: 900_000 }, async (t) => {
  const command = await BuiltCommand.build(t);
  const packages = await mkdtemp(join(tmpdir(), 'af-deb-'));
  t.teardown(() => rm(packages, { recursive: true, force: true }));
  const build = async (version: string): Promise<string> => (await promisify(execFile)(join(root, 'scripts/package'), ['--to', packages, '--dist', command.folder, '--modules', '--version', version, '--compression', 'none'])).stdout.trim().split('\n').at(-1)!;
  const [first, second] = [await build('0.1.0'), await build('0.1.1~test')];

  const machine = await BootedMachine.boot(t);
  const at = (name: string): string => join(machine.folder, name);
  for (const path of [first, second]) await copyFile(path, at(path.slice(packages.length + 1)));
  const install = (path: string): Promise<string> => machine.run('dpkg', '--force-depends', '-i', at(path.slice(packages.length + 1)));
  // Images for containers forbid packages to start anything.
  await machine.run('rm', '-f', '/usr/sbin/policy-rc.d');
  await install(first);
  t.match(await machine.run('id', 'afterimage'), /groups=.*kvm/);
  t.equal(await machine.run('afterimage', '--version'), '0.1.0');
  t.equal(await machine.run('systemctl', 'is-enabled', 'afterimage-source'), 'enabled');
  t.equal(await machine.property('afterimage-target', 'ActiveState'), 'inactive', 'without its config it waits');
  t.equal(await machine.run('systemd-analyze', 'verify', 'afterimage-source.service', 'afterimage-target.service'), '');

  // Sockets and spool where the test and its guest see them, as an operator would have them elsewhere: by a drop-in.
  for (const role of ['source', 'target']) {
    await mkdir(at(role));
    await machine.run('mkdir', '-p', `/etc/systemd/system/afterimage-${role}.service.d`);
    // The target's guests write to the source's spool.
    await machine.run('sh', '-c', `printf '[Service]\\nReadWritePaths=${at('source')} ${at(role)}\\n' > /etc/systemd/system/afterimage-${role}.service.d/test.conf`);
  }
  await machine.run('chown', 'afterimage:', at('target'));
  await writeFile(at('source.yaml'), `role: source\nname: alpha\ndata: /var/lib/afterimage/source\nspool: { folder: ${at('source')}/spool, budget: 128MiB, keepFree: 1MiB }\ncontrol: ${at('source')}/s.sock\nlocalTarget: { user: afterimage, name: bravo }\n`);
  await writeFile(at('target.yaml'), `role: target\nname: bravo\nlisten: { host: 127.0.0.1 }\nadvertise: 127.0.0.1\ndata: /var/lib/afterimage/target\nkeepFree: 1MiB\ncontrol: ${at('target')}/t.sock\nfailover: { accel: tcg, overlayFolder: ${at('target')}/overlays, source: ${at('source')}/s.sock }\n`);
  await machine.run('cp', at('source.yaml'), at('target.yaml'), '/etc/afterimage/');
  await machine.run('systemctl', 'daemon-reload');
  // Ready is what it says over the notify socket: start returns then.
  await machine.run('systemctl', 'start', 'afterimage-target', 'afterimage-source');
  const source = new SourceClient(at('source/s.sock'));
  const target = new TargetClient(at('target/t.sock'));
  await source.pair((await target.invite()).token);
  t.equal(await machine.run('ps', '-o', 'user=', '-p', await machine.property('afterimage-target', 'MainPID')), 'afterimage');
  t.equal(await machine.property('afterimage-source', 'StatusText'), 'well');

  t.equal(await machine.run('stat', '-c', '%A %U:%G', at('source/s.sock')), 'srw-rw---- root:afterimage');
  const capabilities = (pid: string) => machine.run('grep', '-oP', '^CapEff:\\s*0*\\K.+', `/proc/${pid}/status`);
  t.equal(await capabilities(await machine.property('afterimage-target', 'MainPID')), '200', 'it may make files of locked points immutable, and nothing more');
  const { checks } = JSON.parse(await machine.run('sh', '-c', 'afterimage doctor --json || true')) as { checks: { name: string; verdict: string; found: string }[] };
  t.match(checks.find(({ name }) => name === 'locked points')?.found, /the daemon can make files immutable|no immutable attribute/);
  t.strictSame(checks.filter(({ verdict }) => verdict === 'fail'), [], 'doctor finds nothing wrong with how it was installed');

  const disk = await createLabDisk(at('disk.raw'), 'raw', 64 * 1024 ** 2);
  const { kernel, initrd } = await buildLabGuest();
  await mkdir(at('guest'));
  await copyFile(kernel, at('guest/kernel'));
  await copyFile(initrd, at('guest/initrd'));
  const guest = await startLabGuest(t, { mode: 'counter', churn: 128, timeLimitMs: 600_000, socketFolder: at('guest'), extraArgs: ['-kernel', at('guest/kernel'), '-initrd', at('guest/initrd')], disks: [{ path: disk, format: 'raw' }] });
  await guest.waitForLine(/^AF COUNTER 5 /, 60_000);
  await source.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  const report = async () => (await source.report()).guests[0]!;
  const newPoint = async (): Promise<void> => {
    const before = (await report()).newestPoint?.point ?? 0;
    await waitFor(async () => ((await report()).newestPoint?.point ?? 0) > before, { limitMs: 60_000, what: `a point after ${before}: ${JSON.stringify(await report())}` });
  };
  await newPoint();
  await newPoint();

  const pids = await Promise.all(['afterimage-source', 'afterimage-target'].map((unit) => machine.property(unit, 'MainPID')));
  await install(second);
  t.equal(await machine.run('afterimage', '--version'), '0.1.1~test');
  for (const [index, unit] of ['afterimage-source', 'afterimage-target'].entries()) {
    t.equal(await machine.property(unit, 'ActiveState'), 'active');
    t.not(await machine.property(unit, 'MainPID'), pids[index], `${unit} was replaced`);
  }
  await newPoint();
  t.match(await report(), { phase: 'protected', fullPasses: 0 }, 'protection goes on without another full pass');
  t.equal((await source.report()).version, '0.1.1~test');
  t.equal((await target.report()).version, '0.1.1~test');
  t.notOk(guest.serial.some((line) => /FAILED|I\/O error/.test(line.text)), 'no guest write failed');

  await guest.kill();
  const over = await target.failover({ group: 'web1' });
  await watchFile(over.logPath, /^AF COUNTER-FOUND (\d+)/m, 120_000);
  const pid = String(over.pid);
  t.equal(await machine.run('ps', '-o', 'user=', '-p', pid), 'afterimage', 'it runs as the user too');
  t.equal(await capabilities(pid), '0', 'without what the daemon has');
  // The source, which is root, follows it by the target's word: through a socket of that user's, into its own spool.
  t.match(await report(), { name: 'web1', qmpPath: new RegExp(`^user://\\d+${at('target')}/`) });
  t.match(await machine.run('runuser', '-u', 'afterimage', '--', 'sh', '-c', `curl -s --unix-socket ${at('source/s.sock')} -X POST http://daemon/v1/guests/web1/pause`), /CONTROL_PEER/, 'its user may ask the source for nothing else');
  await machine.run('systemctl', 'restart', 'afterimage-target');
  t.match((await target.report()).failovers, [{ group: 'web1', isRunning: true, pid: over.pid }], 'a restart does not end it, and the daemon finds it again');
  await machine.run('systemctl', 'kill', '--kill-who=main', '--signal=SIGKILL', 'afterimage-target');
  await waitFor(() => target.report().then(({ failovers }) => failovers[0]?.isRunning === true, () => false), { limitMs: 60_000, what: 'a daemon that was killed to be back' });

  // From the commit on what it writes becomes points, over restarts of the source too.
  await target.commitFailover('web1');
  await waitFor(async () => (await report()).newestPoint?.term === over.term, { limitMs: 120_000, what: `a point of term ${over.term}` });
  await newPoint();
  await machine.run('systemctl', 'restart', 'afterimage-source');
  await newPoint();
  t.match(await report(), { phase: 'protected', term: over.term });

  await machine.run('dpkg', '-r', 'afterimage');
  t.equal(await machine.property('afterimage-target', 'ActiveState'), 'inactive');
  t.match(await machine.run('ps', '-o', 'args=', '-p', pid), /qemu/, 'a removal leaves the guest running');
  t.match(await machine.run('dpkg', '-P', 'afterimage'), /is kept/);
  await machine.run('sh', '-c', 'test ! -e /etc/afterimage && test ! -e /etc/default/afterimage && test ! -e /usr/lib/afterimage && test -d /var/lib/afterimage/target/groups');
  t.match(await machine.run('ps', '-o', 'args=', '-p', pid), /qemu/, 'and so does a purge');
});
