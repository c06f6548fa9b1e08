/**
 * Payloads of the records that frame a delta: `open`, `part`, `seal` (FORMAT.md, "Delta"). JSON, because they
 * are small, few, and the place where later versions add facts; unknown members are kept out of decisions.
 */
import { z } from 'zod';
import { diskBytesMax, diskCountMax, labelCharactersMax, sectorBytes, timeMsMax } from './limits.ts';
import { pointKinds } from './point.ts';

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const pointId = z.object({ term: count.max(0xffffffff), point: count });
const diskSize = z.object({ disk: z.number().int().min(0).max(diskCountMax - 1), sizeBytes: count.max(diskBytesMax).multipleOf(sectorBytes) });

/**
 * Of a point for which the guest was to freeze its file systems, all in ms. `frozenMs`: from the sending of the freeze to the
 * answer to the thaw, so that the guest stood still no longer than that; within it `freezeMs` until the freeze was answered, and
 * `thawMs` from the sending of the thaw. `notApp`: the code of the fault for which the point is no `app` point though it was to be.
 */
export const freezeFacts = z.object({
  frozenMs: count.optional(), freezeMs: count.optional(), thawMs: count.optional(), notApp: z.string().max(40).optional(),
});
export type FreezeFacts = z.infer<typeof freezeFacts>;

/**
 * Of a point of several guests, ms. `pausedMs`: they were cut at one instant, for which all of them were stopped, no longer than that. `spreadMs`: each
 * was cut by itself, all within this time: between two of them the point is of no one instant.
 */
export const jointFacts = z.object({ pausedMs: count.optional(), spreadMs: count.optional() });
export type JointFacts = z.infer<typeof jointFacts>;

/** What a seal says of how its point came about. */
export const cutFacts = z.object({ ...freezeFacts.shape, ...jointFacts.shape });
export type CutFacts = z.infer<typeof cutFacts>;

/** `base`: the newest sealed point that this delta follows; null for the first point of a group. */
export const openPayload = z.object({ base: pointId.nullable() });
/** `part`: 1 for the first durable part of this delta, and so on. */
export const partPayload = z.object({ part: count.min(1) });
/**
 * `records`: how many records the delta has, this one included. `cutAtMs`: the source's wall clock at the cut, ms
 * since 1970. `disks`: each disk's size at the cut. `changedBytes`: bytes of all runs.
 */
export const sealPayload = z.object({
  base: pointId.nullable(),
  kind: z.enum(pointKinds),
  cutAtMs: count.max(timeMsMax),
  records: count.min(2),
  changedBytes: count,
  disks: z.array(diskSize).min(1).max(diskCountMax),
  label: z.string().max(labelCharactersMax).optional(),
  ...cutFacts.shape,
});

export type OpenPayload = z.infer<typeof openPayload>;
export type PartPayload = z.infer<typeof partPayload>;
export type SealPayload = z.infer<typeof sealPayload>;

export function encodePayload(payload: OpenPayload | PartPayload | SealPayload): Buffer {
  return Buffer.from(JSON.stringify(payload), 'utf8');
}

/** Undefined when the bytes are not JSON of the given shape: the caller refuses the record by name. */
export function decodePayload<T>(schema: z.ZodType<T>, bytes: Uint8Array): T | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
  const parsed = schema.safeParse(value);
  return parsed.success ? parsed.data : undefined;
}
