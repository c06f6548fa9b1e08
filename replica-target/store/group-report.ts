/** What a group's store says of itself, put together from what its parts say. Only reads. */
import { comparePoints, type PointId } from '../../journal/point.ts';
import type { GroupHolding } from '../../journal/wire.ts';
import type { HistorySet } from '../points/history-set.ts';
import type { Retention } from '../points/retention.ts';
import type { GroupSuspicion } from '../suspicion/group-suspicion.ts';
import type { Applier } from './applier.ts';
import type { Catalog, PointFacts } from './catalog.ts';
import type { GroupFacts } from './group-facts.ts';
import type { Journal } from './journal.ts';
import { hexId, type Chain } from './record-order-plan.ts';
import type { Replica } from './replica.ts';
import type { SpaceWatch } from './space-watch.ts';
import type { GroupStoreReport, StoredPoint } from './store.ts';

export interface ReportedParts {
  readonly facts: GroupFacts;
  readonly newest: PointFacts | null;
  readonly applier: Applier;
  readonly catalog: Catalog;
  readonly history: HistorySet;
  readonly journal: Journal;
  readonly replica: Replica;
  readonly replicaBytes: number;
  readonly space: SpaceWatch;
  readonly retention: Retention | null;
  readonly nowMs: number;
  readonly suspicion: GroupSuspicion | null;
}

export function groupReport({ facts, newest, applier, catalog, history, journal, replica, replicaBytes, space, retention, nowMs, suspicion }: ReportedParts): GroupStoreReport {
  const { groupId, name, sourceId, state, term, rpoMs, seed, disks } = facts;
  const { applied } = applier;
  return {
    groupId, name, sourceId, state, term, rpoMs, seed, isReclaimed: facts.reclaimed !== null, formerSourceIds: facts.formerSourceIds,
    disks: disks.map((one) => ({ ...one, replicaPath: replica.path(one.disk), isAtApplied: applier.mark.disks.some(({ disk }) => disk === one.disk) })),
    newest: newest === null ? null : storedPoint(newest, applied),
    applied,
    apply: { pendingPoints: applier.pendingCount, lagMs: Math.max(0, nowMs - (applier.pendingSinceMs ?? nowMs)) },
    pointCount: catalog.pointCount,
    oldest: catalog.oldest === null ? null : storedPoint(catalog.oldest, applied),
    journalBytes: journal.bytes,
    historyBytes: history.totalBytes,
    replicaBytes,
    retention: retention?.report() ?? null,
    suspicion: suspicion?.report() ?? null,
    held: space.report(),
  };
}

export function storedPoint({ label, ...facts }: PointFacts, applied: PointId | null): StoredPoint {
  return { ...facts, isApplied: applied !== null && comparePoints(facts, applied) <= 0, ...(label === undefined ? {} : { label }) };
}

/** What the source is told of a group: nothing that is not durable. */
export function groupHolding({ groupId, term, seed, reclaimed }: GroupFacts, { newest, open }: Chain, applied: PointId | null): GroupHolding {
  return {
    group: groupId, term, newest, applied, seed, ...(seed === 'partial' && reclaimed?.point != null ? { images: reclaimed.point } : {}),
    open: open === null || open.parts === 0 ? null : { point: open.point, deltaId: hexId(open.deltaId), nextSequence: open.nextSequence, parts: open.parts },
  };
}
