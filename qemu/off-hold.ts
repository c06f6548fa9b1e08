/**
 * Keeps a manager from ending a guest's QEMU when the guest is off, so that its disks can be read once more. Both managers do so by themselves: libvirt by its own word for what a
 * power-off is (`on_poweroff`), Proxmox VE by its event daemon, which leaves a guest alone that is being backed up.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Fault, isFault } from '../journal/fault.ts';
import { parsePlace, type GuestPlace } from './guest-place.ts';
import { child, parseDomain, textOf } from './libvirt/domain-xml.ts';
import { virsh } from './libvirt/virsh.ts';

export interface OffHold {
  /** What a power-off of the guest's is while it is held. `restart`: the manager boots it anew at once, and whoever wants it off stops it then, before it has read a byte of its disks. */
  readonly offMeans: 'stop' | 'restart';
  /** May be asked for again. Faults: LIBVIRT_*, GUEST_UNSUITED: it cannot be had. */
  take(): Promise<void>;
  /** As it was before, also when another process took it. Faults: LIBVIRT_*. */
  release(): Promise<void>;
}

/** Null: nobody ends it. */
export function offHold(place: string): OffHold | null {
  const found = parsePlace(place);
  switch (found?.kind) {
    case 'libvirt': return new LibvirtHold(found);
    case 'pve': return new PveHold(found);
    default: return null;
  }
}

class LibvirtHold implements OffHold {
  readonly offMeans = 'restart';
  readonly #place: Extract<GuestPlace, { readonly kind: 'libvirt' }>;

  constructor(place: Extract<GuestPlace, { readonly kind: 'libvirt' }>) {
    this.#place = place;
  }

  async take(): Promise<void> {
    await this.#set('restart');
  }

  async release(): Promise<void> {
    const { uri, domain } = this.#place;
    // As it will be started next: only how it runs was changed.
    const { domain: defined } = parseDomain(await virsh(uri, ['dumpxml', '--inactive', domain]));
    const action = textOf(child(defined, 'on_poweroff')) ?? 'destroy';
    await this.#set(/^[a-z-]+$/.test(action) ? action : 'destroy').catch((error: unknown) => {
      // It does not run any more.
      if (!isFault(error, 'LIBVIRT_REFUSED')) throw error;
    });
  }

  async #set(action: string): Promise<void> {
    const { uri, domain } = this.#place;
    await virsh(uri, ['set-lifecycle-action', '--domain', domain, '--type', 'poweroff', '--action', action, '--live']);
  }
}

/** Until it is there, ms: it is a daemon of this host. */
const connectMsMax = 2_000;

/** As Proxmox VE's own backup holds a guest (`register_qmeventd_handle` of qemu-server): as long as the connection stands. */
class PveHold implements OffHold {
  readonly offMeans = 'stop';
  readonly #path: string;
  readonly #vmid: number;
  #socket: Socket | null = null;

  constructor({ vmid, root }: Extract<GuestPlace, { readonly kind: 'pve' }>) {
    this.#path = join(root, 'var/run/qmeventd.sock');
    this.#vmid = vmid;
  }

  async take(): Promise<void> {
    if (this.#socket !== null && !this.#socket.destroyed) return;
    const socket = this.#socket = connect(this.#path);
    // Its end is seen by that of the guest's QEMU.
    socket.on('error', () => socket.destroy());
    // What it says is nothing that we need.
    socket.resume();
    const over = new AbortController();
    try {
      await Promise.race([once(socket, 'connect', { signal: over.signal }), delay(connectMsMax, undefined, { signal: over.signal }).then(() => { throw new Error(`no answer within ${connectMsMax} ms`); })]);
    } catch (error) {
      socket.destroy();
      throw new Fault('GUEST_UNSUITED', `Proxmox VE’s event daemon (${this.#path}) cannot be asked to leave guest ${this.#vmid} alone: ${(error as Error).message}`, { path: this.#path, vmid: this.#vmid }, error);
    } finally {
      over.abort();
    }
    socket.write(JSON.stringify({ vzdump: { vmid: String(this.#vmid) } }));
  }

  release(): Promise<void> {
    this.#socket?.destroy();
    this.#socket = null;
    return Promise.resolve();
  }
}
