/** What routes may use beside the role's operations: what the API itself keeps. */
import type { AuditEntry, TrailReading } from '../../host/audit-format.ts';
import type { AlertTestResult } from '../alerts/alert-options.ts';
import type { OperatorTokens } from './operator-tokens.ts';
import type { Tickets } from './tickets.ts';

export interface ApiServices {
  readonly role: 'source' | 'target';
  /** The release. */
  readonly version: string;
  readonly tokens: OperatorTokens;
  readonly tickets: Tickets;
  /** The audit trail, the newest entries of it oldest first; null: this daemon keeps none. */
  readonly readTrail: ((countMax: number) => Promise<{ readonly reading: TrailReading; readonly entries: readonly AuditEntry[] }>) | null;
  /** Tries each way out of alerts that the config names; null: this daemon sends none. */
  readonly testAlerts: (() => Promise<readonly AlertTestResult[]>) | null;
  /** The OpenAPI document of this role. */
  document(): unknown;
}
