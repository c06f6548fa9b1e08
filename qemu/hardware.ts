/**
 * What it takes to start a guest elsewhere: its hardware as QEMU itself reports it, through QMP and QOM, from the running
 * guest. Invariants: nothing is invented (what cannot be seen is absent, and what is left out is in `notes`); the record
 * survives JSON; nothing in the guest changes. What QMP does not show at all: SMBIOS strings, fw_cfg entries, `-global`.
 */
import { z } from 'zod';
import { Fault } from '../journal/fault.ts';
import { recordCpu } from './hardware-cpu.ts';
import { recordDevices } from './hardware-devices.ts';
import { recordFiles } from './hardware-files.ts';
import { recordFirmware } from './hardware-firmware.ts';
import { machineOptions } from './device-kinds.ts';
import { askOrNull, lookUpNodes, takeDiskInventory } from './guest-disks.ts';
import type { QmpConnection } from './qmp.ts';

/** Names that go into a command line: QEMU's own kind, no comma, no equals sign, no blank. */
const word = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}$/);
const count = z.number().int().nonnegative();
/** No argument of a process can hold a NUL, and no honest name a line's end. */
const line = z.string().regex(/^[^\0\n\r]*$/);
const path = line.min(1).max(4096);
/** 64-bit numbers beyond JavaScript's exact ones are strings of digits. */
const value = z.union([z.boolean(), z.number(), line.max(1024)]);
const values = z.record(word, value);
/** Characters; the largest definitions have some 100,000. */
const managerTextMax = 512 * 1024;

const device = z.object({
  /** QOM path, by which other devices name this one as the owner of their bus. */
  path,
  driver: word,
  id: word.optional(),
  /** `index`: which of the owner's buses. Without `owner` the bus is the machine's own. */
  bus: z.object({ name: word, owner: path.optional(), index: count }).optional(),
  /** PCI slot and function, hexadecimal, as `-device addr=` takes it. */
  address: z.string().regex(/^[0-9a-f]{1,2}\.[0-7]$/).optional(),
  iothread: word.optional(),
  /** For a disk: its name in `disks`. */
  disk: line.max(255).optional(),
  properties: values,
});

export const guestHardware = z.object({
  version: z.literal(1),
  qemuVersion: z.string().max(40),
  /** As in the name of the program: qemu-system-ARCH. */
  arch: word,
  accel: z.enum(['kvm', 'tcg']).optional(),
  name: line.max(255).optional(),
  uuid: z.uuid().optional(),
  machine: z.object({ type: word, options: values }),
  cpu: z.object({ model: word, features: z.record(word, z.union([z.boolean(), z.number()])) }).optional(),
  smp: z.object({ cpus: count, maxCpus: count, sockets: count, dies: count, clusters: count, cores: count, threads: count }).optional(),
  memory: z.object({ sizeBytes: count, pluggedBytes: count.optional(), slots: count.optional(), maxBytes: count.optional() }),
  ioThreads: z.array(z.object({ id: word, properties: values })),
  /** Owners of buses come before the devices on them. */
  devices: z.array(device),
  /** In the order of the inventory (guest-disks.ts). */
  disks: z.array(z.object({ name: line.max(255), sizeBytes: count })),
  serialPorts: count.max(4),
  firmware: z.object({
    /** A file that QEMU loads as BIOS, where there is no flash. */
    biosPath: path.optional(),
    codePath: path.optional(),
    codeFormat: word.optional(),
    varsPath: path.optional(),
    varsFormat: word.optional(),
    /** The variable store as it was when recorded. */
    varsContentBase64: z.base64().optional(),
    /** Only SMM may write the flash (secure boot). */
    isSecure: z.boolean().optional(),
  }).optional(),
  kernel: z.object({ kernel: path, initrd: path.optional(), append: line.max(4096).optional() }).optional(),
  /** What lies under the paths above, as far as it could be read. */
  files: z.array(z.object({ path, sha256: z.string().regex(/^[0-9a-f]{64}$/) })).max(8).optional(),
  boot: z.object({ order: word.optional(), menu: z.boolean().optional(), strict: z.boolean().optional(), 'reboot-timeout': z.number().int().optional() }).optional(),
  rtcBase: z.enum(['utc', 'localtime']).optional(),
  /** As its manager describes it: libvirt's XML, Proxmox VE's config file. */
  manager: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('libvirt'), xml: z.string().max(managerTextMax) }),
    z.object({ kind: z.literal('pve'), vmid: count, config: z.string().max(managerTextMax) }),
  ]).optional(),
  /** What the record lacks, for people. */
  notes: z.array(z.string().max(500)),
});

