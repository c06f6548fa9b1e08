/** Points, as they are answered; for the document. Members may be added, so every object is open. */
import { z } from 'zod';
import { pointKinds } from '../../../journal/point.ts';

export const count = z.number().int().nonnegative();
/** Wall clock, ms since 1970. */
export const instant = z.number().meta({ description: 'wall clock, ms since 1970' });
export const ms = z.number().meta({ description: 'ms' });

export const pointIdShape = z.looseObject({ term: count, point: count });
export const faultNote = z.looseObject({ code: z.string(), message: z.string(), atMs: instant });

export const storedPointShape = z.looseObject({
  term: count, point: count, kind: z.enum(pointKinds), cutAtMs: instant, arrivedAtMs: instant, changedBytes: count, isApplied: z.boolean(),
  label: z.string().optional(), frozenMs: ms.optional(),
});
export const restorePointShape = storedPointShape.extend({ isHeld: z.boolean(), keptBy: z.string(), provenAtMs: instant.optional() });

export const holdShape = z.looseObject({ holdId: z.string(), point: pointIdShape, reason: z.string(), takenAtMs: instant, untilMs: instant.nullable() });

const rangeEnd = z.looseObject({ point: z.string(), cutAtMs: instant });
export const timelineShape = z.looseObject({
  group: z.string(), groupId: z.string(), atMs: instant,
  ranges: z.array(z.looseObject({ keptBy: z.string(), from: rangeEnd, to: rangeEnd, pointCount: count })),
  points: z.array(restorePointShape).meta({ description: 'newest last' }), holds: z.array(holdShape),
});

export const descriptionShape = z.looseObject({
  group: z.string(), groupId: z.string(), point: restorePointShape,
  disks: z.array(z.looseObject({ disk: count, name: z.string(), sizeBytes: count, exportName: z.string() })),
  hardware: z.record(z.string(), z.unknown()),
});
export const heldPointShape = descriptionShape.extend({ hold: holdShape });

export const findingShape = z.looseObject({
  path: z.string(), offset: count, detail: z.string(), disk: count.nullable(),
  touched: z.looseObject({ count, oldest: z.string().nullable(), newest: z.string().nullable() }),
});
export const verificationShape = z.looseObject({
  startedAtMs: instant, endedAtMs: instant, journalBytes: count, historyBytes: count, replicaBytes: count, replicaComparedBytes: count,
  read: z.looseObject({ point: z.string(), bytes: count }).nullable(), findings: z.array(findingShape), findingsLeftOff: count,
  points: z.looseObject({ count, goodCount: count, newestGood: z.string().nullable() }),
});

export const changesShape = z.array(z.looseObject({ disk: count, extents: z.array(z.looseObject({ start: count, end: count })) }));

export const suspicionFlagShape = z.looseObject({ first: pointIdShape, before: pointIdShape.nullable(), bytes: count, kind: z.string(), sinceMs: instant });
