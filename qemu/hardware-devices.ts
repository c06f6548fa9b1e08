/**
 * Records a guest's devices by walking QOM: what the user gave (`/machine/peripheral`, `/machine/peripheral-anon`) and
 * what old-style options made (`/machine/unattached`, of which all else belongs to the board and comes with the machine).
 * Which devices and properties count is device-kinds.ts; this file only reads. It asks for all of a device at once: there are hundreds of answers to
 * wait for, and through libvirt one after the other took most of a minute on a busy host, at each connection.
 */
import { agentPortName } from './agent-channel.ts';
import type { GuestDisk } from './disk-inventory-plan.ts';
import { deviceRole, isRecordedProperty, substituteFor, type DeviceRole } from './device-kinds.ts';
import { askOrNull } from './guest-disks.ts';
import type { GuestHardware, HardwareDevice } from './hardware.ts';
import type { QmpConnection } from './qmp.ts';

interface QomEntry { readonly name: string; readonly type: string }
interface PropertyInfo { readonly name: string; readonly 'default-value'?: unknown }
type Value = string | number | boolean;

export interface RecordedDevices {
  readonly devices: HardwareDevice[];
  readonly ioThreads: GuestHardware['ioThreads'];
  readonly serialPorts: number;
  readonly notes: string[];
}

const containers = ['/machine/peripheral', '/machine/peripheral-anon', '/machine/unattached'] as const;
/** What `-serial` makes: on a PC as many as asked for, on ARM the board's own. */
const serialDrivers: ReadonlySet<string> = new Set(['isa-serial', 'pl011']);
const devicePath = /^\/machine\/(?:peripheral|peripheral-anon|unattached)\/[^/]+/;

export async function recordDevices(qmp: QmpConnection, disks: readonly GuestDisk[]): Promise<RecordedDevices> {
  const recorder = new DeviceRecorder(qmp, disks);
  let serialPorts = 0;
  for (const container of containers) {
    const entries = (await askOrNull<QomEntry[]>(qmp, 'qom-list', { path: container })) ?? [];
    for (const { name, type } of entries) {
      const driver = /^child<(.+)>$/.exec(type)?.[1];
      if (driver === undefined) continue;
      if (serialDrivers.has(driver)) serialPorts += 1;
      else await recorder.record(`${container}/${name}`, driver);
    }
  }
  return { devices: inOrder(recorder.devices), ioThreads: await recordIoThreads(qmp), serialPorts, notes: recorder.notes };
}

class DeviceRecorder {
  readonly devices: HardwareDevice[] = [];
  readonly notes: string[] = [];
  readonly #qmp: QmpConnection;
  readonly #diskOf = new Map<string, string>();
  readonly #defaults = new Map<string, ReadonlyMap<string, unknown>>();

  constructor(qmp: QmpConnection, disks: readonly GuestDisk[]) {
    this.#qmp = qmp;
    for (const { qdev, name } of disks) if (qdev !== null) this.#diskOf.set(ownerPath(qdev), name);
  }

