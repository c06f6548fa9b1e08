/** What a source answers; for the document. Members may be added, so every object is open. */
import { z } from 'zod';
import { pointKinds } from '../../../journal/point.ts';
import { count, faultNote, instant, ms } from './point-shapes.ts';

export const markedPointShape = z.looseObject({
  term: count, point: count, kind: z.enum(pointKinds), cutAtMs: instant, label: z.string().optional(), isAppWanted: z.boolean(), reason: z.looseObject({ code: z.string(), message: z.string() }).nullable(),
});

export const guestShape = z.looseObject({
  name: z.string(), groupId: z.string(), qmpPath: z.string(), members: z.array(z.looseObject({ name: z.string(), qmpPath: z.string() })).optional(), target: z.string(), term: count, rpoMs: ms,
  phase: z.string(), detail: z.string(), phaseSinceMs: instant, disks: z.array(z.looseObject({ disk: count, name: z.string(), sizeBytes: count })),
  newestPoint: z.looseObject({ term: count, point: count, cutAtMs: instant }).nullable(),
  clocks: z.looseObject({ capturedMs: ms.nullable(), receivedMs: ms.nullable(), appliedMs: ms.nullable(), newestPointMs: ms.nullable() }),
  behindBytes: count,
  pass: z.looseObject({ doneBytes: count, totalBytes: count, rateBytesPerSecond: count, isPaused: z.boolean(), startedAtMs: instant, sentBytes: count }).nullable(),
  capture: z.looseObject({ capture: z.enum(['cbt', 'writelog']), captureWhy: z.string() }).nullable(),
  rpo: z.looseObject({ samples: count, p50Ms: ms.nullable(), p99Ms: ms.nullable(), maxMs: ms.nullable() }),
  lastFault: faultNote.nullable(), fullPasses: count, marked: markedPointShape.nullable(),
  lease: z.looseObject({ state: z.string(), why: z.string(), isStopped: z.boolean() }).optional(),
});

export const sourceReportShape = z.looseObject({
  role: z.literal('source'), sourceId: z.string(), version: z.string(), atMs: instant,
  targets: z.array(z.looseObject({
    name: z.string(), address: z.string(), compression: z.looseObject({ isOn: z.boolean(), why: z.string(), ratio: z.number() }),
    state: z.enum(['down', 'connecting', 'up']), sinceMs: instant, lastFault: faultNote.nullable(), sentBytes: count, reconnects: count,
  })),
  guests: z.array(guestShape), relays: z.array(guestShape), memoryRssBytes: count,
});

export const pairedTargetShape = z.looseObject({ name: z.string(), address: z.string(), fingerprint: z.string() });
export const protectedShape = z.looseObject({ name: z.string(), groupId: z.string(), target: z.string() });
export const surrenderedShape = z.looseObject({
  guest: z.looseObject({
    point: z.looseObject({ term: count, point: count }).nullable(),
    images: z.array(z.looseObject({ disk: count, path: z.string(), format: z.string(), sizeBytes: count })),
  }).nullable(),
});
