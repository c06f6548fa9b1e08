/**
 * From the XML of a domain that was recorded on its own host to one that libvirt starts here: same machine, processors, memory and devices at the same addresses, with disks, networks,
 * serial port and monitors of this host. Pure.
 *
 * Invariant: the record came over the network, and libvirt runs as root. So what is not in the lists below is left out: host devices, files, programs, sockets and arguments
 * that the record names never reach this host; a kernel and a firmware do, by path and to be read, as in every failover.
 */
import type { Element } from '@xmldom/xmldom';
import { Fault } from '../../journal/fault.ts';
import { agentPortName } from '../agent-channel.ts';
import { isStoppedOnError, type BootDisk } from '../boot-disks.ts';
import { monitorArguments } from '../own-monitor-plan.ts';
import { addQemuArguments, attribute, child, children, ensureChild, parseDomain, serialize, textOf, type DomainXml } from './domain-xml.ts';

type Network = 'none' | 'user' | 'isolated' | `bridge:${string}`;

export interface AdaptOptions {
  /** `name`: the device's, which libvirt calls its alias. */
  readonly disks: readonly BootDisk[];
  readonly network: Network;
  /** By MAC, in lower case. */
  readonly networks?: Readonly<Record<string, Network>> | undefined;
  readonly monitors: readonly string[];
  readonly consoleLog: string;
  /** A copy of the firmware's variables for this guest to write. */
  readonly varsPath?: string | undefined;
  readonly accel: 'kvm' | 'tcg';
  /** It runs beside the domain that it is of: under this UUID, and a name that ends so. */
  readonly trial?: { readonly suffix: string; readonly uuid: string } | undefined;
  /** Security models of this host's libvirt, and as whom QEMU is to run where one of them is `dac`. */
  readonly security: { readonly models: readonly string[]; readonly uid: number; readonly gid: number };
}

export interface AdaptedDomain { readonly xml: string; readonly name: string; readonly uuid: string; /** How it will differ, for people. */ readonly notes: string[] }

const keptAtTop = new Set(['name', 'uuid', 'genid', 'title', 'memory', 'maxMemory', 'currentMemory', 'vcpu', 'vcpus', 'iothreads', 'iothreadids', 'cpu', 'os', 'sysinfo', 'features', 'clock', 'on_poweroff', 'on_reboot', 'on_crash', 'pm', 'devices']);
/** Of this host alone, and nothing of the guest's. */
const quietlyLeft = new Set(['seclabel', 'metadata', 'description', 'resource', 'emulator', 'console', 'qemu:commandline', 'alias', 'audio']);
const keptInOs = new Set(['type', 'loader', 'boot', 'bootmenu', 'bios', 'smbios', 'kernel', 'initrd', 'cmdline']);
const keptDevices = new Set(['disk', 'controller', 'interface', 'serial', 'channel', 'input', 'video', 'memballoon', 'rng', 'watchdog', 'panic', 'hub']);
const keptInDisk = new Set(['driver', 'target', 'address', 'boot', 'serial', 'wwn', 'vendor', 'product', 'blockio', 'geometry']);
const keptInInterface = new Set(['mac', 'model', 'driver', 'boot', 'address', 'mtu', 'acpi']);
/** Of a disk's driver; caches and I/O modes are of the old host's storage. */
const keptOfDriver = new Set(['name', 'discard', 'detect_zeroes', 'iothread', 'queues', 'queue_size', 'iommu', 'ats', 'packed']);

/** A name is part of a folder's in which QEMU's socket lies (libvirt's virDomainDefGetShortName takes 20 characters of it). */
const domainNameMax = 200;

