/** By which names, paths and sockets a protected guest is known, and whether anything is there. */
import { isFault } from '../journal/fault.ts';
import type { GuestImage } from '../qemu/guest-images.ts';
import { connectMonitor } from '../qemu/connect-guest.ts';
import { parsePlace } from '../qemu/guest-place.ts';
import { lookUpDomain } from '../qemu/libvirt/domain.ts';
import type { GroupMember, SurrenderedGuest } from './operations.ts';
import type { ProtectedGuest } from './source-state.ts';

/** All names and paths by which it is known. */
export function placesOf({ name, qmpPath, members }: Pick<ProtectedGuest, 'name' | 'qmpPath'> & { readonly members?: readonly GroupMember[] | undefined }): string[] {
  return [name, ...(members === undefined ? [qmpPath] : members.flatMap((member) => [member.name, member.qmpPath]))];
}

export function qmpPathsOf({ qmpPath, members }: ProtectedGuest): string[] {
  return members?.map((member) => member.qmpPath) ?? [qmpPath];
}

export function placeOf({ disk, path, format, sizeBytes }: GuestImage): SurrenderedGuest['images'][number] {
  return { disk, path, format, sizeBytes };
}

/** Whether anything listens on a guest's QMP socket: what it says does not matter. Of a manager's guest, whether that says it runs; one that does not answer proves nothing. */
export async function isQemuThere(path: string): Promise<boolean> {
  try {
    const place = parsePlace(path);
    if (place?.kind === 'libvirt') return (await lookUpDomain(place.uri, place.domain)).domainId !== null;
    (await connectMonitor(path)).close();
    return true;
  } catch (error) {
    if (!isFault(error)) throw error;
    return error.code !== 'QMP_UNREACHABLE';
  }
}

/** Whether any of its guests' QEMUs is there; of no guest: false. */
export async function isRunningHere(guest: ProtectedGuest | undefined): Promise<boolean> {
  return guest !== undefined && (await Promise.all(qmpPathsOf(guest).map(isQemuThere))).includes(true);
}

/** The target that a guest came from, where there is no doubt. */
export function onlyOther(links: ReadonlyMap<string, unknown>, name: string): string | undefined {
  const others = [...links.keys()].filter((one) => one !== name);
  return others.length === 1 ? others[0] : undefined;
}
