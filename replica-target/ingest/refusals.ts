/**
 * Counts what the target refuses, by code, and logs each (peer, code) once a minute: a peer that speaks garbage all day
 * fills no disk. Invariant: memory does not grow with the number of peers.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { FaultCode } from '../../journal/fault.ts';

const quietMs = 60_000;
/** Pairs remembered; beyond it the oldest is forgotten, and may be logged again. */
const rememberedMax = 1024;

export class Refusals {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #counts = new Map<FaultCode, number>();
  readonly #loggedAtMs = new Map<string, number>();

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
  }

  count(code: FaultCode, peer: string, message: string, facts: Readonly<Record<string, unknown>> = {}): void {
    this.#counts.set(code, (this.#counts.get(code) ?? 0) + 1);
    const key = `${code} ${peer}`;
    const nowMs = this.#clock.monotonicMs();
    const lastMs = this.#loggedAtMs.get(key);
    if (lastMs !== undefined && nowMs - lastMs < quietMs) return;
    this.#loggedAtMs.delete(key);
    this.#loggedAtMs.set(key, nowMs);
    if (this.#loggedAtMs.size > rememberedMax) this.#loggedAtMs.delete(this.#loggedAtMs.keys().next().value!);
    this.#log.warn({ code, peer, ...facts }, message);
  }

  report(): Record<string, number> {
    return Object.fromEntries(this.#counts);
  }
}
