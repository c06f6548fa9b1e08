/**
 * From the config file of a guest of Proxmox VE that was recorded on its own host to one with which Proxmox VE starts it here: same hardware under the same names, with disks,
 * networks, monitors and variables of this host. Pure.
 *
 * Invariant: the record came over the network, and Proxmox VE starts QEMU as root. So what is not in the lists below is left out: devices, files, scripts and arguments that the
 * record names never reach this host. Schema: Proxmox VE's qemu-server (`PVE/QemuServer.pm`, `PVE/QemuServer/Drive.pm`, `PVE/QemuServer/Network.pm`), qm.conf(5).
 */
import { Fault } from '../../journal/fault.ts';
import { monitorArguments } from '../own-monitor-plan.ts';
import { formatPveConfig, joinPveArgs, parsePveConfig, parsePveOptions, pveSections, type PveLine } from './pve-config.ts';

type Network = 'none' | 'user' | 'isolated' | `bridge:${string}`;

export interface PveBootDisk {
  /** The drive's key: `scsi0`. */
  readonly name: string;
  /** As Proxmox VE names it: `STORAGE:VMID/FILE`. */
  readonly volume: string;
  /** What it reads may go away for a while: then the guest waits, and is not told. */
  readonly isStoppedOnError: boolean;
}

export interface PveAdaptOptions {
  readonly disks: readonly PveBootDisk[];
  readonly network: Network;
  /** By MAC, in lower case. */
  readonly networks?: Readonly<Record<string, Network>> | undefined;
  readonly monitors: readonly string[];
  /** What the guest says on its first serial port is appended here as well. */
  readonly consoleLog: string;
  /** A copy of the firmware's variables for this guest to write. */
  readonly vars?: { readonly volume: string } | undefined;
  readonly accel: 'kvm' | 'tcg';
  /** A new identity tells the guest that it may have been set back in time. */
  readonly generationId: string;
}

export interface AdaptedConfig { readonly text: string; /** How the guest will differ, for people. */ readonly notes: string[] }

const kept = new Set([
  'acpi', 'agent', 'arch', 'balloon', 'bios', 'boot', 'bootdisk', 'cores', 'cpu', 'cpulimit', 'cpuunits', 'hotplug', 'keyboard', 'kvm', 'localtime', 'machine', 'memory', 'name', 'numa', 'ostype', 'protection', 'reboot',
  'scsihw', 'shares', 'smbios1', 'smp', 'sockets', 'startdate', 'startup', 'tablet', 'tags', 'tdf', 'vcpus', 'vga', 'watchdog',
]);
/** Of that host alone, or of something that it was in the middle of; nothing of the guest's. */
const quietlyLeft = new Set([
  'affinity', 'allow-ksm', 'autostart', 'freeze', 'keephugepages', 'lock', 'meta', 'migrate_downtime', 'migrate_speed', 'parent', 'running-nets-host-mtu', 'runningcpu', 'runningmachine', 'snapstate', 'snaptime',
  'spice_enhancements', 'template', 'vmstate', 'vmstatestorage',
]);
/** Of a disk; caches, I/O modes and limits are of the old host's storage. */
const keptOfDisk = new Set(['backup', 'detect_zeroes', 'discard', 'iothread', 'model', 'product', 'queues', 'ro', 'serial', 'size', 'ssd', 'vendor', 'wwn']);
const keptOfVariables = new Set(['efitype', 'ms-cert', 'pre-enrolled-keys', 'size']);
const cloudInitKeys = /^(ci(custom|password|type|upgrade|user)|ipconfig\d+|nameserver|searchdomain|sshkeys)$/;

