/** `doctor --failover` as an operator runs it, against a running target: exit codes, page, JSON, and the alarm in `status`. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { TargetClient } from '../../console/control-client.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { isFault } from '../../journal/fault.ts';
import { stopGuest } from '../../qemu/boot.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import { BuiltCommand } from '../console/built-command.ts';
import { ModelGuest, sourceId } from '../store/model-guest.ts';
import { appendAll } from '../store/store-rig.ts';
import { waitFor } from '../support/wait.ts';

void t.test('a group that can start, and the same one when it cannot', { timeout: 120_000 }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'ai-df-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const kernel = join(folder, 'vmlinuz');
  await writeFile(kernel, 'a kernel');
  const groups = join(folder, 'data', 'groups');
  await mkdir(groups, { recursive: true, mode: 0o700 });
  const registry = await openRegistry({ disk: nodeDisk, clock: nodeClock, folder: groups, options: { segmentBytes: 4 << 20 } });
  const guest = new ModelGuest([1 << 20]);
  const announcement = guest.announcement();
  const hardware = {
    version: 1, qemuVersion: '7.2.0', arch: 'x86_64', machine: { type: 'q35', options: {} }, memory: { sizeBytes: 64 << 20 }, ioThreads: [], devices: [],
    disks: announcement.disks.map(({ name, sizeBytes }) => ({ name, sizeBytes })), serialPorts: 0, notes: [], kernel: { kernel },
  };
  const store = await registry.announce(sourceId, { ...announcement, hardware });
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  guest.write(0, 0, Buffer.alloc(4096, 1));
  await appendAll(store, guest.cut());
  await store.drain();
  await registry.close();

  const command = await BuiltCommand.build(t);
  const config = join(folder, 'target.yaml');
  const control = join(folder, 'control');
  await writeFile(config, `role: target\nname: bravo\nlisten: { host: 127.0.0.1, port: 0 }\nadvertise: 127.0.0.1:1\ndata: ${join(folder, 'data')}\nkeepFree: 1MiB\ncontrol: ${control}\nfailover: { accel: tcg }\n`);
  const doctor = (...more: string[]): ReturnType<BuiltCommand['run']> => command.run(['doctor', '--config', config, '--failover', announcement.name, ...more]);
  t.match(await doctor(), { code: 69, stderr: /DAEMON_UNREACHABLE|no daemon answers/ }, 'it asks the target that runs');
  const child = command.start(['target', 'run', '--config', config]);
  t.teardown(() => { child.kill('SIGKILL'); });
  child.stdout!.resume();
  let said = '';
  child.stderr!.on('data', (chunk: Buffer) => { said += chunk.toString(); });
  const client = new TargetClient(control);
  await waitFor(() => client.report().then(() => true, (error: unknown) => { if (isFault(error)) return false; throw error; }), { limitMs: 30_000, what: `the target to answer: ${said}` });

  const fine = await doctor();
  t.match(fine, { code: 0, stdout: /^fine +machine type +q35$/m });
  t.match(fine.stdout, new RegExp(`\n\n${announcement.name} can start here\\.\n$`));
  await rm(kernel);
  const refused = await doctor('--json');
  t.equal(refused.code, 1);
  t.match(JSON.parse(refused.stdout), { group: announcement.name, verdict: 'refused', findings: [] });
  const wrong = (JSON.parse(refused.stdout) as { findings: { verdict: string }[] }).findings.filter(({ verdict }) => verdict !== 'fine');
  t.match(wrong, [{ check: 'kernel', verdict: 'refused', found: `${kernel} is not on this host` }]);
  const status = await command.run(['status', '--config', config]);
  t.match(status.stdout, new RegExp(`^${announcement.name}: could not start here: kernel: ${kernel} is not on this host \\(looked at .* ago\\)`, 'm'), 'the alarm');
  t.match(await command.run(['doctor', '--config', config, '--failover', 'nobody']), { code: 1, stderr: /nobody/ });
  t.match(await doctor('--try-kvm'), { code: 64, stderr: /neither --qmp nor --try-kvm/ });

  // An unplanned failover goes on: without its kernel the guest starts from its disks, and is told so.
  const result = await command.run(['failover', announcement.name, '--config', config, '--yes']);
  t.match(result, { code: 0, stdout: /^refused {2}kernel: .* is not on this host\. Copy it here/m });
  for (const { pid, qmpPath } of (await client.report()).failovers) t.teardown(async () => { if (pid !== null) await stopGuest(pid, qmpPath); });
  t.match(await command.run(['failover-stop', announcement.name, '--config', config, '--roll-back', '--yes']), { code: 0 });
});