export type GuestHardware = z.infer<typeof guestHardware>;
export type HardwareDevice = GuestHardware['devices'][number];

/** `uid`: the user as whom the guest's QEMU runs, if the files that it names are read only as far as that user might. Faults: those of `QmpConnection.execute`. */
export async function recordHardware(qmp: QmpConnection, uid?: number): Promise<GuestHardware> {
  const notes: string[] = [];
  const [inventory, lookup] = await Promise.all([takeDiskInventory(qmp), lookUpNodes(qmp)]);
  const machine = await recordMachine(qmp);
  const devices = await recordDevices(qmp, inventory.disks);
  notes.push(...devices.notes);
  const cpu = await recordCpu(qmp);
  notes.push(...cpu.notes);
  const firmware = await recordFirmware(qmp, lookup, machine.firmware, uid);
  notes.push(...firmware.notes);
  const memory = await recordMemory(qmp);
  notes.push(...memory.notes);
  const rtc = await recordClock(qmp);
  notes.push(...rtc.notes);
  for (const { name, reason } of inventory.skipped) notes.push(`The drive ${name} is not replicated: ${reason}.`);
  const { major, minor, micro } = qmp.version;
  return fitted({
    version: 1 as const,
    qemuVersion: `${major}.${minor}.${micro}`,
    arch: (await qmp.execute<{ arch: string }>('query-target')).arch,
    accel: await recordAccel(qmp),
    ...await recordIdentity(qmp),
    machine: { type: machine.type, options: machine.options },
    cpu: cpu.cpu,
    smp: cpu.smp,
    memory: memory.memory,
    ioThreads: devices.ioThreads,
    devices: devices.devices,
    disks: inventory.disks.map(({ name, sizeBytes }) => ({ name, sizeBytes })),
    serialPorts: Math.min(4, devices.serialPorts),
    firmware: firmware.firmware,
    kernel: machine.kernel,
    files: await recordFiles([machine.kernel?.kernel, machine.kernel?.initrd, firmware.firmware?.codePath, firmware.firmware?.biosPath], uid),
    boot: machine.boot,
    rtcBase: rtc.rtcBase,
    notes: notes.map((note) => note.slice(0, 500)),
  });
}

/**
 * A record that does not fit its own schema would be refused at the worst moment, at the failover: what does not fit (a name
 * that cannot go into a command line) is left out now, and said.
 */
function fitted(record: Readonly<Record<string, unknown>> & { readonly notes: string[] }): GuestHardware {
  const kept: Record<string, unknown> = { ...record };
  for (;;) {
    const parsed = guestHardware.safeParse(kept);
    if (parsed.success) return parsed.data;
    const [issue] = parsed.error.issues;
    const [key, index] = issue?.path ?? [];
    if (typeof key !== 'string' || kept[key] === undefined) throw new Fault('GUEST_UNSUITED', `the guest’s hardware cannot be recorded: ${parsed.error.message}`, { key: String(key) });
    const list = kept[key];
    if (Array.isArray(list) && typeof index === 'number') kept[key] = list.filter((_, i) => i !== index);
    else delete kept[key];
    kept['notes'] = [...(kept['notes'] as string[]), `Left out, as it cannot be given to QEMU again: ${issue?.path.join('.')} (${issue?.message}).`.slice(0, 500)];
  }
}

/** Without the members that are undefined, as JSON would have it. */
function defined<T extends object>(object: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, member]) => member !== undefined)) as { [K in keyof T]: Exclude<T[K], undefined> };
}

interface Machine {
  readonly type: string;
  readonly options: Record<string, string | number | boolean>;
  readonly firmware: string | undefined;
  readonly kernel: GuestHardware['kernel'];
  readonly boot: GuestHardware['boot'];
}

