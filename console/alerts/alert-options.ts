/** What alerts are made of, where they go and when, as the config says; and what the parts here pass to each other. */

/** Of the highest severity: somebody has to act now. */
export type Severity = 'warning' | 'error';

/** Something that is wrong just now, found in a report. It becomes an alert when it has lasted for `forMs`. */
export interface Condition {
  /** One alert is one key, however long it lasts and whatever its message becomes. */
  readonly key: string;
  readonly code: string;
  readonly group: string | null;
  readonly severity: Severity;
  /** What happened, to which guest, for people. */
  readonly message: string;
  readonly forMs: number;
}

/** `repeated`: it still lasts. `test`: nothing has happened; somebody asked whether this arrives. */
export type NoticeEvent = 'raised' | 'repeated' | 'recovered' | 'test';

/** What is told of an alert; also its form in the body of a webhook and on a command's standard input. */
export interface Notice {
  /** The same for a notice that is delivered twice. */
  readonly id: string;
  readonly event: NoticeEvent;
  readonly code: string;
  readonly group: string | null;
  readonly severity: Severity;
  readonly message: string;
  /** What a person can do about it. */
  readonly advice: string;
  /** Wall clock, ms: when it began, and when this was made. */
  readonly sinceMs: number;
  readonly atMs: number;
}

/** Who says so. */
export interface AlertOrigin { readonly role: 'source' | 'target'; readonly name: string; readonly version: string }

/** One delivery: notices that came together go together. */
export interface Bulletin { readonly version: 1; readonly id: string; readonly sentAtMs: number; readonly from: AlertOrigin; readonly notices: readonly Notice[] }

export interface WebhookOptions {
  readonly url: string;
  /** Absolute; its content signs what is sent. Null: it is not signed. */
  readonly secretPath: string | null;
  /** Codes that go there. Null: all. */
  readonly codes: readonly string[] | null;
}

export interface EmailOptions {
  readonly host: string;
  readonly port: number;
  /** `starttls`: refuses a server without. `tls`: from the first byte. `none`: in the clear. */
  readonly tls: 'starttls' | 'tls' | 'none';
  readonly from: string;
  readonly to: readonly string[];
  /** Absolute, mode 0600; null: nobody logs in. */
  readonly userPath: string | null;
  readonly passwordPath: string | null;
  /** Absolute, PEM: who signs the server's certificate; null: whom the system trusts. */
  readonly caPath: string | null;
}

/** Minutes of the host's local day; a span over midnight belongs to the day on which it begins. */
export interface QuietHours {
  readonly fromMinute: number;
  readonly toMinute: number;
  /** 0: Sunday. */
  readonly days: readonly number[];
  /** Errors are told at once (`pass`), or kept until the hours end (`hold`) like warnings. */
  readonly errors: 'pass' | 'hold';
}

export interface AlertThresholds {
  /** How many times its objective the age of a group's newest point may be. */
  readonly rpoWarn: number;
  readonly rpoError: number;
  /** How long a source or target may be away. */
  readonly absentMs: number;
  /** How old the last passed rehearsal of a group may be; null: nothing is said of groups that never were rehearsed. */
  readonly provenMs: number | null;
  readonly certificateMs: number;
  /** A volume that will be full within this is told of. */
  readonly volumeFullMs: number;
}

export interface AlertOptions {
  readonly webhooks: readonly WebhookOptions[];
  readonly email: EmailOptions | null;
  readonly command: readonly string[] | null;
  readonly quietHours: QuietHours | null;
  /** Null: an alert that lasts is told of once. */
  readonly repeatEveryMs: number | null;
  /** How long it must be gone before it counts as over. */
  readonly settleMs: number;
  /** Asked for again and again while this daemon lives, so that what watches that address notices when it does not. */
  readonly heartbeat: { readonly url: string; readonly everyMs: number } | null;
  readonly thresholds: AlertThresholds;
}

export const defaultThresholds: AlertThresholds = { rpoWarn: 3, rpoError: 10, absentMs: 300_000, provenMs: null, certificateMs: 30 * 86_400_000, volumeFullMs: 86_400_000 };
export const settleMsDefault = 60_000;

/** What one way out answered to a test. */
export interface AlertTestResult { readonly channel: string; readonly isDelivered: boolean; /** For people. */ readonly answer: string; readonly tookMs: number }
