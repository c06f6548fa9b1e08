/** One way out for alerts. Its name is for people, in logs and answers: it holds no secret, and of a URL only the host, for the rest of one may be a secret. */
import type { Bulletin, Notice } from './alert-options.ts';

export interface AlertChannel {
  /** The same from start to start, for what still waits for it. */
  readonly name: string;
  takes(notice: Pick<Notice, 'code' | 'event'>): boolean;
  /** Resolves with what the other side said. Fault ALERT_UNDELIVERED, CONFIG_INVALID (a file of secrets). Within its own limit of time. */
  send(bulletin: Bulletin, signal: AbortSignal): Promise<string>;
}
