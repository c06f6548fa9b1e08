/**
 * Notices when somebody sets the wall clock, by how far it and the monotonic clock drift apart from one look to the next, and notes it in the audit trail: locks do not go by it, but points
 * bear its time, and whoever sets clocks on a target wants something. Small steps, as of a clock that is being disciplined, are not noted. It sets nothing right.
 */
import type { AuditNoter } from './audit-trail.ts';
import type { Clock } from './clock.ts';

const lookMs = 10_000;
/** Clocks are slewed by 0.5 ms a second at most; a step of this much was set by somebody, or by a time service that had lost it. */
const jumpMsMin = 2_000;

export class ClockWatch {
  readonly #clock: Clock;
  readonly #audit: AuditNoter;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #offsetMs: number;

  constructor(clock: Clock, audit: AuditNoter) {
    this.#clock = clock;
    this.#audit = audit;
    this.#offsetMs = this.#offset();
  }

  start(): void {
    this.#running = this.#run();
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('no longer watched'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    for (;;) {
      try {
        await this.#clock.delay(lookMs, signal);
      } catch (error) {
        if (!signal.aborted) throw error;
        return;
      }
      const offsetMs = this.#offset();
      const byMs = Math.round(offsetMs - this.#offsetMs);
      this.#offsetMs = offsetMs;
      if (Math.abs(byMs) >= jumpMsMin) await this.#audit.note({ who: { kind: 'itself' }, act: 'clock-jump', on: null, what: { byMs }, outcome: 'done' });
    }
  }

  #offset(): number {
    return this.#clock.nowMs() - this.#clock.monotonicMs();
  }
}
