/** What a group's store needs, what can be set of it, and what that is unless it is. */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import type { Random } from '../../host/random.ts';
import type { RetentionPolicy } from '../points/retention-plan.ts';
import { batchPointsMax, batchRecordsMax, planRecordsMax, planRegionBytes, segmentBytes } from '../../journal/limits.ts';
import type { SuspicionPolicy } from '../suspicion/suspicion-plan.ts';
import type { CatalogLevel } from './catalog.ts';
import type { OldImages } from './reclaimed-images.ts';

export interface StoreOptions {
  readonly segmentBytes: number;
  /** Ingest stops, with STORE_FULL, before less than this is free. */
  readonly freeBytesMin: number;
  /** What is kept of a group of this name; null: all of the history, and as much of the journal as the next says. */
  readonly retentionOf: ((group: string) => RetentionPolicy) | null;
  /** How the changes of a group of this name are looked at, and what draws which of them; null: they are not. */
  readonly suspicion: { readonly of: (group: string) => SuspicionPolicy; readonly random: Random } | null;
  /** Without retention: applied journal that is kept, for points inside applied batches. */
  readonly journalKeepBytes: number;
  /** Changed bytes that are applied at once; one point may have more. */
  readonly batchBytes: number;
  /** Records that are applied at once; one point may have more. */
  readonly batchRecords: number;
  readonly batchPoints: number;
  /** Records that one plan of what to apply may hold; a delta that has more is applied by slices of its disks. */
  readonly planRecords: number;
  /** Such a slice is one or more of these. */
  readonly planRegionBytes: number;
  /** Applies nothing but what a failover or a comparison needs. For tests of long backlogs. */
  readonly isApplierStalled: boolean;
}

export const defaultOptions: StoreOptions = {
  segmentBytes,
  freeBytesMin: 0,
  retentionOf: null,
  suspicion: null,
  journalKeepBytes: 256 * 1024 * 1024,
  /** This bounds how long a batch takes, and the history written at once. */
  batchBytes: 64 * 1024 * 1024,
  batchRecords: batchRecordsMax,
  batchPoints: batchPointsMax,
  planRecords: planRecordsMax,
  planRegionBytes,
  isApplierStalled: false,
};

export interface GroupStoreDeps {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly level: (path: string) => CatalogLevel;
  readonly log: Logger | null;
  readonly options: StoreOptions;
  /** Old disks of a group's guest that this host has; absent, or null: none. */
  readonly reclaim?: (groupId: string, term: number) => Promise<OldImages | null>;
}
