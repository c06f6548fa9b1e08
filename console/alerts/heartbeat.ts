/** Asks for an address at a steady pace as long as this daemon lives and can make its report, so that whoever watches that address notices when it does not. A failure is logged once, until one succeeds. */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { request } from './webhook-channel.ts';

const askMsMax = 10_000;

export class Heartbeat {
  readonly #url: string;
  readonly #everyMs: number;
  readonly #o: { readonly clock: Clock; readonly log: Logger; isAlive(): boolean };
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #hasFailed = false;

  constructor({ url, everyMs }: { readonly url: string; readonly everyMs: number }, options: { readonly clock: Clock; readonly log: Logger; isAlive(): boolean }) {
    this.#url = url;
    this.#everyMs = everyMs;
    this.#o = options;
    this.#running = this.#run();
  }

  get name(): string { return `heartbeat (${new URL(this.#url).host})`; }

  /** Fault ALERT_UNDELIVERED. */
  async beat(): Promise<string> {
    const { ok, status } = await request(this.#url, new URL(this.#url).host, { redirect: 'follow', signal: AbortSignal.any([this.#stop.signal, AbortSignal.timeout(askMsMax)]) });
    if (!ok) throw new Fault('ALERT_UNDELIVERED', `${new URL(this.#url).host} answered ${status}`, { status });
    return `HTTP ${status}`;
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('the heart stops'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, log, isAlive } = this.#o;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        if (isAlive()) await this.beat();
        this.#hasFailed = false;
      } catch (error) {
        if (signal.aborted) return;
        if (!isFault(error)) throw error;
        if (!this.#hasFailed) log.warn({ code: error.code }, `the heartbeat does not arrive: ${error.message}`);
        this.#hasFailed = true;
      }
      await clock.delay(this.#everyMs, signal).catch((error: unknown) => { if (!signal.aborted) throw error; });
    }
  }
}