/** Faults: LIBVIRT_REFUSED (what is no domain's XML), FAILOVER_BOOT (a disk is not in it). */
export function adaptDomain(recorded: string, options: AdaptOptions): AdaptedDomain {
  const xml = parseDomain(recorded);
  const notes: string[] = [];
  const { domain } = xml;
  domain.setAttribute('type', options.accel === 'kvm' ? 'kvm' : 'qemu');
  domain.removeAttribute('id');
  keepOnly(domain, keptAtTop, notes);
  adaptCpu(domain, options.accel, notes);
  adaptOs(xml, options.varsPath);
  // Its other kind hands files of the host to the guest.
  children(domain, 'sysinfo').filter((element) => attribute(element, 'type') !== 'smbios').forEach(remove);
  // Empty, libvirt makes a new one: it tells the guest that it may have been set back in time.
  children(domain, 'genid').forEach(empty);
  if (options.trial !== undefined) renameForTrial(xml, options.trial);
  const devices = ensureChild(xml, domain, 'devices');
  keepOnly(devices, keptDevices, notes);
  adaptDisks(xml, devices, options.disks, notes);
  for (const nic of children(devices, 'interface')) adaptInterface(xml, nic, options);
  children(devices, 'serial').forEach((serial, at) => adaptSerial(xml, serial, at === 0 ? options.consoleLog : null));
  for (const channel of children(devices, 'channel')) adaptChannel(channel, notes);
  for (const input of children(devices, 'input')) if (!['tablet', 'mouse', 'keyboard'].includes(attribute(input, 'type') ?? '')) remove(input);
  for (const rng of children(devices, 'rng')) adaptRandom(xml, rng);
  for (const video of children(devices, 'video')) if (attribute(child(video, 'model'), 'type') === 'qxl') empty(ensureChild(xml, video, 'model')).setAttribute('type', 'vga');
  for (const device of Array.from(devices.childNodes)) if (device.nodeType === device.ELEMENT_NODE) children(device as Element, 'alias').forEach(remove);
  addSecurity(xml, options.security);
  addQemuArguments(xml, options.monitors.flatMap(monitorArguments));
  return { xml: serialize(xml), name: textOf(child(domain, 'name')) ?? '', uuid: (textOf(child(domain, 'uuid')) ?? '').toLowerCase(), notes };
}

/** `notes`: where what is left out is said; absent, of what is rewritten whole. */
function keepOnly(parent: Element, kept: ReadonlySet<string>, notes?: string[]): void {
  for (const node of Array.from(parent.childNodes)) {
    if (node.nodeType !== node.ELEMENT_NODE) continue;
    const { tagName } = node as Element;
    if (kept.has(tagName)) continue;
    if (!quietlyLeft.has(tagName)) notes?.push(`<${tagName}> of the domain’s definition is left out.`);
    remove(node as Element);
  }
}

function adaptCpu(domain: Element, accel: 'kvm' | 'tcg', notes: string[]): void {
  const cpu = child(domain, 'cpu');
  if (cpu === undefined || accel === 'kvm' || attribute(cpu, 'mode') === 'custom' || attribute(cpu, 'mode') === undefined) return;
  notes.push(`The CPU “${attribute(cpu, 'mode')}” is not to be had without KVM; it is what can be emulated.`);
  for (const name of ['check', 'migratable', 'match']) cpu.removeAttribute(name);
  cpu.setAttribute('mode', 'maximum');
  for (const name of ['model', 'vendor', 'feature']) children(cpu, name).forEach(remove);
}

function adaptOs(xml: DomainXml, varsPath: string | undefined): void {
  const os = ensureChild(xml, xml.domain, 'os');
  keepOnly(os, keptInOs);
  const loader = child(os, 'loader');
  if (loader === undefined) return;
  // It is named: libvirt is not to choose another.
  os.removeAttribute('firmware');
  if (varsPath === undefined) return;
  const nvram = xml.document.createElement('nvram');
  nvram.textContent = varsPath;
  os.appendChild(nvram);
}

function adaptDisks(xml: DomainXml, devices: Element, disks: readonly BootDisk[], notes: string[]): void {
  const waiting = new Map(disks.map((disk) => [disk.name, disk]));
  for (const element of children(devices, 'disk')) {
    const alias = attribute(child(element, 'alias'), 'name');
    const target = attribute(child(element, 'target'), 'dev') ?? '?';
    if ((attribute(element, 'device') ?? 'disk') !== 'disk') {
      // A drive for removable media, empty.
      keepOnly(element, new Set(['target', 'address', 'boot', 'readonly']));
      element.setAttribute('type', 'file');
      continue;
    }
    const disk = alias === undefined ? undefined : waiting.get(alias);
    if (disk === undefined) {
      notes.push(`There is no replica of the disk ${target}: it is left out.`);
      remove(element);
      continue;
    }
    waiting.delete(alias!);
    adaptDisk(xml, element, disk);
  }
  // It would run without them, and be taken for failed over.
  if (waiting.size > 0) throw new Fault('FAILOVER_BOOT', `the recorded definition of the domain has no disk ${[...waiting.keys()].join(' and none ')}`, { disks: [...waiting.keys()] });
}

