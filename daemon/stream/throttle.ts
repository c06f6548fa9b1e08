/**
 * The rate limits of a source, at the door through which records leave (outbox.ts): a bucket of tokens for each limit, that fills
 * at its rate while it is in force. A record may leave when no limit that it falls under is in debt, and is then taken off all of
 * them, whole: so a record that is larger than a bucket passes too, and what follows waits the longer. Messages other than records,
 * heartbeats and acknowledgements are never held. All outboxes of a source share the buckets.
 */
import type { Clock } from '../../host/clock.ts';
import { appliesTo, limitState, type LimitState, type RateLimit } from './throttle-plan.ts';

/** What may leave at once after a pause: a tenth of a second's worth, and at least one small message, bytes. */
const burstSeconds = 0.1;
const burstBytesMin = 64 * 1024;
/** How long what is known of the hours is believed, ms. */
const lookMs = 1_000;

/** What an outbox asks before a record leaves. */
export interface OutboxGate {
  /** How long a record of this group has to wait, ms; 0: it may leave. To be asked again then, or sooner. */
  waitMs(groupId: string): number;
  took(groupId: string, bytes: number): void;
  delay(ms: number, signal: AbortSignal): Promise<void>;
}

export interface LimitReport {
  readonly target: string | null;
  readonly group: string | null;
  readonly rateBytesPerSecond: number;
  readonly isInForce: boolean;
  /** When it ends, or begins; null: never. Wall clock, ms. */
  readonly untilMs: number | null;
  /** Something waits for it now. */
  readonly isHolding: boolean;
  /** Since this process started: for how long something waited for it, and what went under it. */
  readonly heldMs: number;
  readonly passedBytes: number;
}

class Bucket {
  readonly limit: RateLimit;
  readonly #clock: Clock;
  #state: LimitState = { isInForce: false, untilMs: null };
  #lookedMs = -Infinity;
  #tokens: number;
  #filledMs: number;
  #holdingSinceMs: number | null = null;
  /** Whoever waits asks again within {@link lookMs}; who does not has given up, or its session is over. */
  #askedMs = 0;
  #heldMs = 0;
  #passedBytes = 0;

  constructor(limit: RateLimit, clock: Clock) {
    this.limit = limit;
    this.#clock = clock;
    this.#tokens = this.#burstBytes;
    this.#filledMs = clock.monotonicMs();
  }

  waitMs(): number {
    const nowMs = this.#fill();
    if (nowMs - this.#askedMs > 2 * lookMs) this.#released(this.#askedMs);
    this.#askedMs = nowMs;
    if (this.#look(nowMs) && this.#tokens <= 0) {
      this.#holdingSinceMs ??= nowMs;
      return Math.max(1, Math.min(lookMs, Math.ceil((-this.#tokens * 1000) / this.limit.rateBytesPerSecond) + 1));
    }
    this.#released(nowMs);
    return 0;
  }

  took(bytes: number): void {
    if (!this.#look(this.#fill())) return;
    this.#tokens -= bytes;
    this.#passedBytes += bytes;
  }

  report(): LimitReport {
    const nowMs = this.#clock.monotonicMs();
    const { target, group, rateBytesPerSecond } = this.limit;
    this.#look(nowMs);
    if (nowMs - this.#askedMs > 2 * lookMs) this.#released(this.#askedMs);
    return {
      target: target ?? null, group: group ?? null, rateBytesPerSecond, ...this.#state, isHolding: this.#holdingSinceMs !== null,
      heldMs: Math.round(this.#heldMs + (this.#holdingSinceMs === null ? 0 : nowMs - this.#holdingSinceMs)), passedBytes: this.#passedBytes,
    };
  }

  get #burstBytes(): number { return Math.max(burstBytesMin, this.limit.rateBytesPerSecond * burstSeconds); }

  #released(nowMs: number): void {
    if (this.#holdingSinceMs === null) return;
    this.#heldMs += nowMs - this.#holdingSinceMs;
    this.#holdingSinceMs = null;
  }

  #fill(): number {
    const nowMs = this.#clock.monotonicMs();
    this.#tokens = Math.min(this.#burstBytes, this.#tokens + ((nowMs - this.#filledMs) * this.limit.rateBytesPerSecond) / 1000);
    this.#filledMs = nowMs;
    return nowMs;
  }

  #look(nowMs: number): boolean {
    if (nowMs - this.#lookedMs >= lookMs) {
      this.#state = limitState(this.limit, this.#clock.nowMs());
      this.#lookedMs = nowMs;
    }
    return this.#state.isInForce;
  }
}

export class Throttle {
  readonly #buckets: readonly Bucket[];
  readonly #clock: Clock;
  readonly #nameOf: (groupId: string) => string | null;

  /** `nameOf`: a group's name; null when it is not known here. */
  constructor(limits: readonly RateLimit[], clock: Clock, nameOf: (groupId: string) => string | null) {
    this.#buckets = limits.map((limit) => new Bucket(limit, clock));
    this.#clock = clock;
    this.#nameOf = nameOf;
  }

  /** For the outboxes of one target; null: nothing limits them. */
  gate(target: string): OutboxGate | null {
    const buckets = this.#buckets.filter(({ limit }) => limit.target === undefined || limit.target === target);
    if (buckets.length === 0) return null;
    const of = (groupId: string): readonly Bucket[] => { const group = this.#nameOf(groupId); return buckets.filter(({ limit }) => appliesTo(limit, target, group)); };
    return {
      waitMs: (groupId) => of(groupId).reduce((longest, bucket) => Math.max(longest, bucket.waitMs()), 0),
      took: (groupId, bytes) => { for (const bucket of of(groupId)) bucket.took(bytes); },
      delay: (ms, signal) => this.#clock.delay(ms, signal),
    };
  }

  report(): readonly LimitReport[] {
    return this.#buckets.map((bucket) => bucket.report());
  }
}
