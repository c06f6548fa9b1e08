/** What the manager of a guest knows of it, for its start elsewhere: carried along in the record of its hardware. Changes nothing. */
import { parsePlace } from './guest-place.ts';
import type { GuestHardware } from './hardware.ts';
import { virsh } from './libvirt/virsh.ts';
import { readPveConfig } from './pve/pve-guest.ts';

/** Undefined: nobody manages it. Faults: LIBVIRT_*, QMP_UNREACHABLE. */
export async function recordManager(text: string): Promise<GuestHardware['manager']> {
  const place = parsePlace(text);
  switch (place?.kind) {
    case undefined: case 'socket': return undefined;
    // As it runs, without what is of this host and this start alone; passwords are left out.
    case 'libvirt': return { kind: 'libvirt', xml: await virsh(place.uri, ['dumpxml', '--migratable', place.domain]) };
    case 'pve': return { kind: 'pve', vmid: place.vmid, config: (await readPveConfig(place)).text };
    default: return place satisfies never;
  }
}
