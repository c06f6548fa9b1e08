/** What the manager of a guest knows of it, for its start elsewhere: carried along in the record of its hardware. Changes nothing. */
import { parsePlace, type GuestPlace } from './guest-place.ts';
import { recordHardware, type GuestHardware } from './hardware.ts';
import { virsh } from './libvirt/virsh.ts';
import { readPveConfig } from './pve/pve-guest.ts';
import type { QmpConnection } from './qmp.ts';

/** The record of its hardware, with its definition where it is found by its manager. Faults: those of `QmpConnection.execute`, LIBVIRT_*, QMP_UNREACHABLE. */
export async function recordGuest(qmp: QmpConnection, place: string): Promise<GuestHardware> {
  const found = parsePlace(place);
  const hardware = await recordHardware(qmp, found?.kind === 'socket' ? found.uid : undefined);
  const manager = await definitionOf(found);
  return manager === undefined ? hardware : { ...hardware, manager };
}

/** Undefined: nobody manages it. */
async function definitionOf(place: GuestPlace | undefined): Promise<GuestHardware['manager']> {
  switch (place?.kind) {
    case undefined: case 'socket': return undefined;
    // As it runs: only then libvirt says which disk is which device (the alias). Passwords are left out.
    case 'libvirt': return { kind: 'libvirt', xml: await virsh(place.uri, ['dumpxml', place.domain]) };
    case 'pve': return { kind: 'pve', vmid: place.vmid, config: (await readPveConfig(place)).text };
    default: return place satisfies never;
  }
}
