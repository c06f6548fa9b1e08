/** What the installed QEMU says of itself, when it is asked again, and programs that are no QEMU. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { askEmptyQemu } from '../../qemu/empty-qemu.ts';
import { programAbilities } from '../../qemu/program-abilities.ts';
import { shortFolder, until } from './real-qemu.ts';

const installed = execFileSync('which', ['qemu-system-x86_64'], { encoding: 'utf8' }).trim();

void t.test('the installed one', { timeout: 60_000 }, async (t) => {
  const { version, machines, cpuModels, cpuFeatures, devices, networks } = await programAbilities(installed, 'tcg');
  t.match(version, /^\d+\.\d+\.\d+$/);
  t.match(machines.get('q35'), { isDeprecated: false }, 'by its alias');
  t.ok(machines.get('pc-q35-7.2')!.cpusMax >= 255);
  t.ok(cpuModels.get('Skylake-Server-v1')!.missing.includes('avx512f'), 'emulation has no AVX-512');
  t.strictSame(cpuModels.get('qemu64')!.missing, []);
  t.equal(cpuFeatures?.get('sse2'), true);
  t.equal(cpuFeatures?.get('avx512f'), false);
  t.ok(devices.has('virtio-blk-pci') && !devices.has('no-such-device'));
  t.ok(networks?.has('user'));
});

void t.test('when it is asked again', { timeout: 60_000 }, async (t) => {
  const folder = shortFolder(t);
  const program = join(folder, 'qemu');
  const marker = join(folder, 'started');
  const failing = join(folder, 'failing');
  const starts = (): number => (existsSync(marker) ? readFileSync(marker, 'utf8').trim().split('\n').length : 0);
  writeFileSync(program, `#!/bin/sh\necho started >> ${marker}\nif [ -e ${failing} ]; then echo "no such accelerator" >&2; exit 3; fi\nexec ${installed} "$@"\n`, { mode: 0o755 });
  let release = (): void => undefined;
  const later = programAbilities(program, 'tcg', { askAfter: new Promise<void>((resolve) => { release = resolve; }) });
  await programAbilities(installed, 'tcg', { ageMsMax: 0 });
  t.equal(starts(), 0, 'not before it may, though another was asked and answered meanwhile');
  release();
  await later;
  t.equal(starts(), 1);
  await programAbilities(program, 'tcg');
  t.equal(starts(), 1, 'remembered');
  await programAbilities(program, 'tcg', { ageMsMax: 0 });
  t.equal(starts(), 2, 'too old');
  utimesSync(program, 1, 1);
  await programAbilities(program, 'tcg');
  t.equal(starts(), 3, 'another file');
  writeFileSync(failing, '');
  await t.rejects(programAbilities(program, 'tcg', { ageMsMax: 0 }), { code: 'QMP_UNREACHABLE', message: 'it ended with 3: no such accelerator' });
  rmSync(failing);
  await programAbilities(program, 'tcg');
  t.equal(starts(), 5, 'a failure is not remembered');
  rmSync(program);
  await t.rejects(programAbilities(program, 'tcg'), { code: 'ENOENT' });
});

/** Whether a process of that number still has this in its command line. */
function runs(pid: number, word: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(word);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

void t.test('it ends with whoever asks, also when that is killed', { timeout: 30_000 }, async (t) => {
  const folder = shortFolder(t);
  const program = join(folder, 'qemu');
  const pidFile = join(folder, 'pid');
  writeFileSync(program, `#!/bin/sh\necho $$ > ${pidFile}\nexec ${installed} "$@"\n`, { mode: 0o755 });
  const asking = spawn(process.execPath, [...process.execArgv, join(import.meta.dirname, 'asking-qemu.ts'), program, pidFile], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, TMPDIR: folder } });
  t.teardown(() => { asking.kill('SIGKILL'); });
  let said = '';
  asking.stdout!.on('data', (chunk: Buffer) => { said += chunk.toString(); });
  await until('QEMU to be asked', () => (said.includes('\n') ? true : undefined));
  const pid = Number(said);
  t.teardown(() => { if (runs(pid, folder)) process.kill(pid, 'SIGKILL'); });
  t.ok(runs(pid, '-machine'));
  asking.kill('SIGKILL');
  await until('QEMU to be gone', () => (runs(pid, '-machine') ? undefined : true));
});

void t.test('a program that hangs is ended', { timeout: 30_000 }, async (t) => {
  const folder = shortFolder(t);
  const program = join(folder, 'qemu');
  const pidFile = join(folder, 'pid');
  writeFileSync(program, `#!/bin/sh\necho $$ > ${pidFile}\nexec tail -f /dev/null\n`, { mode: 0o755 });
  await t.rejects(askEmptyQemu(program, 'tcg', async () => 1, 1000), { code: 'QMP_TIMEOUT' });
  const pid = Number(readFileSync(pidFile, 'utf8'));
  await until('it to be gone', () => (runs(pid, 'tail') ? undefined : true));
  await t.rejects(askEmptyQemu(join(folder, 'none'), 'tcg', async () => 1), { code: 'QMP_UNREACHABLE', message: /ENOENT|No such file/ });
});
