/**
 * Fails groups over by themselves, where that was chosen and a witness says that nobody runs them any more. Whether it may is automatic-plan.ts; that nobody else does is the
 * claim of the term, which the failover makes itself, so that what was seen here may be old. A failover that failed is tried again, ever more seldom.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import { isFault } from '../../journal/fault.ts';
import type { GroupStore } from '../store/store.ts';
import { planAutomatic, type AutomaticFailover } from './automatic-plan.ts';
import type { Claims } from './claims.ts';

export interface AutomaticOptions {
  /** By group. */
  readonly groups: Readonly<Record<string, AutomaticFailover>>;
  readonly claims: Claims;
  readonly stores: () => readonly GroupStore[];
  readonly isConnected: (groupId: string) => boolean;
  /** Any of its guests, here. */
  readonly isRunning: (group: string) => boolean;
  readonly failOver: (group: string) => Promise<unknown>;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface AutomaticReport {
  readonly group: string;
  readonly afterMs: number;
  /** For people. */
  readonly why: string;
  /** How long nobody has held its lease, ms; null: somebody does, or it is not known. */
  readonly unheldMs: number | null;
  readonly lastFault: { readonly code: string; readonly message: string; readonly atMs: number } | null;
}

interface Watched { why: string; sinceMs: number | null; nextMs: number; backOffMs: number; lastFault: AutomaticReport['lastFault']; isBegun: boolean }

/** Looks in each lease's time. */
const looksPerLease = 6;
const [backOffMsMin, backOffMsMax] = [5_000, 300_000];

export class AutomaticFailovers {
  readonly #o: AutomaticOptions;
  readonly #watched = new Map<string, Watched>();
  readonly #stop = new AbortController();
  #running: Promise<unknown> = Promise.resolve();

  constructor(options: AutomaticOptions) {
    this.#o = options;
    for (const group of Object.keys(options.groups)) this.#watched.set(group, { why: 'not looked at yet', sinceMs: null, nextMs: 0, backOffMs: backOffMsMin, lastFault: null, isBegun: false });
  }

  start(): void {
    this.#running = Promise.all([...this.#watched].map(([group, watched]) => this.#run(group, watched)));
  }

  report(): AutomaticReport[] {
    const nowMs = this.#o.clock.monotonicMs();
    return [...this.#watched].map(([group, { why, sinceMs, lastFault }]) => ({ group, afterMs: this.#o.groups[group]!.afterMs, why, unheldMs: sinceMs === null ? null : Math.round(nowMs - sinceMs), lastFault }));
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('no failover is made by itself any more'));
    await this.#running;
  }

  /** Each group by itself: a hook of one may take long. */
  async #run(group: string, watched: Watched): Promise<void> {
    const { clock, claims } = this.#o;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#look(group, watched);
      await clock.delay(claims.ttlMs / looksPerLease, signal).catch(() => undefined);
    }
  }

  async #look(group: string, watched: Watched): Promise<void> {
    const { groups, claims, stores, isConnected, isRunning, clock, log } = this.#o;
    const store = stores().find((one) => one.report().name === group);
    if (store === undefined) return this.#watch(watched, 'no group of that name is here');
    const { groupId } = store;
    const { state, term, newest } = store.report();
    // What was begun by itself is gone on with; the failover itself asks the witness.
    if (watched.isBegun && state === 'failed-over' && !isRunning(group)) return this.#act(group, watched);
    const view = await claims.look(groupId).catch((error: unknown) => { if (isFault(error, 'WITNESS_UNREACHABLE')) return null; throw error; });
    const step = planAutomatic({ view, state, term, hasPoint: newest !== null, isConnected: isConnected(groupId) });
    if (step.step === 'watch') return this.#watch(watched, step.why);
    const nowMs = clock.monotonicMs();
    if (watched.sinceMs === null) log.warn({ group, afterMs: groups[group]!.afterMs }, `nobody holds the lease of ${group} any more`);
    watched.sinceMs ??= nowMs;
    watched.why = 'nobody holds its lease';
    if (nowMs - watched.sinceMs >= groups[group]!.afterMs) await this.#act(group, watched);
  }

  async #act(group: string, watched: Watched): Promise<void> {
    const { failOver, clock, log } = this.#o;
    if (clock.monotonicMs() < watched.nextMs || this.#stop.signal.aborted) return;
    try {
      log.warn({ group }, `${group} fails over by itself`);
      watched.isBegun = true;
      await failOver(group);
      this.#watch(watched, 'it runs here');
    } catch (error) {
      if (!(error instanceof Error && 'code' in error)) throw error;
      watched.lastFault = { code: String(error.code), message: error.message, atMs: clock.nowMs() };
      watched.nextMs = clock.monotonicMs() + watched.backOffMs;
      watched.backOffMs = Math.min(backOffMsMax, watched.backOffMs * 2);
      log.error({ group, code: error.code }, `${group} could not fail over by itself: ${error.message}`);
    }
  }

  #watch(watched: Watched, why: string): void {
    [watched.why, watched.sinceMs, watched.nextMs, watched.backOffMs, watched.isBegun] = [why, null, 0, backOffMsMin, false];
  }
}
