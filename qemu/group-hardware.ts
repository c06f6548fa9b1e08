/**
 * The hardware of a group's guests as its source announces it: of a guest alone its record (hardware.ts), of several a list of records, each with how many of the group's disks
 * are its, in their order. Disks of several are named `guest/disk` by the group, and by the disk's own name in the guest's record.
 */
import { z } from 'zod';
import { diskCountMax, groupGuestsMax } from '../journal/limits.ts';
import { safeName } from '../journal/wire.ts';
import { guestHardware, type GuestHardware } from './hardware.ts';

const severalGuests = z.object({
  guests: z.array(z.object({ name: safeName, disks: z.number().int().min(1).max(diskCountMax), hardware: guestHardware })).min(2).max(groupGuestsMax),
});

export interface RecordedGuest {
  readonly name: string;
  readonly hardware: GuestHardware;
  /** By the group's numbers; null: all that there are. */
  readonly disks: readonly number[] | null;
}

/** What is wrong with it, for people, where it cannot be used. `group`: the name of a guest alone. */
export function readGroupHardware(recorded: Readonly<Record<string, unknown>>, group: string): { readonly guests: readonly RecordedGuest[] } | { readonly flaw: string } {
  if (!('guests' in recorded)) {
    const one = guestHardware.safeParse(recorded);
    return one.success ? { guests: [{ name: group, hardware: one.data, disks: null }] } : { flaw: z.prettifyError(one.error) };
  }
  const several = severalGuests.safeParse(recorded);
  if (!several.success) return { flaw: z.prettifyError(several.error) };
  let first = 0;
  return {
    guests: several.data.guests.map(({ name, disks, hardware }) => {
      const own = Array.from({ length: disks }, (_, at) => first + at);
      first += disks;
      return { name, hardware, disks: own };
    }),
  };
}

/** A disk's name in its guest's record. */
export function ownDiskName(guest: RecordedGuest, name: string): string {
  return guest.disks === null ? name : name.slice(guest.name.length + 1);
}
