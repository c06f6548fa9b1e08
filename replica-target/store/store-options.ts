/** What can be set of a group's store, and what it is unless it is. */
import type { RetentionPolicy } from '../points/retention-plan.ts';
import { batchPointsMax, batchRecordsMax, planRecordsMax, planRegionBytes, segmentBytes } from '../../journal/limits.ts';

export interface StoreOptions {
  readonly segmentBytes: number;
  /** Ingest stops, with STORE_FULL, before less than this is free. */
  readonly freeBytesMin: number;
  /** What is kept of a group of this name; null: all of the history, and as much of the journal as the next says. */
  readonly retentionOf: ((group: string) => RetentionPolicy) | null;
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
  journalKeepBytes: 256 * 1024 * 1024,
  /** This bounds how long a batch takes, and the history written at once. */
  batchBytes: 64 * 1024 * 1024,
  batchRecords: batchRecordsMax,
  batchPoints: batchPointsMax,
  planRecords: planRecordsMax,
  planRegionBytes,
  isApplierStalled: false,
};
