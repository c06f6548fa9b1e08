/**
 * Guests that a manager of this host starts (libvirt, Proxmox VE) from their own definition, adapted. Their monitors are in the same places as those of all others, so that whatever
 * else is done to them is done as to every other; what only their manager can do is done by what it left beside the guest's files. It decides nothing.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { rm, symlink } from 'node:fs/promises';
import { Fault, isFault } from '../../journal/fault.ts';
import { findGuest } from '../../qemu/boot.ts';
import { isStoppedOnError } from '../../qemu/boot-disks.ts';
import { formatPlace } from '../../qemu/guest-place.ts';
import type { RecordedGuest } from '../../qemu/group-hardware.ts';
import type { GuestHardware } from '../../qemu/hardware.ts';
import { adaptDomain, type AdaptOptions } from '../../qemu/libvirt/adapt-domain.ts';
import { domainOf, forgetDomain, securityModels, startDomain } from '../../qemu/libvirt/start-domain.ts';
import { virsh } from '../../qemu/libvirt/virsh.ts';
import { adaptPveConfig, lendPveConfig, type PveAdaptOptions } from '../../qemu/pve/adapt-config.ts';
import { pveAgentPath } from '../../qemu/pve/pve-guest.ts';
import { imageFolder } from '../../qemu/pve/pve-storage.ts';
import { findPveGuest, forgetPveGuest, hasUuid, pveGuestOf, startPveGuest, volumeId, whyTaken, type PveHost } from '../../qemu/pve/start-guest.ts';
import type { Launch } from './guest-launch.ts';
import type { ChosenNetwork } from './network-plan.ts';
import { fine, refused, warning, type StartFinding } from './start-finding.ts';

/** Who defines and starts here guests that were its where they ran. `vmids`: by group and guest, of those that get another number here. */
export type GuestManager =
  | { readonly by: 'libvirt'; readonly uri: string }
  | { readonly by: 'pve'; readonly vmids: Readonly<Record<string, Readonly<Record<string, number>>>> } & PveHost;

/** How a guest would be, for people; `as`: whose it is, and under which name. */
export interface ManagedStart { readonly guest: string; readonly as: string; readonly notes: readonly string[] }

interface Managed extends Launch {
  /** Paths of sockets. */
  readonly monitors: readonly string[];
  readonly agentPath: string;
  /** A copy of the firmware's variables; null: there are none. */
  readonly varsPath: string | null;
}

/** Null: the guest is nobody's whom this target knows, and is started by us. Resolves to its pid, its processors held. Fault FAILOVER_BOOT. */
export function launchManaged(launch: Managed): Promise<number | null> {
  const { manager, hardware, isTrial } = launch;
  if (manager?.by === 'libvirt' && hardware.manager?.kind === 'libvirt') return launchDomain(launch, manager.uri, hardware.manager.xml);
  // A trial would need a number and a config in the cluster: it does without Proxmox VE.
  if (manager?.by === 'pve' && hardware.manager?.kind === 'pve' && isTrial !== true) return launchPve(launch, manager, hardware.manager);
  return Promise.resolve(null);
}

/** The guest does not run, and its files in `folder` are about to go. Faults: LIBVIRT_*, FAILOVER_BOOT. */
export async function forgetManaged(folder: string): Promise<void> {
  await forgetDomain(folder);
  await forgetPveGuest(folder);
}

/** By which a source finds a guest whose files are in `folder`; null: it is not its manager's. */
export async function managedPlace(folder: string): Promise<string | null> {
  const place = await domainOf(folder) ?? await pveGuestOf(folder);
  return place === null ? null : formatPlace(place);
}

/** What {@link launchManaged} would do, without doing it: the definition as it is, on any disks. Null: it is started by us. Fault FAILOVER_BOOT, LIBVIRT_REFUSED: it could not be adapted. */
export function planManaged(manager: GuestManager | undefined, { of, guest, hardware, accel, network, networks }: { readonly of: string; readonly guest: string; readonly hardware: GuestHardware; readonly accel: 'kvm' | 'tcg' } & ChosenNetwork): ManagedStart | null {
  const common = { network, networks, accel, monitors: [], consoleLog: '/' };
  const recorded = hardware.manager;
  const hasVars = hardware.firmware?.varsContentBase64 !== undefined;
  if (manager?.by === 'libvirt' && recorded?.kind === 'libvirt') {
    const { name, notes } = adaptDomain(recorded.xml, { ...common, disks: hardware.disks.map(({ name: disk }, at) => ({ disk: at, name: disk, path: '/', format: 'qcow2' })), varsPath: hasVars ? '/' : undefined, security: { models: [], uid: 0, gid: 0 } });
    return { guest, as: `libvirt’s domain ${name}`, notes };
  }
  if (manager?.by !== 'pve' || recorded?.kind !== 'pve') return null;
  const { notes } = adaptPveConfig(recorded.config, { ...common, disks: hardware.disks.map(({ name: disk }) => ({ name: disk, volume: '-', isStoppedOnError: false })), vars: hasVars ? { volume: '-' } : undefined, generationId: '-' });
  return { guest, as: `Proxmox VE’s guest ${vmidOf(manager, of, guest, recorded.vmid)}`, notes };
}

/** Of a group; a guest whose definition cannot be adapted is left out (start-check.ts says why). */
export function planManagedGroup(manager: GuestManager | undefined, of: string, guests: readonly RecordedGuest[], how: ChosenNetwork & { readonly accel: 'kvm' | 'tcg' }): ManagedStart[] {
  return guests.flatMap(({ name, hardware }) => {
    try {
      return planManaged(manager, { of, guest: name, hardware, ...how }) ?? [];
    } catch (error) {
      if (!isFault(error)) throw error;
      return [];
    }
  });
}