/** The processors are held (`freeze`) until {@link thawedConfig}. Fault FAILOVER_BOOT: a disk is not in it. */
export function adaptPveConfig(recorded: string, options: PveAdaptOptions): AdaptedConfig {
  const notes: string[] = [];
  const waiting = new Map(options.disks.map((disk) => [disk.name, disk]));
  const lines: PveLine[] = [];
  const left: string[] = [];
  let firstSerial: string | undefined;
  let hasCloudInit = false;
  for (const line of parsePveConfig(recorded).lines) {
    if (!('key' in line)) {
      if (line.text.startsWith('#')) lines.push(line);
      continue;
    }
    const { key, value } = line;
    const put = (adapted: string): void => { lines.push({ key, value: adapted }); };
    const drop = (why: string): void => { notes.push(`${key} (${short(value)}) is left out: ${why}.`); };
    if (kept.has(key)) put(value);
    else if (/^(ide|sata|scsi|virtio)\d+$/.test(key)) adaptDrive(key, value, waiting, put, drop);
    else if (/^net\d+$/.test(key)) adaptNetwork(key, value, options, put, notes);
    else if (/^serial\d$/.test(key)) {
      if (value !== 'socket') drop('it is a serial port of its host');
      else { put(value); if (firstSerial === undefined || key < firstSerial) firstSerial = key; }
    } else if (key === 'efidisk0') adaptVariables(value, options.vars, put, drop);
    else if (/^numa\d$/.test(key)) put(withOptions(`,${value}`, (name) => !['hostnodes', 'policy'].includes(name)).slice(1));
    else if (key === 'rng0') put(`source=/dev/urandom${withOptions(`,${value}`, (name) => ['max_bytes', 'period'].includes(name))}`);
    else if (key === 'vmgenid') put(options.generationId);
    else if (key === 'tpmstate0') drop('what the TPM holds is not replicated; what was sealed by it asks for its recovery key');
    else if (/^hostpci\d+$/.test(key) || /^(usb|parallel)\d+$/.test(key)) drop('it is a device of its host');
    else if (key === 'hugepages') drop('they would have to be set aside on this host');
    else if (key === 'onboot') drop('this target starts the guest until the failover is committed; set it then');
    else if (key === 'args') drop('arguments of its own do not come along');
    else if (cloudInitKeys.test(key)) hasCloudInit = true;
    else if (!quietlyLeft.has(key) && !/^unused\d+$/.test(key)) left.push(key);
  }
  // It would run without them, and be taken for failed over.
  if (waiting.size > 0) throw new Fault('FAILOVER_BOOT', `the recorded config of the guest has no drive ${[...waiting.keys()].join(' and none ')}`, { disks: [...waiting.keys()] });
  if (options.accel === 'tcg') emulate(lines, notes);
  if (hasCloudInit) notes.push('What cloud-init gave the guest stays in the guest; its settings in the config are left out.');
  if (left.length > 0) notes.push(`${left.join(', ')}: left out of the config.`);
  const sections = pveSections(recorded);
  if (sections.length > 0) notes.push(`Its snapshots and pending changes (${sections.map(short).join(', ')}) are on its own host.`);
  lines.push({ key: 'args', value: ownArgs(options.monitors, firstSerial, options.consoleLog) });
  return { text: formatPveConfig({ lines: [...lines, { key: 'freeze', value: '1' }] }), notes };
}

/** Of a guest that comes home: as its owner has it, with our monitors and log, and held until {@link thawedConfig}. */
export function lendPveConfig(own: string, { monitors, consoleLog }: Pick<PveAdaptOptions, 'monitors' | 'consoleLog'>): string {
  const { lines } = parsePveConfig(own);
  const serial = lines.flatMap((line) => ('key' in line && /^serial\d$/.test(line.key) && line.value === 'socket' ? [line.key] : [])).sort()[0];
  const args = lines.flatMap((line) => ('key' in line && line.key === 'args' ? [line.value] : []));
  return formatPveConfig({
    lines: [
      ...lines.filter((line) => !('key' in line) || !['args', 'freeze', 'lock'].includes(line.key)),
      { key: 'args', value: [...args, ownArgs(monitors, serial, consoleLog)].join(' ') }, { key: 'freeze', value: '1' },
    ],
  });
}

/** It runs: its next start is not to wait for anybody. What Proxmox VE and its users wrote into it since stays. */
export function thawedConfig(text: string): string {
  return text.split('\n').filter((line) => !/^freeze:/.test(line)).join('\n');
}

