/**
 * The report, looked at once a second while somebody listens: what it says now goes to those who draw it, what happened since the
 * last look to those who follow events. One look serves all. Events are kept in a bounded ring, so that a listener who comes back
 * goes on where it was; the feed goes on for a while after the last listener left for the same reason.
 */
import { randomBytes } from 'node:crypto';
import { eventsBetween, type ApiEvent, type ApiReport } from './event-plan.ts';
import { jsonText } from './problem.ts';

const lookMs = 1000;
/** How long the feed goes on for a listener who may come back, ms. */
const lingerMs = 600_000;
export const ringEventsMax = 1000;

export interface NumberedEvent extends ApiEvent {
  /** `EPOCH-NUMBER`: numbers go up by one within an epoch, which is a process's. */
  readonly id: string;
}

export interface FeedListener {
  /** At the start, and whenever the report has changed: all of it, as JSON. Shared by all: not to be changed. */
  onReport?(text: string): void;
  onEvent?(event: NumberedEvent): void;
  /** After each look: time to see whether the listener may listen on. */
  onLook?(): void;
}

export interface ReportFeedOptions {
  readonly report: () => ApiReport;
  /** In place of a second, for tests. */
  readonly lookMs?: number;
}

export class ReportFeed {
  readonly #report: () => ApiReport;
  readonly #lookMs: number;
  readonly #epoch = randomBytes(4).toString('hex');
  readonly #listeners = new Set<FeedListener>();
  readonly #ring: NumberedEvent[] = [];
  #last: ApiReport | null = null;
  #lastText = '';
  #lastFacts = '';
  #eventCount = 0;
  #timer: NodeJS.Timeout | null = null;
  #linger: NodeJS.Timeout | null = null;

  constructor({ report, lookMs: everyMs = lookMs }: ReportFeedOptions) {
    this.#report = report;
    this.#lookMs = everyMs;
  }

  /** The newest event's id: what a listener who comes later than this has missed nothing after. */
  get newestId(): string {
    return `${this.#epoch}-${this.#eventCount}`;
  }

  /** Returns the way to stop listening. */
  listen(listener: FeedListener): () => void {
    if (this.#linger !== null) clearTimeout(this.#linger);
    this.#linger = null;
    this.#listeners.add(listener);
    if (this.#timer === null) {
      // What the ring holds ends here: nobody looked in between.
      this.#look();
      this.#timer = setInterval(() => this.#look(), this.#lookMs);
      this.#timer.unref();
    } else listener.onReport?.(this.#lastText);
    return () => this.#leave(listener);
  }

  /** The events after `id`, oldest first; null when they are not all known any more, or `id` is none of this process's. */
  eventsAfter(id: string): readonly NumberedEvent[] | null {
    const [epoch, number] = id.split('-');
    const at = Number(number);
    if (epoch !== this.#epoch || !Number.isInteger(at) || at < 0 || at > this.#eventCount) return null;
    const missed = this.#eventCount - at;
    if (missed > this.#ring.length) return null;
    return missed === 0 ? [] : this.#ring.slice(-missed);
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    if (this.#linger !== null) clearTimeout(this.#linger);
    this.#timer = this.#linger = null;
    this.#listeners.clear();
  }

  #leave(listener: FeedListener): void {
    if (!this.#listeners.delete(listener) || this.#listeners.size > 0 || this.#timer === null) return;
    this.#linger = setTimeout(() => {
      if (this.#timer !== null) clearInterval(this.#timer);
      this.#timer = this.#linger = this.#last = null;
      this.#lastText = '';
      // What happens from now on is seen by nobody: an id of before is not followed on without a gap.
      this.#ring.length = 0;
      this.#eventCount += 1;
    }, lingerMs);
    this.#linger.unref();
  }

  #look(): void {
    const report = this.#report();
    const events = eventsBetween(this.#last, report);
    this.#last = report;
    // Its time and the process's memory change always; nobody is woken for them alone.
    const facts = jsonText({ ...report, atMs: 0, memoryRssBytes: 0 });
    const isChanged = facts !== this.#lastFacts || this.#lastText === '';
    if (isChanged) {
      this.#lastFacts = facts;
      this.#lastText = jsonText(report);
    }
    for (const event of events) {
      const numbered: NumberedEvent = { ...event, id: `${this.#epoch}-${this.#eventCount += 1}` };
      this.#ring.push(numbered);
      if (this.#ring.length > ringEventsMax) this.#ring.shift();
      for (const listener of [...this.#listeners]) listener.onEvent?.(numbered);
    }
    for (const listener of [...this.#listeners]) {
      if (isChanged) listener.onReport?.(this.#lastText);
      listener.onLook?.();
    }
  }
}