  async record(path: string, found: string): Promise<void> {
    const isBoard = path.startsWith('/machine/unattached/');
    const id = path.startsWith('/machine/peripheral/') ? path.slice('/machine/peripheral/'.length) : undefined;
    const substitute = substituteFor(found);
    if (substitute !== undefined) this.notes.push(`A ${substitute} is started in place of the display ${id ?? path} (${found}).`);
    const driver = substitute ?? found;
    const role = deviceRole(driver);
    // Controllers in there are the board's own, or come with a machine option (usb=on).
    if (role === undefined || (isBoard && role === 'controller')) {
      if (!isBoard && isMissed(driver)) this.notes.push(`The device ${id ?? path} (${driver}) is not started at the target.`);
      return;
    }
    if (role === 'agent' && await this.#get<string>(path, 'name') !== agentPortName) return void this.notes.push(`The port ${id ?? path} (${driver}) is not started at the target.`);
    const disk = this.#diskOf.get(path);
    if (role === 'disk' && disk === undefined && await this.#hasDrive(path)) {
      this.notes.push(`The device ${id ?? path} (${driver}) is not started at the target: its drive is not replicated.`);
      return;
    }
    const [bus, address, iothread, properties] = await Promise.all([this.#bus(path), this.#address(path), this.#ioThread(path), this.#properties(path, found, role)]);
    this.devices.push({
      path, driver,
      ...(id === undefined ? {} : { id }),
      ...(bus === null ? {} : { bus }),
      ...(address === null ? {} : { address }),
      ...(iothread === null ? {} : { iothread }),
      ...(disk === undefined ? {} : { disk }),
      properties,
    });
  }

  /** An nvme controller has none when its namespaces are devices of their own. */
  async #hasDrive(path: string): Promise<boolean> {
    return Boolean(await this.#get<string>(path, 'drive'));
  }

  #get<T>(path: string, property: string): Promise<T | null> {
    return askOrNull<T>(this.#qmp, 'qom-get', { path, property });
  }

  async #bus(path: string): Promise<NonNullable<HardwareDevice['bus']> | null> {
    const at = await this.#get<string>(path, 'parent_bus');
    if (at === null || at === '') return null;
    const name = at.slice(at.lastIndexOf('/') + 1);
    const owner = devicePath.exec(at)?.[0];
    if (owner === undefined) return { name, index: 0 };
    // Buses of one owner are numbered in a row, from wherever the machine's count of such buses stood.
    const stem = name.replace(/\d+$/, '');
    const siblings = ((await askOrNull<QomEntry[]>(this.#qmp, 'qom-list', { path: at.slice(0, at.lastIndexOf('/')) })) ?? [])
      .map((entry) => entry.name).filter((sibling) => sibling.startsWith(stem) && /^\d+$/.test(sibling.slice(stem.length)))
      .sort((a, b) => Number(a.slice(stem.length)) - Number(b.slice(stem.length)));
    return { name, owner, index: Math.max(0, siblings.indexOf(name)) };
  }

  async #address(path: string): Promise<string | null> {
    const address = await this.#get<unknown>(path, 'addr');
    return typeof address === 'number' && address >= 0 ? `${(address >> 3).toString(16)}.${address & 7}` : null;
  }

  async #ioThread(path: string): Promise<string | null> {
    const [link, mapping] = await Promise.all([this.#get<string>(path, 'iothread'), this.#get<unknown>(path, 'iothread-vq-mapping')]);
    if (Array.isArray(mapping)) {
      this.notes.push(`The device ${path} spreads its queues over several I/O threads; at the target it has none.`);
    }
    return typeof link === 'string' && link.startsWith('/objects/') ? link.slice('/objects/'.length) : null;
  }

  async #properties(path: string, driver: string, role: DeviceRole): Promise<Record<string, Value>> {
    const defaults = await this.#defaultsOf(driver);
    const properties: Record<string, Value> = {};
    const names = [...defaults.keys()].filter(isRecordedProperty);
    const values = await Promise.all(names.map((name) => this.#get<unknown>(path, name)));
    for (const [at, name] of names.entries()) {
      const [now, byDefault] = [values[at], defaults.get(name)];
      if (now === byDefault || now === '' || (name === 'bootindex' && now === -1)) continue;
      if (typeof now === 'number' && !Number.isSafeInteger(now)) {
        const exact = await this.#exactly(path, name);
        if (exact !== null) properties[name] = exact;
      } else if (typeof now === 'boolean' || typeof now === 'number' || typeof now === 'string') properties[name] = now;
    }
    if (role === 'nic' || driver === 'VGA') await this.#recordRom(path, defaults, properties);
    return properties;
  }

  /** An empty `romfile` means "no boot ROM", which changes what the firmware boots; a file of the host's is the host's. */
  async #recordRom(path: string, defaults: ReadonlyMap<string, unknown>, properties: Record<string, Value>): Promise<void> {
    if (!defaults.has('romfile')) return;
    if ((await this.#get<string>(path, 'romfile')) === '') properties['romfile'] = '';
  }

  /** JSON numbers lose digits here (World Wide Names have 64 bits); the human monitor prints them whole. */
  async #exactly(path: string, property: string): Promise<string | null> {
    const printed = await askOrNull<string>(this.#qmp, 'human-monitor-command', { 'command-line': `qom-get ${path} ${property}` });
    return /^\s*(\d+)\s*$/.exec(printed ?? '')?.[1] ?? null;
  }

  async #defaultsOf(driver: string): Promise<ReadonlyMap<string, unknown>> {
    const known = this.#defaults.get(driver);
    if (known !== undefined) return known;
    const infos = (await askOrNull<PropertyInfo[]>(this.#qmp, 'device-list-properties', { typename: driver })) ?? [];
    const defaults = new Map(infos.map((info) => [info.name, info['default-value']]));
    this.#defaults.set(driver, defaults);
    return defaults;
  }
}

/** The device that a QOM path lies in; some devices report their bare id as path. */
function ownerPath(qdev: string): string {
  return qdev.startsWith('/') ? devicePath.exec(qdev)?.[0] ?? qdev : `/machine/peripheral/${qdev}`;
}

/** CPUs and memory are recorded as such. */
function isMissed(driver: string): boolean {
  return !driver.endsWith('-cpu') && driver !== 'pc-dimm';
}

/** Owners of buses first; else by path, numbers by value, so that two records of one guest are alike. An IOMMU goes before all. */
function inOrder(devices: readonly HardwareDevice[]): HardwareDevice[] {
  const byPath = new Map(devices.map((device) => [device.path, device]));
  // As deep as there are devices: owners that name each other in a circle come from no QOM tree.
  const depth = (device: HardwareDevice, most = devices.length): number => {
    const owner = byPath.get(device.bus?.owner ?? '');
    return device.driver === 'intel-iommu' ? -1 : owner === undefined || most === 0 ? 0 : depth(owner, most - 1) + 1;
  };
  return [...devices].sort((a, b) => depth(a) - depth(b) || a.path.localeCompare(b.path, 'en', { numeric: true }));
}

async function recordIoThreads(qmp: QmpConnection): Promise<GuestHardware['ioThreads']> {
  const threads = await qmp.execute<Record<string, Value>[]>('query-iothreads');
  return threads.map((thread) => ({
    id: String(thread['id']),
    properties: Object.fromEntries(['poll-max-ns', 'poll-grow', 'poll-shrink', 'aio-max-batch'].flatMap((name) => (thread[name] === undefined ? [] : [[name, thread[name]]]))),
  }));
}
