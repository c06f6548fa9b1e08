/**
 * Sockets of one user's alone. A daemon that runs as root and connects to a unix socket whose path somebody else gave it would lend them its rights: the path may lead, now or
 * later, to a socket that they could not open themselves. So it goes by who listens, as the kernel noted it at listen(2) (unix(7), SO_PEERCRED), not by path, owner or mode.
 * Invariant: nothing is sent to a listener of another user.
 */
import type { Socket } from 'node:net';
import { uidMax } from '../listener-path.ts';
import { peerOfSocket } from './libc.ts';

/** Who listens at the other end of a socket that has just connected, if that is not who it has to be; null: it is. */
export function foreignListener(socket: Socket, uid: number | undefined): number | null {
  if (uid === undefined) return null;
  const found = peerOfSocket(socket)?.uid ?? uidMax + 1;
  return found === uid ? null : found;
}
