/**
 * Whether guests can run under KVM here. That /dev/kvm can be opened says little (nested hosts exist on which a guest then
 * hangs), so on demand a firmware is started under it for a moment, and counts as running when it has said a word.
 */
import { spawn } from 'node:child_process';
import { open } from 'node:fs/promises';
import { findBinary, qemuName, type HostFacts } from './binaries.ts';
import { ok, warn, type Check, type Finding } from './check.ts';

const device = '/dev/kvm';
/** A firmware speaks within tens of milliseconds; this is a machine that hangs, ms. */
const firmwareMsMax = 10_000;

export function kvmCheck(host: HostFacts, isTried: boolean): Check {
  return {
    name: 'KVM',
    run: async () => {
      const refusal = await openDevice();
      if (refusal !== null) return warn(refusal, 'Guests boot here by emulation, many times slower: enable virtualisation in the firmware, load kvm_intel or kvm_amd, give this user access.');
      if (!isTried) return warn(`${device} can be opened; whether guests run under it was not tried`, 'Try it: afterimage doctor --try-kvm');
      return tryFirmware(host);
    },
  };
}

async function openDevice(): Promise<string | null> {
  try {
    await (await open(device, 'r+')).close();
    return null;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' ? `there is no ${device}` : `${device} cannot be opened (${code ?? String(error)})`;
  }
}

async function tryFirmware(host: HostFacts): Promise<Finding> {
  const path = await findBinary(host, qemuName(host));
  if (path === null || host.arch !== 'x64') return warn(`${device} can be opened; without ${qemuName({ ...host, arch: 'x64' })} it cannot be tried`, '');
  const child = spawn(path, ['-accel', 'kvm', '-machine', 'pc', '-m', '64', '-nodefaults', '-display', 'none', '-chardev', 'stdio,id=firmware', '-device', 'isa-debugcon,iobase=0x402,chardev=firmware'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let words = '';
  child.stderr.on('data', (chunk: Buffer) => { words = (words + chunk.toString('utf8')).slice(-2000); });
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise<Finding>((resolve) => {
      child.stdout.once('data', () => resolve(ok('a firmware ran under it')));
      child.once('error', (error) => resolve(warn(`QEMU did not start under KVM: ${error.message}`, 'Set `accel: tcg`, or mend KVM.')));
      child.once('exit', () => resolve(warn(`QEMU did not start under KVM: ${words.trim().split('\n')[0] ?? ''}`, 'Set `accel: tcg` in the target’s config, or mend KVM.')));
      timer = setTimeout(() => resolve(warn(`${device} is there, and a guest hangs under it`, 'Set `accel: tcg` in the target’s config, or mend KVM.')), firmwareMsMax);
    });
  } finally {
    clearTimeout(timer);
    child.kill('SIGKILL');
  }
}
