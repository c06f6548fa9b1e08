import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { access, chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { agentCheck } from '../../../console/doctor/agent-check.ts';
import { guestCheck, socketModeCheck } from '../../../console/doctor/guest-check.ts';
import { connectGuestAgent } from '../../../qemu/guest-agent.ts';
import { createLabDisk, startLabGuest } from '../../support/lab-guest.ts';

const folder = await mkdtemp(join(tmpdir(), 'ai-guest-'));
t.teardown(() => rm(folder, { recursive: true, force: true }));

/** Ended by the test, or by its limit. */
async function start(t: { teardown(after: () => unknown): unknown }, binary: string, args: readonly string[], socket: string): Promise<ChildProcess> {
  const child = spawn(binary, [...args], { stdio: ['ignore', 'ignore', 'inherit'] });
  const limit = setTimeout(() => child.kill('SIGKILL'), 60_000);
  const gone = new Promise((resolve) => { child.once('exit', resolve); });
  t.teardown(async () => {
    clearTimeout(limit);
    child.kill('SIGKILL');
    await gone;
  });
  for (const endMs = Date.now() + 30_000; !await access(socket).then(() => true, () => false);) {
    if (child.exitCode !== null || Date.now() > endMs) throw new Error(`${binary} made no socket`);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
  return child;
}

t.test('a guest that can be protected, with a drive that is no disk', async (t) => {
  const socket = join(folder, 'qmp');
  for (const [name, format] of [['a', 'qcow2'], ['b', 'raw']] as const) t.equal(spawnSync('qemu-img', ['create', '-q', '-f', format, join(folder, name), '64M']).status, 0);
  await start(t, 'qemu-system-x86_64', [
    '-accel', 'tcg', '-machine', 'q35', '-m', '64', '-S', '-nodefaults', '-display', 'none', '-qmp', `unix:${socket},server=on,wait=off`,
    '-drive', `if=none,id=a,format=qcow2,file=${folder}/a`, '-device', 'virtio-blk-pci,drive=a,id=system',
    '-drive', `if=none,id=b,format=raw,file=${folder}/b`, '-device', 'virtio-blk-pci,drive=b',
    '-device', 'ide-cd,id=cd',
  ], socket);
  const finding = await guestCheck(socket, null).run();
  t.match(finding, { verdict: 'warn', found: /^QEMU \d+\.\d+\.\d+: system \(qcow2, 64 MiB\), .* \(raw, 64 MiB, resync after each restart of the guest\); not cd \(/ });
  t.match(await guestCheck(socket, null).run(), finding, 'the socket is left free');
  t.match(await socketModeCheck(socket).run(), { verdict: 'ok' });
  await chmod(socket, 0o777);
  t.match(await socketModeCheck(socket).run(), { verdict: 'warn', found: /everybody may connect/ });
});

t.test('a guest’s agent: another program has it, it can freeze, it does not answer', async (t) => {
  const path = await createLabDisk(join(folder, 'lab'), 'raw', 64 * 1024 ** 2);
  const guest = await startLabGuest(t, { disks: [{ path, format: 'raw' }], hasAgent: true });
  await guest.waitForLine(/^AF AGENT /, 60_000);
  const agent = await connectGuestAgent(guest.agentPath);
  await agent.ping(20_000);
  t.match(await guestCheck(guest.qmpPath, null).run(), { verdict: 'warn', found: /another program is connected to its guest agent/ });
  agent.close();
  t.match(await guestCheck(guest.qmpPath, null).run(), { verdict: 'ok', found: /; guest agent \d+\.\d+\.\d+, can freeze$/ });
  await guest.command('sh kill -STOP $(pidof qemu-ga)');
  t.match(await agentCheck('web', guest.agentPath).run(), { verdict: 'warn', found: /did not answer guest-ping/ });
});

t.test('a guest without disks', async (t) => {
  const socket = join(folder, 'none');
  await start(t, 'qemu-system-x86_64', ['-accel', 'tcg', '-machine', 'none', '-S', '-nodefaults', '-display', 'none', '-qmp', `unix:${socket},server=on,wait=off`], socket);
  t.match(await guestCheck(socket, null).run(), { verdict: 'fail', found: /no disk that can be protected/ });
});

t.test('a storage daemon', async (t) => {
  const socket = join(folder, 'qsd');
  await start(t, 'qemu-storage-daemon', ['--chardev', `socket,id=c,path=${socket},server=on,wait=off`, '--monitor', 'chardev=c'], socket);
  t.match(await guestCheck(socket, null).run(), { verdict: 'ok', found: /a storage daemon/ });
});

t.test('what is no guest', async (t) => {
  t.match(await guestCheck(join(folder, 'nothing'), null).run(), { verdict: 'fail', found: /cannot connect/, advice: /for us alone/ });
  t.match(await socketModeCheck(join(folder, 'nothing')).run(), { verdict: 'fail', found: 'it is not there' });
  await writeFile(join(folder, 'file'), '');
  t.match(await socketModeCheck(join(folder, 'file')).run(), { verdict: 'fail', found: 'it is no socket' });
  const server = createServer((socket) => socket.end('SSH-2.0\n'));
  await new Promise<void>((resolve) => { server.listen(join(folder, 'ssh'), resolve); });
  t.teardown(() => server.close());
  t.match(await guestCheck(join(folder, 'ssh'), null).run(), { verdict: 'fail', found: /not QMP/ });
  t.match(await guestCheck(join(folder, 'held'), 'web').run(), { verdict: 'ok', found: /as web/ });
});
