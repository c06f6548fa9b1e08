/**
 * Checks all groups in the background, one after the other, each when its last check is older than asked for, at a limited rate.
 * While a failover runs it stands still: whoever waits for a guest needs the disk. It decides when; group-checks.ts notes what
 * was found.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import { isFault } from '../../journal/fault.ts';
import { storeFault } from '../store/store-fault.ts';
import type { GroupChecks } from './group-checks.ts';

export interface ScrubOptions {
  /** 0: nothing is checked by itself. */
  readonly rateBytesPerSecond: number;
  readonly everyMs: number;
}

/** Well below what a disk that serves a guest's overlay can miss. */
export const defaultScrub: ScrubOptions = { rateBytesPerSecond: 20 * 1024 * 1024, everyMs: 7 * 86_400_000 };

/** How often groups are looked over for one that is due, and a paused check for whether it may go on, ms. */
const lookMs = 60_000;
const pausedMs = 1_000;
/** Waits shorter than this are put together, ms. */
const waitMsMin = 50;

export interface ScrubbedGroup { readonly name: string; readonly checks: GroupChecks }

export interface ScrubParts extends ScrubOptions {
  readonly clock: Clock;
  readonly log: Logger;
  groups(): readonly ScrubbedGroup[];
  /** A failover is under way. */
  isPaused(): boolean;
}

export class Scrub {
  readonly #o: ScrubParts;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;

  constructor(options: ScrubParts) {
    this.#o = options;
    this.#running = options.rateBytesPerSecond === 0 ? Promise.resolve() : this.#run();
  }

  async close(): Promise<void> {
    this.#stopping.abort(new Error('the scrub stops'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, groups, everyMs } = this.#o;
    const { signal } = this.#stopping;
    try {
      for (;;) {
        await clock.delay(lookMs, signal);
        for (const group of groups()) {
          const { lastAtMs, underWay } = group.checks.report();
          if (underWay === null && (lastAtMs === null || clock.nowMs() - lastAtMs >= everyMs)) await this.#check(group);
        }
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async #check({ name, checks }: ScrubbedGroup): Promise<void> {
    const { log } = this.#o;
    try {
      const { findings, points } = await checks.verify(null, this.#pace());
      if (findings.length > 0) log.error({ group: name, findings: findings.length, first: findings[0], points }, 'stored data is damaged: see afterimage verify');
    } catch (error) {
      this.#stopping.signal.throwIfAborted();
      // It is tried again when groups are looked over next.
      log.warn({ group: name, err: isFault(error) ? error : storeFault(error, `checking ${name}`) }, 'the stored data could not be checked');
    }
  }

  /** As many bytes a second as allowed, measured over the whole check, so that pauses are not caught up with. */
  #pace(): (bytes: number) => Promise<void> {
    const { clock, isPaused, rateBytesPerSecond } = this.#o;
    const { signal } = this.#stopping;
    let freeAtMs = clock.monotonicMs();
    return async (bytes) => {
      signal.throwIfAborted();
      while (isPaused()) await clock.delay(pausedMs, signal);
      const nowMs = clock.monotonicMs();
      freeAtMs = Math.max(freeAtMs, nowMs - waitMsMin) + (bytes * 1000) / rateBytesPerSecond;
      if (freeAtMs - nowMs >= waitMsMin) await clock.delay(freeAtMs - nowMs, signal);
    };
  }
}