function adaptDrive(key: string, value: string, waiting: Map<string, PveBootDisk>, put: (value: string) => void, drop: (why: string) => void): void {
  const { first, options } = parsePveOptions(value);
  if (/[:/](vm-\d+-)?cloudinit(\.\w+)?$/.test(first)) return drop('it is cloud-init’s, and the guest has had it');
  if (options.get('media') === 'cdrom') {
    if (first !== 'none') drop('the drive stays, empty');
    return put('none,media=cdrom');
  }
  const disk = waiting.get(key);
  if (disk === undefined) return drop('there is no replica of it');
  waiting.delete(key);
  put(`${disk.volume}${withOptions(value, (name) => keptOfDisk.has(name))}${disk.isStoppedOnError ? ',rerror=stop,werror=stop' : ''}`);
}

function adaptVariables(value: string, vars: PveAdaptOptions['vars'], put: (value: string) => void, drop: (why: string) => void): void {
  if (vars === undefined) return drop('the firmware’s variables (boot entries, keys) were not recorded; it starts with none');
  put(`${vars.volume}${withOptions(value, (name) => keptOfVariables.has(name))}`);
}

function adaptNetwork(key: string, value: string, { network, networks }: PveAdaptOptions, put: (value: string) => void, notes: string[]): void {
  const [, card, mac] = /^([a-z0-9-]+)=([0-9a-f]{2}(?::[0-9a-f]{2}){5})(?:,|$)/i.exec(value) ?? [];
  if (card === undefined || mac === undefined) return void notes.push(`${key} (${short(value)}) is left out: it has no MAC address.`);
  const leads = networks?.[mac.toLowerCase()] ?? network;
  if (!leads.startsWith('bridge:')) {
    // Without a bridge Proxmox VE gives it QEMU's own address translation.
    const isDown = leads === 'none' || leads === 'isolated';
    return put(`${card}=${mac}${withOptions(value, (name) => name === 'queues')}${isDown ? ',link_down=1' : ''}`);
  }
  const { options } = parsePveOptions(value);
  if (options.get('firewall') === '1') notes.push(`${key}: the rules of the guest’s firewall do not come along; it is at the bridge without them.`);
  const vlans = ['tag', 'trunks'].flatMap((name) => (options.has(name) ? [`${name} ${options.get(name)!}`] : []));
  if (vlans.length > 0) notes.push(`${key}: its VLANs (${short(vlans.join(', '))}) are kept as they were there.`);
  put(`${card}=${mac},bridge=${leads.slice('bridge:'.length)}${withOptions(value, (name) => ['mtu', 'queues', 'rate', 'tag', 'trunks'].includes(name))}`);
}

function emulate(lines: PveLine[], notes: string[]): void {
  const without = lines.filter((line) => !('key' in line) || line.key !== 'kvm');
  lines.splice(0, lines.length, ...without, { key: 'kvm', value: '0' });
  const at = lines.findIndex((line) => 'key' in line && line.key === 'cpu' && /^(cputype=)?host(,|$)/.test(line.value));
  if (at < 0) return;
  lines[at] = { key: 'cpu', value: 'max' };
  notes.push('The CPU “host” is not to be had without KVM; it is what can be emulated.');
}

/** `serial`: the key of the first port. Proxmox VE makes it a socket for `qm terminal`, under that name; QEMU writes down beside it what goes through. */
function ownArgs(monitors: readonly string[], serial: string | undefined, log: string): string {
  return joinPveArgs([...monitors.flatMap(monitorArguments), ...(serial === undefined ? [] : ['-set', `chardev.${serial}.logfile=${log}`, '-set', `chardev.${serial}.logappend=on`])]);
}

/** The options behind a value's first word, those that `isKept`, each after a comma. */
function withOptions(value: string, isKept: (name: string) => boolean): string {
  return [...parsePveOptions(value).options].flatMap(([name, one]) => (isKept(name) ? [`,${name}=${one}`] : [])).join('');
}

function short(text: string): string {
  return text.length <= 60 ? text : `${text.slice(0, 59)}…`;
}
