/**
 * From a record of hardware to the command line that starts the guest on this host: same machine, CPU, memory, firmware,
 * and the same devices at the same addresses, but with disks, network and monitor of this host. It starts nothing
 * (guest-process.ts does). Invariant: the record came over the network, so nothing of it reaches the command line but
 * drivers and properties of device-kinds.ts, words of the schema of hardware.ts, and values with their commas escaped.
 */
import { existsSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { agentPortName } from './agent-channel.ts';
import { diskNode, diskNodes, isStoppedOnError, type BootDisk } from './boot-disks.ts';
import { deviceRole, isBridge, isRecordedProperty, machineOptions, tellsOfErrors } from './device-kinds.ts';
import type { GuestHardware, HardwareDevice } from './hardware.ts';

export type { BootDisk, NbdBacking } from './boot-disks.ts';
export { findGuest, isGuestRunning, startGuest, stopGuest } from './guest-process.ts';

type Network = 'none' | 'user' | 'isolated' | `bridge:${string}`;

export interface BootOptions {
  readonly disks: readonly BootDisk[];
  readonly qmpPath: string;
  readonly pidFile: string;
  /** What the guest says on its first serial port is appended here; a guest without one says nothing. */
  readonly consoleLog: string;
  /** `none`: the NICs are there, with no cable. `user`: QEMU's own address translation. `isolated`: the same, with no way out of the guest. `bridge:NAME`: a bridge of this host, by qemu-bridge-helper. */
  readonly network: Network;
  /** By MAC address, in lower case: NICs that lead elsewhere. */
  readonly networks?: Readonly<Record<string, Network>> | undefined;
  readonly accel: 'kvm' | 'tcg';
  /** `memfd`: shareable memory, as vhost-user back ends need it. */
  readonly memoryBackend?: 'ram' | 'memfd';
  readonly extra?: readonly string[];
  /** Unix socket on which the guest's agent will be reached, where it has a port for one. */
  readonly agentPath?: string;
  /** A copy of the firmware's variables for this guest to write, in the recorded format. */
  readonly varsPath?: string;
  /** In place of the recorded one. */
  readonly kernel?: { readonly kernel: string; readonly initrd?: string | undefined; readonly append?: string | undefined };
  readonly program?: string;
  /** For tests; else the file system is asked which recorded files are here. */
  readonly isThere?: (path: string) => boolean;
}

export interface BootCommand {
  /** Program first. */
  readonly argv: string[];
  /** How the guest will differ from the recorded one, for people. */
  readonly notes: string[];
}

export function bootCommand(hardware: GuestHardware, options: BootOptions): BootCommand {
  const command = new CommandBuilder(hardware, options);
  return { argv: command.build(), notes: [...hardware.notes, ...command.notes] };
}

/** `AFTERIMAGE_ACCEL`, else what the caller prefers; KVM never by default, for it can be there and still hang a guest. */
export function chosenAccel(environment: Readonly<Record<string, string | undefined>>, preferred: 'kvm' | 'tcg' = 'tcg'): 'kvm' | 'tcg' {
  const asked = environment['AFTERIMAGE_ACCEL'];
  return asked === 'kvm' || asked === 'tcg' ? asked : preferred;
}

type Value = string | number | boolean;

class CommandBuilder {
  readonly notes: string[] = [];
  readonly #hardware: GuestHardware;
  readonly #o: BootOptions;
  readonly #isThere: (path: string) => boolean;
  /** Ids of the devices on the command line, by their path in the record. */
  readonly #ids = new Map<string, string>();
  readonly #left = new Set<string>();
  #nicCount = 0;

  constructor(hardware: GuestHardware, options: BootOptions) {
    this.#hardware = hardware;
    this.#o = options;
    this.#isThere = options.isThere ?? existsSync;
    const owners = new Set(hardware.devices.map(({ bus }) => bus?.owner));
    hardware.devices.forEach((device, i) => {
      // Owners of buses without an id get one: the names of their buses would else depend on what is left out.
      const id = device.id ?? (owners.has(device.path) ? `recorded${i}` : undefined);
      if (id !== undefined) this.#ids.set(device.path, id);
    });
  }

  build(): string[] {
    const { uuid, name, ioThreads, rtcBase, boot } = this.#hardware;
    const o = this.#o;
    // Firmware first: it is also part of what -machine says.
    const firmware = this.#firmware();
    return [
      o.program ?? `qemu-system-${this.#hardware.arch}`,
      '-nodefaults', '-no-user-config', '-display', 'none', '-sandbox', 'on',
      ...(name === undefined ? [] : ['-name', keyed('guest', name)]),
      ...(uuid === undefined ? [] : ['-uuid', uuid]),
      '-accel', o.accel,
      '-machine', this.#machine(firmware.machine), ...firmware.argv,
      ...this.#cpu(), ...this.#memory(),
      ...(rtcBase === undefined ? [] : ['-rtc', `base=${rtcBase}`]),
      ...(boot === undefined || Object.keys(boot).length === 0 ? [] : ['-boot', list(boot)]),
      '-qmp', `unix:${escaped(o.qmpPath)},server=on,wait=off`, '-pidfile', o.pidFile,
      ...this.#serialPorts(),
      ...ioThreads.flatMap(({ id, properties }) => ['-object', `iothread,id=${id}${this.#listed(properties, () => true)}`]),
      ...this.#devices(),
      ...this.#kernel(),
      ...(o.extra ?? []),
    ];
  }

  #machine(firmware: string): string {
    const known: ReadonlySet<string> = new Set(machineOptions);
    const memory = this.#o.memoryBackend === 'memfd' ? ',memory-backend=ram0' : '';
    return `${this.#hardware.machine.type}${this.#listed(this.#hardware.machine.options, (name) => known.has(name))}${firmware}${memory}`;
  }

  #cpu(): string[] {
    const { cpu, smp } = this.#hardware;
    const argv: string[] = [];
    if (cpu?.model === 'host' && this.#o.accel !== 'kvm') {
      argv.push('-cpu', 'max');
      this.notes.push('The CPU model “host” needs KVM; “max” is started.');
    } else if (cpu !== undefined) argv.push('-cpu', `${cpu.model}${this.#listed(cpu.features, () => true)}`);
    if (smp !== undefined) {
      // Dies and clusters are refused by machines that have none, even a single one.
      const { cpus, maxCpus, sockets, dies, clusters, cores, threads } = smp;
      argv.push('-smp', list({ cpus, maxcpus: maxCpus, sockets, ...(dies > 1 ? { dies } : {}), ...(clusters > 1 ? { clusters } : {}), cores, threads }));
    }
    return argv;
  }

  #serialPorts(): string[] {
    const { serialPorts } = this.#hardware;
    if (serialPorts === 0) return [];
    return ['-chardev', `file,id=console,path=${escaped(this.#o.consoleLog)},append=on`, '-serial', 'chardev:console', ...Array.from({ length: serialPorts - 1 }, () => ['-serial', 'null']).flat()];
  }

  #memory(): string[] {
    const { sizeBytes, pluggedBytes = 0, slots, maxBytes } = this.#hardware.memory;
    const size = sizeBytes + pluggedBytes;
    // QEMU refuses a maximum that leaves nothing to plug.
    const hasRoom = slots !== undefined && maxBytes !== undefined && maxBytes > size;
    return [
      ...(this.#o.memoryBackend === 'memfd' ? ['-object', `memory-backend-memfd,id=ram0,size=${size},share=on`] : []),
      '-m', hasRoom ? `size=${size}b,slots=${slots},maxmem=${maxBytes}b` : `size=${size}b`,
    ];
  }

  #firmware(): { argv: string[]; machine: string } {
    const { firmware } = this.#hardware;
    if (firmware?.codePath === undefined) return { argv: this.#bios(firmware?.biosPath), machine: '' };
    const argv = flash('flash0', firmware.codePath, firmware.codeFormat, true);
    let machine = ',pflash0=flash0';
    if (!this.#isThere(firmware.codePath)) this.notes.push(`The firmware ${firmware.codePath} is not on this host: install the package that has it.`);
    if (this.#o.varsPath !== undefined) {
      argv.push(...flash('flash1', this.#o.varsPath, firmware.varsFormat, false));
      machine += ',pflash1=flash1';
    } else if (firmware.varsPath !== undefined) this.notes.push('The firmware starts without its stored variables (boot entries, keys).');
    if (firmware.isSecure === true) argv.push('-global', 'driver=cfi.pflash01,property=secure,value=on');
    return { argv, machine };
  }

  /** A bare name is one of QEMU's own files, found where QEMU keeps them; any other must be here. */
  #bios(path: string | undefined): string[] {
    if (path === undefined) return [];
    if (!path.includes('/') || (isAbsolute(path) && this.#isThere(path))) return ['-bios', path];
    this.notes.push(`The firmware ${path} is not on this host; QEMU’s own is started.`);
    return [];
  }

  #kernel(): string[] {
    const recorded = this.#hardware.kernel;
    const kernel = this.#o.kernel ?? recorded;
    if (kernel === undefined) return [];
    const missing = [kernel.kernel, ...(kernel.initrd === undefined ? [] : [kernel.initrd])].filter((path) => !isAbsolute(path) || !this.#isThere(path));
    if (missing.length > 0) {
      this.notes.push(`The guest was started with a kernel of its host’s; ${missing.join(' and ')} cannot be found here, so it boots from its disks.`);
      return [];
    }
    return ['-kernel', kernel.kernel, ...(kernel.initrd === undefined ? [] : ['-initrd', kernel.initrd]), ...(kernel.append === undefined ? [] : ['-append', kernel.append])];
  }

  #devices(): string[] {
    const argv: string[] = [];
    const waiting = new Map(this.#o.disks.map((disk) => [disk.name ?? this.#hardware.disks[disk.disk]?.name ?? `#${disk.disk}`, disk]));
    for (const device of this.#hardware.devices) {
      const disk = device.disk === undefined ? undefined : waiting.get(device.disk);
      if (device.disk !== undefined) waiting.delete(device.disk);
      argv.push(...this.#device(device, disk));
    }
    for (const [name, disk] of waiting) {
      this.notes.push(`No device is recorded for the disk ${name}; it is attached as virtio-blk.`);
      argv.push(...diskNodes(disk), '-device', `virtio-blk-pci,drive=${diskNode(disk)}${isStoppedOnError(disk) ? ',werror=stop,rerror=stop' : ''}`);
    }
    return argv;
  }

  #device(device: HardwareDevice, disk: BootDisk | undefined): string[] {
    const role = deviceRole(device.driver);
    if (role === undefined) return this.#leave(device, 'it is of a kind that is not started');
    if (role === 'agent' && this.#o.agentPath === undefined) return this.#leave(device, 'its channel leads nowhere');
    if (device.bus?.owner !== undefined && this.#left.has(device.bus.owner)) return this.#leave(device, 'what it is attached to is missing');
    if (device.disk !== undefined && disk === undefined) return this.#leave(device, `there is no replica of its disk ${device.disk}`);
    const id = this.#ids.get(device.path);
    const head = [
      device.driver,
      ...(id === undefined ? [] : [`id=${id}`]),
      ...(device.bus === undefined ? [] : [`bus=${this.#bus(device.bus)}`]),
      ...(device.address === undefined ? [] : [`addr=${device.address}`]),
      ...(device.iothread === undefined ? [] : [`iothread=${device.iothread}`]),
      ...(disk === undefined ? [] : [`drive=${diskNode(disk)}`]),
      // A new identity tells the guest that it may have been set back in time.
      ...(device.driver === 'vmgenid' ? ['guid=auto'] : []),
    ];
    const before = disk === undefined ? [] : diskNodes(disk);
    const isStopped = disk !== undefined && isStoppedOnError(disk) && tellsOfErrors(device.driver);
    if (isStopped) head.push('werror=stop', 'rerror=stop');
    const network = role === 'nic' ? this.#network(device) : 'none';
    if (network !== 'none') {
      before.push('-netdev', netdev(network, `net${this.#nicCount}`));
      head.push(`netdev=net${this.#nicCount}`);
      this.#nicCount += 1;
    }
    if (role === 'agent') {
      before.push('-chardev', `socket,id=agent,path=${escaped(this.#o.agentPath!)},server=on,wait=off`);
      head.push('chardev=agent', `name=${agentPortName}`);
    }
    const isListed = (name: string): boolean => (isRecordedProperty(name) && !(isStopped && (name === 'werror' || name === 'rerror'))) || name === 'romfile';
    return [...before, '-device', `${head.join(',')}${this.#listed(device.properties, isListed)}`];
  }

  #network({ properties: { mac } }: HardwareDevice): Network {
    return (typeof mac === 'string' ? this.#o.networks?.[mac.toLowerCase()] : undefined) ?? this.#o.network;
  }

  #leave(device: HardwareDevice, why: string): string[] {
    this.#left.add(device.path);
    this.notes.push(`The device ${device.id ?? device.path} (${device.driver}) is left out: ${why}.`);
    return [];
  }

  #bus({ name, owner, index }: NonNullable<HardwareDevice['bus']>): string {
    const device = this.#hardware.devices.find(({ path }) => path === owner);
    const id = device === undefined ? undefined : this.#ids.get(device.path);
    if (device === undefined || id === undefined) return name;
    return isBridge(device.driver) ? id : `${id}.${index}`;
  }

  /** `,name=value` for each that `isKnown`; the only file that a property may name is none. */
  #listed(values: Readonly<Record<string, Value>>, isKnown: (name: string) => boolean): string {
    return Object.entries(values).filter(([name, value]) => isKnown(name) && (name !== 'romfile' || value === '')).map(([name, value]) => `,${keyed(name, value)}`).join('');
  }
}

function netdev(network: Exclude<Network, 'none'>, id: string): string {
  switch (network) {
    case 'user': return `user,id=${id}`;
    case 'isolated': return `user,id=${id},restrict=on`;
    default: return `bridge,id=${id},br=${escaped(network.slice('bridge:'.length))}`;
  }
}

function flash(node: string, path: string, format: string | undefined, isReadOnly: boolean): string[] {
  return [
    '-blockdev', JSON.stringify({ driver: 'file', 'node-name': `${node}-file`, filename: path, 'read-only': isReadOnly }),
    '-blockdev', JSON.stringify({ driver: format === 'qcow2' ? 'qcow2' : 'raw', 'node-name': node, file: `${node}-file`, 'read-only': isReadOnly }),
  ];
}

function list(values: Readonly<Record<string, Value | undefined>>): string {
  return Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [keyed(name, value)])).join(',');
}

function keyed(name: string, value: Value): string {
  return `${name}=${typeof value === 'boolean' ? (value ? 'on' : 'off') : escaped(String(value))}`;
}

/** QEMU's option lists: a doubled comma is a comma. */
function escaped(value: string): string {
  return value.replaceAll(',', ',,');
}
