/**
 * Delivers on one way out what waits for it, in order and one delivery at a time, and tries again what failed. Invariant: a notice
 * leaves the queue only when it was delivered, or is so old or the queue so long that it is given up, which is logged.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { Random } from '../../host/random.ts';
import { isFault } from '../../journal/fault.ts';
import type { AlertChannel } from './alert-channel.ts';
import type { AlertOrigin, Bulletin, Notice } from './alert-options.ts';
import { enqueue, nextDelivery, retryDelayMs } from './outbox-plan.ts';

/** What a daemon that ends waits for a delivery under way, ms. */
const closeMsMax = 2_000;

export interface DeliveryOptions {
  readonly channel: AlertChannel;
  readonly from: AlertOrigin;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** What waits has changed. */
  readonly onChange: () => void;
}

export class Delivery {
  readonly #o: DeliveryOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #waiting: readonly Notice[];
  #wake: () => void = () => undefined;
  #failures = 0;
  #isSending = false;
  #isClosing = false;

  constructor(options: DeliveryOptions, waiting: readonly Notice[]) {
    this.#o = options;
    this.#waiting = waiting;
    this.#running = this.#run();
  }

  get channel(): AlertChannel { return this.#o.channel; }
  get waiting(): readonly Notice[] { return this.#waiting; }

  add(notices: readonly Notice[]): void {
    const { channel, log } = this.#o;
    const { waiting, dropped } = enqueue(this.#waiting, notices.filter((notice) => channel.takes(notice)));
    this.#waiting = waiting;
    if (dropped > 0) log.warn({ channel: channel.name, dropped }, 'alerts were given up: too many wait to be delivered');
  }

  /** After what was added is durable. */
  start(): void {
    this.#wake();
  }

  /** What is under way may end, for a moment: it would be sent a second time. */
  async close(): Promise<void> {
    this.#isClosing = true;
    const limit = setTimeout(() => this.#stop.abort(new Error('alerts are delivered no more')), this.#isSending ? closeMsMax : 0);
    this.#wake();
    await this.#running;
    clearTimeout(limit);
  }

  async #run(): Promise<void> {
    const { clock } = this.#o;
    const { signal } = this.#stop;
    while (!this.#isClosing) {
      if (this.#waiting.length === 0 || !(await this.#deliver())) {
        if (this.#isClosing) return;
        if (this.#failures > 0 && this.#waiting.length > 0) await clock.delay(retryDelayMs(this.#failures), signal).catch((error: unknown) => { if (!signal.aborted) throw error; });
        else await new Promise<void>((resolve) => { this.#wake = resolve; });
      }
    }
  }

  /** False: not now. */
  async #deliver(): Promise<boolean> {
    const { channel, log, clock, onChange } = this.#o;
    const { send, stale } = nextDelivery(this.#waiting, clock.nowMs());
    if (stale.length > 0) {
      log.warn({ channel: channel.name, dropped: stale.length }, 'alerts were given up: they could not be delivered for a day');
      this.#remove(stale);
    }
    if (send.length === 0) return false;
    this.#isSending = true;
    try {
      await channel.send(bulletinOf(this.#o, send), this.#stop.signal);
    } catch (error) {
      if (this.#stop.signal.aborted) return false;
      if (!isFault(error)) throw error;
      this.#failures += 1;
      if (this.#failures === 1) log.error({ channel: channel.name, code: error.code }, `an alert could not be delivered, and is tried again: ${error.message}`);
      return false;
    } finally {
      this.#isSending = false;
    }
    if (this.#failures > 0) log.info({ channel: channel.name, failures: this.#failures }, 'alerts are delivered again');
    this.#failures = 0;
    this.#remove(send);
    onChange();
    return true;
  }

  #remove(gone: readonly Notice[]): void {
    const ids = new Set(gone.map(({ id }) => id));
    this.#waiting = this.#waiting.filter(({ id }) => !ids.has(id));
  }
}

export function bulletinOf({ from, clock, random }: Pick<DeliveryOptions, 'from' | 'clock' | 'random'>, notices: readonly Notice[]): Bulletin {
  return { version: 1, id: random.bytes(8).toString('hex'), sentAtMs: clock.nowMs(), from, notices };
}
