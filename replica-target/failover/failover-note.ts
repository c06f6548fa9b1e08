/**
 * What a target notes of a failover of one group, in a file of its own: enough that a process that comes after a kill finds the guest, the hold
 * and the overlays, and knows what was asked. Reading and writing is failover.ts's.
 */
import { z } from 'zod';
import { pointKinds } from '../../journal/point.ts';
import { notedGuest } from './group-guests.ts';

const pointId = z.object({ term: z.number().int(), point: z.number().int() });

export const failoverNote = z.object({
  groupId: z.string(),
  group: z.string(),
  term: z.number().int(),
  point: pointId,
  /** Overlays, firmware variables, sockets and logs of this failover. */
  folder: z.string(),
  /** Empty until something was to be booted. */
  guests: z.array(notedGuest),
  startedAtMs: z.number(),
  /** Of the point, which may be given up once nothing depends on it. Null: nothing was booted yet. */
  facts: z.object({ kind: z.enum(pointKinds), cutAtMs: z.number(), arrivedAtMs: z.number(), changedBytes: z.number(), label: z.string().optional() }).nullable().default(null),
  /** Of a guest that was booted from a view. Null: from the replica. */
  view: z.object({
    /** Unique: by it a hold is found that was taken and not noted any more. */
    holdReason: z.string(),
    holdId: z.string().nullable(),
    isHome: z.boolean(),
    disks: z.array(z.object({ disk: z.number().int(), name: z.string(), sizeBytes: z.number().int(), exportName: z.string() })),
  }).nullable().default(null),
  /** Of a planned failover. `asked`: the guest stands ready and may not run before its source has let go of it. */
  handover: z.object({ id: z.string(), state: z.enum(['asked', 'taken']), stoppedAtMs: z.number() }).nullable().default(null),
  /** The source of this host follows what the guest writes; and whose the group was before. */
  adopted: z.object({ sourceId: z.string(), formerSourceId: z.string() }).nullable().default(null),
  /** It runs on its own old disks, in their own place, and not on overlays. */
  isHome: z.boolean().default(false),
  /** It was asked to be committed, and its data comes home. */
  isCommitting: z.boolean().default(false),
  /** What is done by itself, and when (wall clock). */
  decision: z.object({ act: z.enum(['commit', 'roll-back']), atMs: z.number() }).nullable().default(null),
});
export type FailoverNote = z.infer<typeof failoverNote>;
export type NotedView = NonNullable<FailoverNote['view']>;

/** The guest stands ready, and its source has not said yet that it let go of it. */
export function isAwaited({ handover }: FailoverNote): boolean {
  return handover?.state === 'asked';
}

/** It came home, and is its own source's again: that source alone says to the witness whether it runs, and when it is protected no more. */
export function isWithItsSource({ isHome, isCommitting, adopted }: FailoverNote): boolean {
  return isHome && !isCommitting && adopted !== null;
}
