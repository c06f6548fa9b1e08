/**
 * Time, chance and the record of one simulated run. Everything that waits, waits here, in one order that the seed decides; so the same seed gives the same run, and the same
 * log. A life is one run of a process: when it has ended, whatever it still waits for never comes.
 */
import assert from 'node:assert/strict';
import { createHash, type Hash } from 'node:crypto';
import type { Clock } from '../../host/clock.ts';
import type { Random } from '../../host/random.ts';
import { makeDice, type Dice } from './dice.ts';

interface Event { readonly atMs: number; readonly sequence: number; readonly run: () => void }

/** Rounds of the event loop after which nothing moves that does not wait for the clock: some code gives others a turn on purpose. */
const settleRounds = 4;
/** Lines of the log that are kept to be shown. */
export const tailLinesDefault = 60;

export class World {
  readonly dice: Dice;
  readonly random: Random;
  #nowMs = 1_700_000_000_000;
  #events: Event[] = [];
  #sequence = 0;
  readonly #hash: Hash = createHash('sha256');
  readonly tail: string[] = [];
  readonly counts = new Map<string, number>();

  readonly #tailLines: number;

  constructor(seed: number, tailLines = tailLinesDefault) {
    this.#tailLines = tailLines;
    this.dice = makeDice(seed);
    const { dice } = this;
    this.random = { fraction: () => dice.fraction(), bytes: (count) => Buffer.from(Array.from({ length: count }, () => dice.integer(256))) };
  }

  get nowMs(): number { return this.#nowMs; }

  log(line: string): void {
    const whole = `${String(this.#nowMs - 1_700_000_000_000).padStart(8)} ${line}`;
    this.#hash.update(`${whole}\n`);
    this.tail.push(whole);
    if (this.tail.length > this.#tailLines) this.tail.shift();
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  digest(): string {
    return this.#hash.copy().digest('hex').slice(0, 16);
  }

  /** Returns the way to take it back. */
  after(ms: number, run: () => void): () => void {
    const event = { atMs: this.#nowMs + Math.max(0, Math.ceil(ms)), sequence: this.#sequence++, run };
    this.#events.push(event);
    return () => { this.#events = this.#events.filter((one) => one !== event); };
  }

  /** Until `ms` have passed and all that came of it has settled. `check` after each event. */
  async pass(ms: number, check: () => void): Promise<void> {
    const endMs = this.#nowMs + ms;
    await settle();
    for (;;) {
      let next: Event | null = null;
      for (const event of this.#events) if (event.atMs <= endMs && (next === null || event.atMs < next.atMs || (event.atMs === next.atMs && event.sequence < next.sequence))) next = event;
      if (next === null) break;
      this.#events.splice(this.#events.indexOf(next), 1);
      assert(next.atMs >= this.#nowMs, 'time goes forward');
      this.#nowMs = next.atMs;
      next.run();
      await settle();
      check();
    }
    this.#nowMs = endMs;
  }
}

async function settle(): Promise<void> {
  for (let round = 0; round < settleRounds; round += 1) await new Promise((resolve) => { setImmediate(resolve); });
}

/** One run of a process. */
export class Life implements Clock {
  readonly #world: World;
  isOver = false;
  readonly #ends: (() => void)[] = [];

  constructor(world: World) {
    this.#world = world;
  }

  nowMs(): number { return this.#world.nowMs; }
  monotonicMs(): number { return this.#world.nowMs; }

  delay(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) return reject(signal.reason as Error);
      const takeBack = this.#world.after(ms, () => {
        signal?.removeEventListener('abort', abort);
        if (!this.isOver) resolve();
      });
      const abort = (): void => {
        takeBack();
        if (!this.isOver) reject(signal!.reason as Error);
      };
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** What the world does for this process: some time later, if it still lives. */
  async act<T>(act: () => T | Promise<T>): Promise<T> {
    await this.delay(this.#world.dice.integer(4));
    const done = await act();
    return this.isOver ? new Promise<T>(() => undefined) : done;
  }

  atEnd(end: () => void): void {
    this.#ends.push(end);
  }

  end(): void {
    if (this.isOver) return;
    this.isOver = true;
    for (const end of this.#ends.splice(0)) end();
  }
}