function adaptDisk(xml: DomainXml, element: Element, disk: BootDisk): void {
  keepOnly(element, keptInDisk);
  for (const { name } of Array.from(element.attributes)) if (name !== 'device') element.removeAttribute(name);
  element.setAttribute('type', 'file');
  const driver = ensureChild(xml, element, 'driver');
  for (const { name } of Array.from(driver.attributes)) if (!keptOfDriver.has(name)) driver.removeAttribute(name);
  driver.setAttribute('name', 'qemu');
  driver.setAttribute('type', disk.format);
  // What it reads may go away for a while: then the guest waits, and is not told.
  if (isStoppedOnError(disk)) for (const policy of ['error_policy', 'rerror_policy']) driver.setAttribute(policy, 'stop');
  const source = ensureChild(xml, element, 'source');
  source.setAttribute('file', disk.path);
  if (disk.fileBytesMax === undefined) return;
  // As much of the file as QEMU may write to, whatever the guest does.
  const slice = ensureChild(xml, ensureChild(xml, source, 'slices'), 'slice');
  slice.setAttribute('type', 'storage');
  slice.setAttribute('offset', '0');
  slice.setAttribute('size', String(disk.fileBytesMax));
}

/** libvirt refuses a system UUID that is not the domain's. */
function renameForTrial(xml: DomainXml, { suffix, uuid }: NonNullable<AdaptOptions['trial']>): void {
  const { domain } = xml;
  const name = textOf(child(domain, 'name')) ?? 'guest';
  ensureChild(xml, domain, 'name').textContent = `${name.slice(0, domainNameMax - suffix.length - 1)}-${suffix}`;
  ensureChild(xml, domain, 'uuid').textContent = uuid;
  for (const sysinfo of children(domain, 'sysinfo')) {
    for (const entry of children(sysinfo, 'system').flatMap((system) => children(system, 'entry'))) if (attribute(entry, 'name') === 'uuid') entry.textContent = uuid;
  }
}

function adaptInterface(xml: DomainXml, element: Element, { network, networks }: AdaptOptions): void {
  const mac = attribute(child(element, 'mac'), 'address')?.toLowerCase();
  const leads = (mac === undefined ? undefined : networks?.[mac]) ?? network;
  keepOnly(element, keptInInterface);
  for (const { name } of Array.from(element.attributes)) element.removeAttribute(name);
  const bridge = leads.startsWith('bridge:') ? leads.slice('bridge:'.length) : null;
  element.setAttribute('type', bridge === null ? 'user' : 'bridge');
  if (bridge !== null) ensureChild(xml, element, 'source').setAttribute('bridge', bridge);
  if (leads === 'none' || leads === 'isolated') ensureChild(xml, element, 'link').setAttribute('state', 'down');
  // Of a tap's worker in the kernel.
  if (bridge === null) children(element, 'driver').forEach(remove);
}

function adaptSerial(xml: DomainXml, element: Element, logPath: string | null): void {
  keepOnly(element, new Set(['target', 'address']));
  element.setAttribute('type', logPath === null ? 'null' : 'file');
  if (logPath === null) return;
  const source = ensureChild(xml, element, 'source');
  source.setAttribute('path', logPath);
  source.setAttribute('append', 'on');
}

function adaptChannel(element: Element, notes: string[]): void {
  const name = attribute(child(element, 'target'), 'name');
  if (name !== agentPortName) {
    notes.push(`The channel ${name ?? '?'} is left out.`);
    return remove(element);
  }
  // Where it listens is libvirt's to say.
  keepOnly(element, new Set(['target', 'address']));
  element.setAttribute('type', 'unix');
}

function adaptRandom(xml: DomainXml, element: Element): void {
  keepOnly(element, new Set(['rate', 'address', 'driver']));
  const backend = ensureChild(xml, element, 'backend');
  backend.setAttribute('model', 'random');
  backend.textContent = '/dev/urandom';
}

/** Its images are this daemon's files and stay so: QEMU runs as the daemon's user, and libvirt changes no owner. */
function addSecurity({ document, domain }: DomainXml, { models, uid, gid }: AdaptOptions['security']): void {
  for (const model of models.filter((one) => one !== 'none')) {
    const label = document.createElement('seclabel');
    label.setAttribute('model', model);
    label.setAttribute('type', model === 'dac' ? 'static' : 'none');
    if (model === 'dac') {
      label.setAttribute('relabel', 'no');
      const text = document.createElement('label');
      text.textContent = `+${uid}:+${gid}`;
      label.appendChild(text);
    }
    domain.appendChild(label);
  }
}

function empty(element: Element): Element {
  for (const { name } of Array.from(element.attributes)) element.removeAttribute(name);
  for (const node of Array.from(element.childNodes)) element.removeChild(node);
  return element;
}

function remove(element: Element): void {
  element.parentNode?.removeChild(element);
}
