/** The part of start-plan.ts that is about the machine: QEMU's version, machine type, CPUs, memory. Pure. */
import type { GuestHardware } from '../../qemu/hardware.ts';
import type { ProgramAbilities } from '../../qemu/program-abilities.ts';
import { fine, refused, warning, size, type StartFinding } from './start-finding.ts';

export interface MemoryFacts {
  /** MemTotal, MemAvailable and SwapFree of /proc/meminfo, bytes. What a test of the group holds counts as available: it ends first. */
  readonly totalBytes: number;
  readonly availableBytes: number;
  readonly swapFreeBytes: number;
  /** The tightest of the control groups that this process, and so the guest's QEMU, is in; null: none has a limit. */
  readonly limit: { readonly limitBytes: number; readonly availableBytes: number } | null;
}

/** What QEMU takes beside the guest's memory: its own code, caches of the images, page tables. Seen: 60 to 120 MiB. */
const ownBytes = 128 * 1024 ** 2;
const namesMax = 8;

export function judgeVersion({ qemuVersion }: GuestHardware, { version }: ProgramAbilities): StartFinding {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [recordedMajor = 0, recordedMinor = 0] = qemuVersion.split('.').map(Number);
  const isOlder = major < recordedMajor || (major === recordedMajor && minor < recordedMinor);
  return isOlder ? warning('QEMU version', `${version}, and the guest runs under ${qemuVersion}`, 'An older QEMU may lack what the guest has: upgrade this one.') : fine('QEMU version', `${version}, the guest runs under ${qemuVersion}`);
}

export function judgeMachine({ machine: { type } }: GuestHardware, { machines }: ProgramAbilities): StartFinding {
  const known = machines.get(type);
  if (known === undefined) return refused('machine type', `this QEMU has no machine ${type}`, 'Install the QEMU of the source’s host or a newer one; or start the guest there with a machine that this one has.');
  return known.isDeprecated ? warning('machine type', `${type} is deprecated: a later QEMU will not have it`, 'Plan a restart of the guest with a newer machine type.') : fine('machine type', type);
}

export function judgeCpuModel({ cpu }: GuestHardware, { cpuModels, cpuFeatures }: ProgramAbilities, accel: 'kvm' | 'tcg'): StartFinding {
  if (cpu === undefined) return fine('CPU model', 'the machine’s default');
  const { model, features } = cpu;
  if (model === 'host') return accel === 'kvm' ? fine('CPU model', 'host: this host’s own') : warning('CPU model', 'host needs KVM; “max” is started', 'Give this host KVM, if the guest needs its features.');
  const known = cpuModels.get(model);
  // Without a list nothing can be said: QEMU of some architectures has none.
  if (cpuModels.size === 0) return fine('CPU model', `${model} (this QEMU does not say which it has)`);
  if (known === undefined) return refused('CPU model', `this QEMU has no CPU model ${model}`, 'Install the QEMU of the source’s host or a newer one; or start the guest there with a model that this one has.');
  // Switches of the hypervisor are no features of a processor.
  const added = Object.entries(features).filter(([name, value]) => value === true && !name.startsWith('hv-') && !name.startsWith('kvm') && cpuFeatures?.get(name) === false).map(([name]) => name);
  const lacking = [...new Set([...known.missing.filter((name) => features[name] !== false), ...added])];
  if (lacking.length > 0) {
    const shown = `${lacking.slice(0, namesMax).join(', ')}${lacking.length > namesMax ? ` and ${lacking.length - namesMax} more` : ''}`;
    return warning('CPU model', `${model} would lack ${shown} ${accel === 'tcg' ? 'under emulation' : 'on this host'}`, 'Programs of the guest that use them would fail: give both hosts a model that both have.');
  }
  return known.isDeprecated ? warning('CPU model', `${model} is deprecated`, 'Plan a restart of the guest with another model.') : fine('CPU model', model);
}

export function judgeCpus({ smp, machine: { type } }: GuestHardware, abilities: ProgramAbilities | null, hostCpus: number): StartFinding {
  if (smp === undefined) return fine('CPUs', 'the machine’s default');
  const { cpus, maxCpus } = smp;
  const cpusMax = abilities?.machines.get(type)?.cpusMax;
  if (cpusMax !== undefined && maxCpus > cpusMax) return refused('CPUs', `up to ${maxCpus}, and ${type} takes ${cpusMax} here`, 'Install a newer QEMU, or start the guest with fewer at its source.');
  return cpus > hostCpus ? warning('CPUs', `${cpus}, and this host has ${hostCpus}`, 'The guest would be slower.') : fine('CPUs', `${cpus}, this host has ${hostCpus}`);
}

export function judgeMemory({ memory: { sizeBytes, pluggedBytes = 0 } }: GuestHardware, facts: MemoryFacts): StartFinding {
  const { totalBytes, swapFreeBytes, limit } = facts;
  const guestBytes = sizeBytes + pluggedBytes;
  const neededBytes = guestBytes + ownBytes;
  const guest = `the guest has ${size(guestBytes)}`;
  if (guestBytes > totalBytes) return refused('memory', `${guest}, this host ${size(totalBytes)}`, 'Add memory to this host.');
  if (limit !== null && neededBytes > limit.limitBytes) return refused('memory', `${guest}, and all of this service may take ${size(limit.limitBytes)}`, 'Raise the memory limit of the service (systemd: MemoryMax=).');
  const availableBytes = Math.min(facts.availableBytes, limit?.availableBytes ?? Infinity);
  const found = `${guest}, ${size(availableBytes)} are available here`;
  if (neededBytes <= availableBytes) return fine('memory', found);
  if (limit !== null && limit.availableBytes < facts.availableBytes) return refused('memory', `${found} under the limit of this service`, 'Raise the memory limit of the service (systemd: MemoryMax=), or end what else it runs.');
  return neededBytes <= availableBytes + swapFreeBytes
    ? warning('memory', `${found} without swap`, 'Guests would be swapped out: end what is not needed, or add memory.')
    : refused('memory', found, 'The kernel would end processes: end what is not needed here, or add memory.');
}
