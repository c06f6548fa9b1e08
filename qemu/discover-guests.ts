/**
 * The guests of this host that could be protected, and the place by which each is named: of libvirt, of Proxmox VE, and those that were started by other means with a QMP socket.
 * Changes nothing. A manager that is not there has no guests; one that does not answer is said so.
 */
import { isFault } from '../journal/fault.ts';
import { formatPlace } from './guest-place.ts';
import { lookUpDomain } from './libvirt/domain.ts';
import { virsh } from './libvirt/virsh.ts';
import { isOwnMonitor, monitorPaths } from './own-monitor-plan.ts';
import { listPveGuests, pveSocketPath, readPveConfig } from './pve/pve-guest.ts';
import { pveValue, splitPveArgs } from './pve/pve-config.ts';
import { isSocket } from './pve/is-socket.ts';
import { runningGuests } from './running-guests.ts';

export type GuestManager = 'libvirt' | 'pve' | 'none';

export interface DiscoveredGuest {
  readonly manager: GuestManager;
  readonly name: string;
  /** As `protect` takes it; null: it cannot be reached. */
  readonly place: string | null;
  readonly isRunning: boolean;
  /** `own`: through a monitor of ours; `manager`: through libvirt's; `none`: it needs one first. */
  readonly monitor: 'own' | 'manager' | 'none';
  /** For people: what it needs, or would be the better for. */
  readonly needs: string | null;
}

export interface Discovery { readonly guests: readonly DiscoveredGuest[]; /** For people: who could not be asked. */ readonly notes: readonly string[] }

export async function discoverGuests({ uri, pveRoot }: { readonly uri: string; readonly pveRoot: string }): Promise<Discovery> {
  const notes: string[] = [];
  const libvirt = await libvirtGuests(uri).catch((error: unknown) => {
    if (!isFault(error)) throw error;
    notes.push(error.message);
    return { guests: [], uuids: new Set<string>() };
  });
  const pve = await pveGuests(pveRoot);
  const managed = new Set([...libvirt.guests, ...pve].map(({ name }) => name));
  const others = (await runningGuests()).filter(({ name, uuids }) => !uuids.some((uuid) => libvirt.uuids.has(uuid)) && (name === null || !managed.has(name)));
  return {
    guests: [...libvirt.guests, ...pve, ...others.map(({ name, pid, qmpPaths }): DiscoveredGuest => {
      const path = qmpPaths.find(isOwnMonitor) ?? qmpPaths[0];
      return {
        manager: 'none', name: name ?? `pid ${pid}`, place: path ?? null, isRunning: true, monitor: path === undefined ? 'none' : 'own',
        needs: path === undefined ? 'a QMP socket that nobody else uses (-qmp unix:PATH,server=on,wait=off)' : null,
      };
    })],
    notes,
  };
}

async function libvirtGuests(uri: string): Promise<{ readonly guests: DiscoveredGuest[]; readonly uuids: ReadonlySet<string> }> {
  const names = (await virsh(uri, ['list', '--all', '--name'])).split('\n').map((line) => line.trim()).filter((line) => line !== '');
  const guests: DiscoveredGuest[] = [];
  const uuids = new Set<string>();
  for (const name of names) {
    try {
      const { uuid, domainId, ownMonitor } = await lookUpDomain(uri, name);
      uuids.add(uuid);
      guests.push({
        manager: 'libvirt', name, place: formatPlace({ kind: 'libvirt', domain: name, uri }), isRunning: domainId !== null, monitor: ownMonitor === null ? 'manager' : 'own',
        needs: domainId === null ? 'to be started' : ownMonitor === null ? `better with a monitor of ours: afterimage add-monitor libvirt://${encodeURIComponent(name)}` : null,
      });
    } catch (error) {
      // It was undefined just now.
      if (!isFault(error, 'QMP_UNREACHABLE')) throw error;
    }
  }
  return { guests, uuids };
}

async function pveGuests(root: string): Promise<DiscoveredGuest[]> {
  return Promise.all((await listPveGuests(root)).map(async (vmid): Promise<DiscoveredGuest> => {
    const place = { kind: 'pve', vmid, root } as const;
    const { config } = await readPveConfig(place);
    const isRunning = await isSocket(pveSocketPath(place));
    const own = monitorPaths(splitPveArgs(pveValue(config, 'args') ?? '')).find(isOwnMonitor);
    const isOwn = own !== undefined && await isSocket(own);
    const needs = isOwn ? null : own === undefined ? `a monitor of ours: afterimage add-monitor pve://${vmid}` : isRunning ? 'a start or live migration, which gives it the monitor that its config has' : 'to be started';
    return { manager: 'pve', name: pveValue(config, 'name') ?? `vm-${vmid}`, place: formatPlace(place), isRunning, monitor: isOwn ? 'own' : 'none', needs };
  }));
}
