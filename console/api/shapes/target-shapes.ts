/** What a target answers; for the document. Members may be added, so every object is open. */
import { z } from 'zod';
import { rehearsalReport } from '../../../replica-target/failover/rehearsal-report.ts';
import { rotationShape } from './certificate-shapes.ts';
import { count, faultNote, findingShape, instant, ms, pointIdShape, restorePointShape, storedPointShape } from './point-shapes.ts';

const verdict = z.enum(['fine', 'warning', 'refused']);
export const startReportShape = z.looseObject({
  group: z.string(), atMs: instant, verdict, accel: z.enum(['kvm', 'tcg']), network: z.string(),
  findings: z.array(z.looseObject({ check: z.string(), verdict, found: z.string(), advice: z.string() })),
});

export const groupShape = z.looseObject({
  groupId: z.string(), name: z.string(), sourceId: z.string(), formerSourceIds: z.array(z.string()), state: z.enum(['protected', 'failed-over', 'committed']),
  term: count, rpoMs: ms, seed: z.enum(['none', 'partial', 'done']), isReclaimed: z.boolean(),
  disks: z.array(z.looseObject({ disk: count, name: z.string(), sizeBytes: count, replicaPath: z.string(), isAtApplied: z.boolean() })),
  newest: storedPointShape.nullable(), applied: pointIdShape.nullable(), oldest: storedPointShape.nullable(), pointCount: count,
  journalBytes: count, historyBytes: count, replicaBytes: count, retention: z.record(z.string(), z.unknown()).nullable(),
  held: z.looseObject({ code: z.string(), sinceMs: instant, message: z.string() }).nullable(),
});

const bootedGuest = z.looseObject({ name: z.string(), qmpPath: z.string(), logPath: z.string(), pid: count.nullable(), isRunning: z.boolean() });
const failedOverShape = z.looseObject({
  group: z.string(), term: count, point: pointIdShape, guests: z.array(bootedGuest), isRunning: z.boolean(), startedAtMs: instant, isAwaited: z.boolean(), isCommitting: z.boolean(),
  decision: z.looseObject({ act: z.enum(['commit', 'roll-back']), atMs: instant }).nullable(),
  home: z.looseObject({ state: z.enum(['streaming', 'waiting', 'home']), doneBytes: count, totalBytes: count }).nullable(),
});
const testShape = z.looseObject({
  group: z.string(), point: pointIdShape, cutAtMs: instant, guests: z.array(bootedGuest), isRunning: z.boolean(), startedAtMs: instant, endsAtMs: instant, budgetBytes: count, usedBytes: count, network: z.string(),
});
const endedTestShape = z.looseObject({ group: z.string(), point: pointIdShape, endedAtMs: instant, why: z.string() });
export const rehearsalShape = z.looseObject({ ...rehearsalReport.shape, folder: z.string() });
const checksShape = z.looseObject({ group: z.string(), lastAtMs: instant.nullable(), findingCount: count, findings: z.array(findingShape), underWay: z.looseObject({ sinceMs: instant, doneBytes: count, totalBytes: count }).nullable() });

export const targetReportShape = z.looseObject({
  role: z.literal('target'), version: z.string(), atMs: instant, address: z.string(), fingerprint: z.string(),
  sources: z.array(z.looseObject({ sourceId: z.string(), name: z.string(), address: z.string(), sinceMs: instant, receivedBytes: count })),
  groups: z.array(groupShape), failovers: z.array(failedOverShape), tests: z.array(testShape), endedTests: z.array(endedTestShape),
  rehearsals: z.array(rehearsalShape).optional(), checks: z.array(checksShape).optional(), startChecks: z.array(startReportShape).optional(),
  automatic: z.array(z.looseObject({ group: z.string(), afterMs: ms, why: z.string(), unheldMs: ms.nullable(), lastFault: faultNote.nullable() })).optional(),
  nbd: z.looseObject({ socketPath: z.string(), address: z.string().nullable(), clients: z.record(z.string(), count), viewCount: count, readBytes: count, failedRequests: count }),
  refusals: z.record(z.string(), count), memoryRssBytes: count,
});

/** All that the report says of one group. */
export const groupDetailShape = z.looseObject({
  group: groupShape, failover: failedOverShape.nullable(), test: testShape.nullable(), endedTest: endedTestShape.nullable(),
  rehearsal: rehearsalShape.nullable(), checks: checksShape.nullable(), startCheck: startReportShape.nullable(),
});

const startedGuest = z.looseObject({ name: z.string(), qmpPath: z.string(), pid: count, logPath: z.string() });
export const failoverResultShape = z.looseObject({
  group: z.string(), term: count, point: storedPointShape, lostMs: ms, rtoMs: ms, guests: z.array(startedGuest), accel: z.enum(['kvm', 'tcg']), overlayPaths: z.array(z.string()),
  downtimeMs: ms.optional(), isComingHome: z.boolean(), startCheck: startReportShape.nullable().optional(),
});
export const testResultShape = z.looseObject({
  group: z.string(), point: storedPointShape, rtoMs: ms, ageMs: ms, endsAtMs: instant, budgetBytes: count, guests: z.array(startedGuest), accel: z.enum(['kvm', 'tcg']), network: z.string(),
  startCheck: startReportShape.nullable().optional(),
});
export const runbookShape = z.looseObject({
  group: z.string(), atMs: instant, isPlanned: z.boolean(), point: restorePointShape.nullable(), lostMs: ms.nullable(), steps: z.array(z.looseObject({ step: z.string(), tookMs: ms.nullable() })), obstacles: z.array(z.string()),
  measured: z.looseObject({ atMs: instant, point: z.string(), isPassed: z.boolean() }).nullable(),
});
export const invitationShape = z.looseObject({ token: z.string(), address: z.string(), fingerprint: z.string(), expiresAtMs: instant });
export const targetPairingsShape = z.looseObject({ certificate: rotationShape, sources: z.array(z.looseObject({ name: z.string(), sourceId: z.string() })) });

export const shownGuestsShape = z.looseObject({
  items: z.array(z.looseObject({
    name: z.string(), screenPng: z.string().nullable().meta({ description: 'PNG, base64; null: there is none, for screenWhy' }), screenWhy: z.string(), serial: z.string().meta({ description: 'the end of what the guest said on its first serial port' }),
  })),
});
