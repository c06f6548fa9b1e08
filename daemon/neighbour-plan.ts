/**
 * What the target of this host may have the source do when it runs as a user of its own: follow the guests that it has started, and nothing else. Whoever has taken that user over
 * must not get more of the host through a source that runs as root. Pure; what is bounded here is held to by whoever connects (host/node/listener.ts) and reads
 * (qemu/hardware-files.ts). Invariants: every place that it names is one where a process of that user has to listen; no guest that it did not start stops being followed by its
 * word, unless that guest is known to be live elsewhere, or was protected to that very target and does not run.
 */
import { isAbsolute } from 'node:path';
import { ofListener } from '../host/listener-path.ts';
import { Fault } from '../journal/fault.ts';
import { readToken } from '../journal/identity.ts';
import { parsePlace } from '../qemu/guest-place.ts';
import type { AdoptRequest, Neighbour } from './operations.ts';
import type { ProtectedGuest } from './source-state.ts';

export interface NeighbourFacts {
  readonly guests: readonly ProtectedGuest[];
  /** Whether there is, or was, a pairing with a target of that name. */
  readonly isTargetKnown: (name: string) => boolean;
  /** Whether the QEMU of the guest that has the request's name runs here. */
  readonly isRunning: boolean;
}

/** The request as it may be carried out. Faults: ADOPTION_REFUSED, GUEST_TAKEN; PAIRING_TOKEN. */
export function boundAdoption(request: AdoptRequest, from: Neighbour, { guests, isTargetKnown, isRunning }: NeighbourFacts): AdoptRequest {
  const { name, groupId, qmpPath, members, target, points, token } = request;
  const refuse = (why: string): Fault => new Fault('ADOPTION_REFUSED', `${name} is not followed by word of user ${from.uid}: ${why}`, { name, uid: from.uid });
  const ofUser = (path: string): string => {
    if (!isAbsolute(path)) throw refuse(`${path} is no path of a socket`);
    return ofListener(path, from.uid);
  };
  if (target !== null && target.name !== from.targetName) throw refuse(`its target is ${from.targetName}, not ${target.name}`);
  if (token !== null) {
    const { targetName, fingerprint } = readToken(token);
    if (target === null || targetName !== target.name || fingerprint !== target.fingerprint) throw refuse('the token is of another target');
    // Also of one that a person revoked: it is for a person to pair with it again.
    if (isTargetKnown(targetName)) throw refuse(`the pairing with ${targetName} is another already: pair by hand (afterimage pair)`);
  }
  const namesake = guests.find((guest) => guest.groupId === groupId && guest.name !== name);
  if (namesake !== undefined) throw new Fault('GUEST_TAKEN', `this group is followed here as ${namesake.name}`, { name: namesake.name });
  const before = guests.find((guest) => guest.name === name);
  if (before !== undefined && !isOf(before, from)) {
    const isElsewhere = before.handover?.state === 'relinquished' || before.supersededBy !== undefined;
    if (!isElsewhere && (target === null || before.target !== target.name)) throw refuse(`it is protected here, to ${before.target}, and was not handed over`);
    if (!isElsewhere && isRunning) throw refuse('it runs here, where it was protected');
  }
  return {
    ...request, qmpPath: ofUser(qmpPath), ...(members === undefined ? {} : { members: members.map((member) => ({ name: member.name, qmpPath: ofUser(member.qmpPath) })) }),
    points: points === null ? null : { nbdPath: ofUser(points.nbdPath), controlPath: ofUser(points.controlPath) },
  };
}

/** Fault ADOPTION_REFUSED: another than that user has it followed. */
export function boundAbandon(guest: ProtectedGuest, from: Neighbour): void {
  if (!isOf(guest, from)) throw new Fault('ADOPTION_REFUSED', `${guest.name} is followed here, and not by word of user ${from.uid}`, { name: guest.name, uid: from.uid });
}

function isOf({ qmpPath }: ProtectedGuest, { uid }: Neighbour): boolean {
  const place = parsePlace(qmpPath);
  return place?.kind === 'socket' && place.uid === uid;
}
