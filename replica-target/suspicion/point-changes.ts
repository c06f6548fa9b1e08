/** What a point changed, as it was seen when it was applied: measured bytes and extents, and what samples say of the content. */
import { z } from 'zod';

const count = z.number().nonnegative();

/** Bytes are estimates from samples, but for the first three. Kept in `suspicion.json` under these names. */
export const pointChanges = z.object({
  /** After coalescing with the points that were applied together; zeroes (discards) apart. */
  bytes: count,
  zeroedBytes: count,
  extents: count,
  /** What the records of `bytes` took as they came, compressed or not as the link had it. */
  recordBytes: count,
  sampledBlocks: count,
  /** Of `bytes`: what is as it was. A source that tracks changes in 64 KiB sends the unchanged neighbours of each changed block. */
  sameBytes: count.default(0),
  /** Of `bytes`: what looks like noise now. */
  noiseBytes: count,
  /** What had structure and is noise now; and what had not, or was blank, and is noise now. */
  turnedBytes: count,
  freshBytes: count,
  /** What had structure and is blank now. */
  wipedBytes: count,
  /** Chi-square of all sampled bytes of `turnedBytes`, and how many there were; the same of `freshBytes`. */
  turnedChi: count, turnedPooled: count,
  /** Of `turnedBytes`: first blocks, those with a neighbour before them that is as it was. As many pieces of the disk turned, each by itself. */
  firstBytes: count.default(0), firstChi: count.default(0), firstPooled: count.default(0),
  freshChi: count, freshPooled: count,
});
export type PointChanges = z.infer<typeof pointChanges>;

/** What is shown of it (`afterimage points GUEST --json`). Members are added, never changed. */
export interface ShownChanges {
  /** Sent; the shares below are of what differs from what was there. */
  readonly bytes: number;
  readonly extents: number;
  /** Given back by the guest, or overwritten with zeroes. */
  readonly zeroedBytes: number;
  /** Share of the changed bytes that cannot be compressed; null: too little was sampled. */
  readonly incompressibleShare: number | null;
  /** Share that could be compressed before and cannot any more. */
  readonly turnedShare: number | null;
  /** What the records took for each byte, as they came; null without bytes. */
  readonly compressedTo: number | null;
}

export function shownChanges({ bytes, zeroedBytes, extents, recordBytes, sampledBlocks, sameBytes, noiseBytes, turnedBytes }: PointChanges): ShownChanges {
  const differing = bytes - sameBytes;
  const share = (of: number): number | null => (sampledBlocks === 0 || differing <= 0 ? null : Math.min(1, Math.round((of / differing) * 1000) / 1000));
  return { bytes, extents, zeroedBytes, incompressibleShare: share(noiseBytes), turnedShare: share(turnedBytes), compressedTo: bytes === 0 ? null : Math.round((recordBytes / bytes) * 1000) / 1000 };
}
