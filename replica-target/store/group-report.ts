/** What a group's store says of itself, put together from what its parts say. Only reads. */
import { comparePoints, type PointId } from '../../journal/point.ts';
import type { Applier } from './applier.ts';
import type { Catalog, PointFacts } from './catalog.ts';
import type { GroupFacts } from './group-facts.ts';
import type { Journal } from './journal.ts';
import type { Replica } from './replica.ts';
import type { SpaceWatch } from './space-watch.ts';
import type { GroupStoreReport, StoredPoint } from './store.ts';

export interface ReportedParts {
  readonly facts: GroupFacts;
  readonly newest: PointFacts | null;
  readonly applier: Applier;
  readonly catalog: Catalog;
  readonly journal: Journal;
  readonly replica: Replica;
  readonly replicaBytes: number;
  readonly space: SpaceWatch;
}

export function groupReport({ facts, newest, applier, catalog, journal, replica, replicaBytes, space }: ReportedParts): GroupStoreReport {
  const { groupId, name, sourceId, state, term, rpoMs, seed, disks } = facts;
  const { applied } = applier;
  return {
    groupId, name, sourceId, state, term, rpoMs, seed,
    disks: disks.map((one) => ({ ...one, replicaPath: replica.path(one.disk), isAtApplied: applier.mark.disks.some(({ disk }) => disk === one.disk) })),
    newest: newest === null ? null : storedPoint(newest, applied),
    applied,
    pointCount: catalog.pointCount,
    oldest: catalog.oldest === null ? null : storedPoint(catalog.oldest, applied),
    journalBytes: journal.bytes,
    historyBytes: catalog.historyBytes,
    replicaBytes,
    held: space.report(),
  };
}

export function storedPoint({ label, ...facts }: PointFacts, applied: PointId | null): StoredPoint {
  return { ...facts, isApplied: applied !== null && comparePoints(facts, applied) <= 0, ...(label === undefined ? {} : { label }) };
}
