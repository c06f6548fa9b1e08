/**
 * Connects to a guest's QEMU wherever it is found (guest-place.ts): over a QMP socket that is ours alone, where it has one; else through its manager. Every caller gets the same
 * promises (qmp.ts), and looks the place up anew at each connection: a guest that was started again, defined anew or moved within its manager is found where it is now.
 */
import { stat } from 'node:fs/promises';
import { Fault, isFault } from '../journal/fault.ts';
import { readPlace } from './guest-place.ts';
import { lookUpDomain } from './libvirt/domain.ts';
import { connectThroughLibvirt } from './libvirt/libvirt-monitor.ts';
import { pveMonitor } from './pve/pve-guest.ts';
import { connectQmp, type QmpConnectOptions } from './qmp-client.ts';
import type { QmpConnection } from './qmp.ts';
import { runningGuests } from './running-guests.ts';

export interface GuestConnection {
  readonly qmp: QmpConnection;
  /** Of the guest's QEMU: who must be able to open what is made for it. */
  readonly owner: { readonly uid: number; readonly gid: number };
}

/** The kernel's overflow group (/proc/sys/kernel/overflowgid). */
const nobodyGid = 65_534;
/** A manager is asked by programs of its own, which take longer to start than a socket to answer, ms. */
const managerMsMin = 10_000;

/** Faults: QMP_*; REQUEST_INVALID; LIBVIRT_UNREACHABLE and LIBVIRT_REFUSED. A guest that does not run: QMP_UNREACHABLE, with `error` ENOENT or ECONNREFUSED in its facts. */
export async function connectGuest(text: string, options: QmpConnectOptions = {}): Promise<GuestConnection> {
  const place = readPlace(text);
  switch (place.kind) {
    case 'socket': return overSocket(place.path, { ...options, listenerUid: place.uid });
    case 'pve': return overSocket(await pveMonitor(place), options);
    case 'libvirt': {
      const found = await lookUpDomain(place.uri, place.domain, options.signal);
      const { domainId, name, uuid, ownMonitor } = found;
      if (domainId === null) throw new Fault('QMP_UNREACHABLE', `the domain ${name} does not run`, { domain: name, uri: place.uri, error: 'ENOENT' });
      if (ownMonitor !== null) return overSocket(ownMonitor, options);
      const patient = { ...options, ...longer('connectTimeoutMs', options), ...longer('commandTimeoutMs', options) };
      const qmp = await connectThroughLibvirt({ uri: place.uri, domainId, name }, patient);
      return { qmp, owner: await ownerOf(uuid, name).catch((error: unknown) => { qmp.close(); throw error; }) };
    }
    default: return place satisfies never;
  }
}

/** As {@link connectGuest}, for those who ask and go. */
export async function connectMonitor(text: string, options: QmpConnectOptions = {}): Promise<QmpConnection> {
  return (await connectGuest(text, options)).qmp;
}

async function overSocket(path: string, options: QmpConnectOptions): Promise<GuestConnection> {
  const qmp = await connectQmp(path, options);
  try {
    const { uid, gid } = await stat(path);
    // What lies at the path may be exchanged: what is made for the guest is for who listened.
    return { qmp, owner: options.listenerUid === undefined ? { uid, gid } : { uid: options.listenerUid, gid: uid === options.listenerUid ? gid : nobodyGid } };
  } catch (error) {
    qmp.close();
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Fault('QMP_CLOSED', `${path} is gone`, { path }, error);
  }
}

function longer(key: 'connectTimeoutMs' | 'commandTimeoutMs', options: QmpConnectOptions): QmpConnectOptions {
  const asked = options[key];
  return asked === undefined ? {} : { [key]: Math.max(asked, managerMsMin) };
}

/** libvirt runs QEMU as a user of its own choice, for each domain. */
async function ownerOf(uuid: string, name: string): Promise<GuestConnection['owner']> {
  const found = (await runningGuests()).find((guest) => guest.uuids.includes(uuid));
  try {
    if (found === undefined) throw new Fault('QMP_UNREACHABLE', `no process of this host is the QEMU of the domain ${name}: is it this host’s libvirt?`, { domain: name });
    const { uid, gid } = await stat(`/proc/${found.pid}`);
    return { uid, gid };
  } catch (error) {
    if (isFault(error) || (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Fault('QMP_CLOSED', `the domain ${name} has just ended`, { domain: name }, error);
  }
}
