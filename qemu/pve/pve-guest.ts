/**
 * A guest of Proxmox VE on this host: where its monitors are, and its config file. Changes nothing. Proxmox VE's own socket (`/var/run/qemu-server/VMID.qmp`) serves one client at
 * a time, and Proxmox VE connects to it for each thing that it does to the guest and for its statistics: who stays connected there makes Proxmox VE blind. So a guest is followed
 * through a second monitor, which `args:` of its config gives it.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '../../journal/fault.ts';
import type { GuestPlace } from '../guest-place.ts';
import { isSocket } from './is-socket.ts';
import { isOwnMonitor, monitorPaths, ownMonitorName } from '../own-monitor-plan.ts';
import { parsePveConfig, pveValue, splitPveArgs, type PveConfig } from './pve-config.ts';

export type PvePlace = Extract<GuestPlace, { readonly kind: 'pve' }>;

export const pveConfigPath = ({ vmid, root }: PvePlace): string => join(root, 'etc/pve/qemu-server', `${vmid}.conf`);
/** Proxmox VE's own. */
export const pveSocketPath = ({ vmid, root }: PvePlace): string => join(root, 'var/run/qemu-server', `${vmid}.qmp`);
/** Beside it: in a folder that Proxmox VE makes at each boot and that is root's. */
export const pveOwnMonitorPath = ({ vmid, root }: PvePlace): string => join(root, 'var/run/qemu-server', `${vmid}.${ownMonitorName}`);

/** Where Proxmox VE has the guest's agent, in whose config it is switched on (`PVE::QemuServer::Helpers::vm_qga_socket`). */
export const pveAgentPath = ({ vmid, root }: PvePlace): string => join(root, 'var/run/qemu-server', `${vmid}.qga`);

/** Numbers of the guests that are defined on this host, in order; none where Proxmox VE is not there. */
export async function listPveGuests(root: string): Promise<number[]> {
  const files = await readdir(join(root, 'etc/pve/qemu-server')).catch((error: NodeJS.ErrnoException) => { if (error.code === 'ENOENT') return []; throw error; });
  return files.flatMap((file) => /^(\d{3,9})\.conf$/.exec(file)?.[1] ?? []).map(Number).sort((a, b) => a - b);
}

/** Fault QMP_UNREACHABLE (facts: error ENOENT): no such guest on this host. */
export async function readPveConfig(place: PvePlace): Promise<{ readonly text: string; readonly config: PveConfig }> {
  const path = pveConfigPath(place);
  try {
    const text = await readFile(path, 'utf8');
    return { text, config: parsePveConfig(text) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Fault('QMP_UNREACHABLE', `there is no guest ${place.vmid} of Proxmox VE on this host (${path})`, { path, vmid: place.vmid, error: 'ENOENT' }, error);
  }
}

/** Where we connect: the guest's monitor for us. Faults: QMP_UNREACHABLE, GUEST_UNSUITED. */
export async function pveMonitor(place: PvePlace): Promise<string> {
  const { config } = await readPveConfig(place);
  const own = monitorPaths(splitPveArgs(pveValue(config, 'args') ?? '')).find(isOwnMonitor);
  // Put in while the guest runs it takes effect with its next start; until then there is only the socket that Proxmox VE needs.
  if (own !== undefined && await isSocket(own)) return own;
  if (!(await isSocket(pveSocketPath(place)))) throw new Fault('QMP_UNREACHABLE', `guest ${place.vmid} does not run`, { vmid: place.vmid, error: 'ENOENT' });
  const advice = own === undefined ? `\`afterimage add-monitor pve://${place.vmid}\` gives it one` : 'its config has one';
  throw new Fault('GUEST_UNSUITED', `guest ${place.vmid} of Proxmox VE runs without a monitor for us: ${advice}, from its next start or live migration on`, { vmid: place.vmid });
}
