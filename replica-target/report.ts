/** The target's one report. */
import type { GroupStoreReport } from './store/store.ts';

export interface ConnectedSource {
  readonly sourceId: string;
  readonly name: string;
  readonly address: string;
  readonly sinceMs: number;
  readonly receivedBytes: number;
}

export interface FailedOverGuest {
  readonly group: string;
  readonly term: number;
  readonly point: { readonly term: number; readonly point: number };
  readonly qmpPath: string;
  readonly pid: number | null;
  readonly isRunning: boolean;
  readonly startedAtMs: number;
}

export interface TargetReport {
  readonly role: 'target';
  readonly version: string;
  readonly atMs: number;
  readonly address: string;
  readonly fingerprint: string;
  readonly sources: readonly ConnectedSource[];
  readonly groups: readonly GroupStoreReport[];
  readonly failovers: readonly FailedOverGuest[];
  /** Refusals since start, by code. */
  readonly refusals: Readonly<Record<string, number>>;
  readonly memoryRssBytes: number;
}