async function recordMachine(qmp: QmpConnection): Promise<Machine> {
  const get = <T>(property: string): Promise<T | null> => askOrNull<T>(qmp, 'qom-get', { path: '/machine', property });
  const options: Record<string, string | number | boolean> = {};
  const values = await Promise.all(machineOptions.map((name) => get<unknown>(name)));
  for (const [at, name] of machineOptions.entries()) {
    const option = values[at];
    if (typeof option === 'boolean' || typeof option === 'number' || (typeof option === 'string' && option !== '')) options[name] = option;
  }
  const [type, firmware, kernel, initrd, append, boot] = await Promise.all([
    qmp.execute<string>('qom-get', { path: '/machine', property: 'type' }), get<string>('firmware'), get<string>('kernel'), get<string>('initrd'), get<string>('append'),
    get<{ order?: string; menu?: boolean; strict?: boolean; 'reboot-timeout'?: number }>('boot'),
  ]);
  return {
    type: type.replace(/-machine$/, ''),
    options,
    firmware: firmware === null || firmware === '' ? undefined : firmware,
    kernel: kernel === null || kernel === '' ? undefined : { kernel, ...(initrd ? { initrd } : {}), ...(append ? { append } : {}) },
    boot: boot === null ? undefined : defined({ order: boot.order, menu: boot.menu, strict: boot.strict, 'reboot-timeout': boot['reboot-timeout'] }),
  };
}

async function recordAccel(qmp: QmpConnection): Promise<'kvm' | 'tcg' | undefined> {
  const kvm = await askOrNull<{ enabled: boolean }>(qmp, 'query-kvm');
  if (kvm === null) return undefined;
  return kvm.enabled ? 'kvm' : 'tcg';
}

async function recordIdentity(qmp: QmpConnection): Promise<{ name?: string; uuid?: string }> {
  const [{ name }, { UUID: uuid }] = await Promise.all([qmp.execute<{ name?: string }>('query-name'), qmp.execute<{ UUID: string }>('query-uuid')]);
  return {
    ...(name === undefined ? {} : { name }),
    // All zeroes is how QEMU says that none was given.
    ...(/^[0-]*$/.test(uuid) ? {} : { uuid }),
  };
}

async function recordMemory(qmp: QmpConnection): Promise<{ memory: GuestHardware['memory']; notes: string[] }> {
  const [summary, configured, backends] = await Promise.all([
    qmp.execute<{ 'base-memory': number; 'plugged-memory'?: number }>('query-memory-size-summary'),
    askOrNull<{ size?: number; slots?: number; 'max-size'?: number }>(qmp, 'qom-get', { path: '/machine', property: 'memory' }),
    askOrNull<{ id?: string }[]>(qmp, 'query-memdev'),
  ]);
  const plugged = summary['plugged-memory'] ?? 0;
  const notes: string[] = [];
  if (plugged > 0) notes.push(`${plugged / 1024 ** 2} MiB of plugged memory are started as part of the base memory.`);
  else if ((backends?.length ?? 0) > 1) notes.push('The memory is made of several backends (NUMA nodes); it is started as one.');
  return {
    memory: {
      sizeBytes: summary['base-memory'],
      ...(plugged > 0 ? { pluggedBytes: plugged } : {}),
      ...(configured?.slots && configured['max-size'] ? { slots: configured.slots, maxBytes: configured['max-size'] } : {}),
    },
    notes,
  };
}

/** A PC's clock shows what it was started with, as far as the guest has not set it: compare it with this host's. */
async function recordClock(qmp: QmpConnection): Promise<{ rtcBase: 'utc' | 'localtime' | undefined; notes: string[] }> {
  const time = await askOrNull<Readonly<Record<string, number>>>(qmp, 'qom-get', { path: '/machine', property: 'rtc-time' });
  if (time === null) return { rtcBase: undefined, notes: [] };
  const shownMs = Date.UTC((time['tm_year'] ?? 0) + 1900, time['tm_mon'] ?? 0, time['tm_mday'] ?? 0, time['tm_hour'] ?? 0, time['tm_min'] ?? 0, time['tm_sec'] ?? 0);
  const now = new Date();
  const isNear = (offsetMs: number): boolean => Math.abs(shownMs - now.getTime() - offsetMs) < 5 * 60_000;
  if (isNear(0)) return { rtcBase: 'utc', notes: [] };
  if (isNear(-now.getTimezoneOffset() * 60_000)) return { rtcBase: 'localtime', notes: [] };
  return { rtcBase: undefined, notes: ['The guest’s hardware clock is neither in UTC nor in this host’s local time; it is started in UTC.'] };
}
