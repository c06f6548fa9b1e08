/**
 * Starts the guests of a group that stand ready, in their order: those of one place together, each after its delay, the next place when they are ready or their time is up. What was
 * started before is passed by, so that a target that was killed in the middle begins anew and goes on where it was.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { NotedGuest } from './group-guests.ts';
import { startAtOnce, startStages, type GuestStart } from './readiness-plan.ts';
import type { CheckOutcome, ReadyOptions } from './readiness.ts';

/** `late`: it runs, and was not ready in time; or it could not be told to run. */
export type Readiness = 'waiting' | 'running' | 'ready' | 'late';

export interface StartedState {
  readonly name: string;
  readonly state: Readiness;
  readonly checks: readonly CheckOutcome[];
  /** From the beginning of the group's start until it was ready, ms. */
  readonly readyMs: number | null;
}

export interface GroupStartOptions {
  readonly group: string;
  readonly guests: readonly NotedGuest[];
  readonly starts: Readonly<Record<string, GuestStart>>;
  readonly facts: Readonly<Record<string, unknown>>;
  run(guest: NotedGuest): Promise<void>;
  awaitReady(guest: NotedGuest, checks: NonNullable<GuestStart['ready']>, options: ReadyOptions): Promise<CheckOutcome[]>;
  readonly clock: Clock;
  readonly log: Logger;
}

export class GroupStart {
  /** The processors of the guests of the first place run. Rejects with what kept one of them from that. */
  readonly first: Promise<void>;
  /** All have been started, and were ready or late. Never rejects. */
  readonly ended: Promise<void>;
  readonly #o: GroupStartOptions;
  readonly #stop = new AbortController();
  readonly #states = new Map<string, StartedState>();
  readonly #begunMs: number;

  constructor(options: GroupStartOptions) {
    this.#o = options;
    this.#begunMs = options.clock.monotonicMs();
    for (const { name } of options.guests) this.#states.set(name, { name, state: 'waiting', checks: [], readyMs: null });
    const [stage = [], ...later] = startStages(options.guests.map(({ name }) => name), options.starts).map((names) => options.guests.filter(({ name }) => names.includes(name)));
    const running = stage.map((guest) => this.#run(guest));
    this.first = Promise.all(running).then(() => undefined);
    this.ended = this.#goOn(stage, running, later).catch((error: unknown) => { if (!this.#stop.signal.aborted) throw error; });
    this.first.catch(() => undefined);
  }

  states(): readonly StartedState[] {
    return [...this.#states.values()];
  }

  /** What runs goes on; nothing more is started. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error('the start of the group was given up'));
    await this.ended;
  }

  async #goOn(first: readonly NotedGuest[], running: readonly Promise<void>[], later: readonly (readonly NotedGuest[])[]): Promise<void> {
    await Promise.all(first.map((guest, at) => this.#ready(guest, running[at]!)));
    for (const stage of later) {
      if (this.#stop.signal.aborted) return;
      await Promise.all(stage.map((guest) => this.#ready(guest, this.#run(guest))));
    }
  }

  async #run(guest: NotedGuest): Promise<void> {
    const { starts, clock, run } = this.#o;
    const { delayMs } = starts[guest.name] ?? startAtOnce;
    if (delayMs > 0) await clock.delay(delayMs, this.#stop.signal);
    await run(guest);
  }

  async #ready(guest: NotedGuest, running: Promise<void>): Promise<void> {
    const { group, starts, facts, clock, log, awaitReady } = this.#o;
    const { signal } = this.#stop;
    const { name } = guest;
    try {
      await running;
    } catch (error) {
      if (signal.aborted) throw error;
      // A bug has no code.
      if (!(error instanceof Error && 'code' in error)) throw error;
      this.#states.set(name, { name, state: 'late', checks: [], readyMs: null });
      log.error({ group, guest: name, err: error }, `${name} could not be started: ${error.message}`);
      return;
    }
    this.#states.set(name, { name, state: 'running', checks: [], readyMs: null });
    const { ready } = starts[name] ?? startAtOnce;
    const checks = ready === null ? [] : await awaitReady(guest, ready, { clock, signal, facts: { group, ...facts } });
    const isReady = checks.every((one) => one.isReady);
    this.#states.set(name, { name, state: isReady ? 'ready' : 'late', checks, readyMs: isReady ? Math.round(clock.monotonicMs() - this.#begunMs) : null });
    if (!isReady) log.error({ group, guest: name }, `${name} runs, and was not ready in time: ${checks.filter((one) => !one.isReady).map(({ what, why }) => `${what}: ${why}`).join('; ')}`);
  }
}