/** Whether its manager could start it here; empty: it is none's. `isHome`: it would be on its own old disks. `ownFolder`: that with which the folders of the group's failovers begin. Never rejects for what is wrong with guest or host. */
export async function checkManager(manager: GuestManager | undefined, of: string, { name: guest, hardware }: RecordedGuest, { isHome, ownFolder, ...how }: ChosenNetwork & { readonly accel: 'kvm' | 'tcg'; readonly isHome: boolean; readonly ownFolder: string }): Promise<StartFinding[]> {
  try {
    const planned = planManaged(manager, { of, guest, hardware, ...how });
    if (planned === null || manager === undefined) return [];
    if (manager.by === 'libvirt') await virsh(manager.uri, ['version']);
    else {
      await imageFolder(manager);
      const why = await whyTaken(manager, vmidOf(manager, of, guest, hardware.manager?.kind === 'pve' ? hardware.manager.vmid : 0), (config) => config.includes(ownFolder) || (isHome && hasUuid(config, hardware.uuid)));
      if (why !== null) return [refused('manager', `its number ${why}`, `Give it another: \`groups: { ${of}: { guests: { ${guest}: { vmid: NUMBER } } } }\`.`)];
    }
    return [planned.notes.length === 0 ? fine('manager', `it starts as ${planned.as}`) : warning('manager', `it starts as ${planned.as}. ${planned.notes.join(' ')}`, 'See that the guest can do without: afterimage test-failover.')];
  } catch (error) {
    if (!isFault(error)) throw error;
    return [refused('manager', error.message, manager?.by === 'libvirt' ? 'See whether libvirtd (or virtqemud) runs here, or start it without (`failover: { by: qemu }`).' : 'Mend it, or start it without Proxmox VE (`failover: { by: qemu }`).')];
  }
}

/** The number that a guest gets here. */
export function vmidOf({ vmids }: Extract<GuestManager, { readonly by: 'pve' }>, group: string, guest: string, recorded: number): number {
  return vmids[group]?.[guest] ?? recorded;
}

async function launchDomain({ group, place: { folder, qmpPath, logPath }, hardware, disks, network, networks, accel, isTrial, monitors, varsPath, log }: Managed, uri: string, xml: string): Promise<number> {
  const named = disks.map((disk) => ({ ...disk, name: disk.name ?? hardware.disks[disk.disk]?.name ?? '' }));
  const options: AdaptOptions = {
    disks: named, network, networks, accel, consoleLog: logPath, monitors, varsPath: varsPath ?? undefined,
    security: { models: await securityModels(uri), uid: process.getuid!(), gid: process.getgid!() },
    ...(isTrial === true ? { trial: { suffix: `test-${randomBytes(3).toString('hex')}`, uuid: randomUUID() } } : {}),
  };
  const adapted = adaptDomain(xml, options);
  for (const line of adapted.notes) log.warn({ group }, line);
  await startDomain(uri, adapted, folder, { isTransient: isTrial === true });
  return pidOf(qmpPath, `libvirt says that ${adapted.name} was started`);
}

async function launchPve({ of = '', group, place: { folder, qmpPath, logPath }, hardware, disks, network, networks, accel, monitors, agentPath, varsPath, log }: Managed, manager: Extract<GuestManager, { readonly by: 'pve' }>, recorded: { readonly vmid: number; readonly config: string }): Promise<number> {
  // What is made here is an overlay (boot-images.ts).
  const isHome = disks.every(({ format }) => format === 'raw');
  // Where it comes from it may have had another number.
  const vmid = isHome ? await findPveGuest(manager, hardware.uuid) ?? recorded.vmid : vmidOf(manager, of, group, recorded.vmid);
  const files = isHome ? [] : disks.map((one) => ({ path: one.path, file: `vm-${vmid}-disk-${one.disk}.${one.format}`, name: one.name ?? hardware.disks[one.disk]?.name ?? '', isStoppedOnError: isStoppedOnError(one) }));
  const vars = isHome || varsPath === null ? null : { path: varsPath, file: `vm-${vmid}-efi.${hardware.firmware?.varsFormat === 'qcow2' ? 'qcow2' : 'raw'}` };
  const volume = (file: string): string => volumeId(manager, vmid, file);
  const options: PveAdaptOptions = {
    disks: files.map(({ name, file, isStoppedOnError }) => ({ name, volume: volume(file), isStoppedOnError })),
    network, networks, accel, monitors, consoleLog: logPath, vars: vars === null ? undefined : { volume: volume(vars.file) }, generationId: randomUUID(),
  };
  // Before anything is made.
  const adapted = isHome ? null : adaptPveConfig(recorded.config, options);
  for (const line of adapted?.notes ?? []) log.warn({ group }, line);
  await startPveGuest({
    host: manager, vmid, uuid: hardware.uuid, folder, isHome, volumes: [...files, ...(vars === null ? [] : [vars])],
    config: (before) => adapted?.text ?? lendPveConfig(before ?? '', { monitors, consoleLog: logPath }),
  });
  // Proxmox VE chooses where the agent is reached.
  await rm(agentPath, { force: true });
  await symlink(pveAgentPath({ kind: 'pve', vmid, root: manager.root }), agentPath);
  return pidOf(qmpPath, `Proxmox VE says that ${vmid} was started`);
}

async function pidOf(qmpPath: string, said: string): Promise<number> {
  const pid = await findGuest(qmpPath);
  if (pid === null) throw new Fault('FAILOVER_BOOT', `${said}, and no process of this host is its QEMU`, { qmpPath });
  return pid;
}
