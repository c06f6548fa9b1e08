/**
 * Lists what of one disk of a point has to be sent on, as runs that one record can hold. It asks the server that shows the point which of it is zero,
 * and reads no data.
 */
import type { Extent } from '../../journal/extents.ts';
import { zeroRunBytesMax } from '../../journal/limits.ts';
import type { NbdClient } from '../../qemu/nbd-client.ts';

export interface Piece {
  readonly client: NbdClient;
  readonly disk: number;
  readonly offset: number;
  readonly length: number;
  readonly isZero: boolean;
}

/** "NBD_STATE_ZERO (bit 1)", of base:allocation. */
const zeroFlag = 2;

/** In order, as `extents` are. `bytesMax`: of a run that is not zero. */
export async function piecesOf(client: NbdClient, disk: number, extents: readonly Extent[], bytesMax: number): Promise<Piece[]> {
  const pieces: Piece[] = [];
  for (const { start, end } of extents) {
    for await (const { offset: from, length: extentBytes, flags } of client.extents('base:allocation', { offset: start, length: end - start })) {
      const isZero = (flags & zeroFlag) !== 0;
      const step = isZero ? zeroRunBytesMax : bytesMax;
      for (let at = 0; at < extentBytes; at += step) pieces.push({ client, disk, offset: from + at, length: Math.min(step, extentBytes - at), isZero });
    }
  }
  return pieces;
}
