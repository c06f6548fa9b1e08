/**
 * The instant of a cut of several guests. Each guest's capture prepares its cut and waits here until all have; then, if the cut is to be strict, all guests are stopped, all
 * are cut, and all go on. Invariants: no guest stands still while another's cut is prepared; none stands still for longer than the limit and one answer of QEMU's; a
 * guest goes on only when nothing of its cut is under way, or nothing that its QEMU could not bear; one that did not run is not started; the guard knows of the guests that are stopped from before they are until after they go on.
 */
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import type { PointKind } from '../../journal/point.ts';
import type { JointFacts } from '../../journal/seal.ts';
import type { CutHold } from '../capture/capture.ts';
import type { PauseGuard } from './pause-guard.ts';
import type { Consistency, JointMember } from './joint-capture.ts';
import { allOf } from './joint-power.ts';

export interface JointInstantOptions {
  readonly members: readonly JointMember[];
  readonly consistency: Consistency;
  readonly pauseMsMax: number;
  readonly guard: PauseGuard;
  /** What of each guest may be copied while it is paused. */
  readonly heldBytesMax: number;
  readonly clock: Clock;
  /** Who has the guests stand still for reasons of its own, too. */
  readonly hold: CutHold | undefined;
}

/** Opens when all have come, or when one says that it will not. */
class Gate {
  readonly #waited: Set<number>;
  readonly #whenAll: () => Promise<void>;
  readonly #opened: Promise<void>;
  #resolve: () => void = () => undefined;

  /** `whenAll`: what happens once when all are there, before any goes on. */
  constructor(members: number, whenAll: () => Promise<void>) {
    this.#waited = new Set(Array.from({ length: members }, (_, at) => at));
    this.#whenAll = whenAll;
    this.#opened = new Promise((resolve) => { this.#resolve = resolve; });
  }

  arrive(at: number): Promise<void> {
    if (this.#waited.delete(at) && this.#waited.size === 0) void this.#whenAll().then(this.#resolve);
    return this.#opened;
  }

  /** Nobody needs to wait any more. */
  open(): void {
    this.#resolve();
  }
}

export class JointInstant {
  readonly #o: JointInstantOptions;
  readonly #prepared: Gate;
  readonly #still: Gate;
  /** Guests with nothing of their cut under way any more; of those, the ones that were cut. */
  readonly #done = new Set<number>();
  readonly #cut = new Set<number>();
  /** Guests whose cut may be under way. */
  readonly #cutting = new Set<number>();
  readonly #stopped = new Set<number>();
  readonly #goingOn: Promise<void>[] = [];
  readonly #over = new AbortController();
  readonly #giveUp = new AbortController();
  #stopping: Promise<void> = Promise.resolve();
  #fault: Fault | null = null;
  #kind: PointKind | null = null;
  #isHeld = false;
  #isLate = false;
  #stoppedAtMs: number | null = null;
  #pausedMs: number | null = null;
  #fromMs = 0;
  #toMs = 0;

  constructor(options: JointInstantOptions) {
    this.#o = options;
    this.#prepared = new Gate(options.members.length, () => this.#begin());
    this.#still = new Gate(options.members.length, () => this.#stopping = this.#stop());
  }

  /** Why the cuts are none of one instant; null: they are, or a guest's own cut says why not. */
  get fault(): Fault | null { return this.#fault; }

  /** It took longer than it may. */
  get isLate(): boolean { return this.#isLate; }

  /** As whoever held the guests says; null: nobody did. */
  get kind(): PointKind | null { return this.#kind; }

  get facts(): JointFacts {
    if (this.#o.consistency === 'per-guest') return { spreadMs: Math.ceil(this.#toMs - this.#fromMs) };
    return this.#pausedMs === null ? {} : { pausedMs: Math.ceil(this.#pausedMs) };
  }

  holdOf(at: number): CutHold {
    return {
      isPausing: this.#o.consistency === 'strict',
      signal: this.#giveUp.signal,
      heldBytesMax: this.#o.heldBytesMax,
      begin: () => this.#prepared.arrive(at),
      still: async () => {
        await this.#still.arrive(at);
        this.#giveUp.signal.throwIfAborted();
        this.#cutting.add(at);
      },
      release: (isCut) => {
        if (isCut) this.#cut.add(at);
        this.#ended(at);
        // The kind is asked of the whole.
        return Promise.resolve('crash');
      },
    };
  }

  /** Its cut is made, or will not be. */
  settled(at: number): void {
    this.#ended(at);
  }

  /** All cuts have settled: resolves when no guest stands still for them any more. */
  async over(): Promise<void> {
    const { hold, guard, clock } = this.#o;
    await this.#stopping;
    this.#over.abort(new Error('the guests go on'));
    try {
      await allOf(this.#goingOn);
      if (this.#stoppedAtMs !== null) await guard.gone();
    } catch (error) {
      // A QEMU that is gone needs no more; one that did not take it is told again. Whatever else went wrong, this is worse.
      this.#fault = asFault(error);
    }
    if (this.#isHeld) this.#kind = await hold!.release(!this.#giveUp.signal.aborted && this.#fault === null);
    this.#pausedMs ??= this.#stoppedAtMs === null ? null : clock.monotonicMs() - this.#stoppedAtMs;
  }

  #ended(at: number): void {
    if (this.#done.has(at)) return;
    this.#done.add(at);
    this.#cutting.delete(at);
    this.#toMs = this.#o.clock.monotonicMs();
    if (!this.#cut.has(at)) this.#break(new Fault('CUT_PAUSED', 'another guest of the group was not cut', {}));
    else if (this.#giveUp.signal.aborted) this.#goOn(at);
    else if (this.#cut.size === this.#o.members.length) this.#allGoOn();
  }

  /** Those with nothing under way go on at once, the others as soon as they can. */
  #break(why: Fault): void {
    if (!this.#giveUp.signal.aborted) this.#giveUp.abort(why);
    this.#prepared.open();
    this.#still.open();
    this.#allGoOn();
  }

  #allGoOn(): void {
    for (const at of this.#stopped) if (!this.#cutting.has(at)) this.#goOn(at);
  }

  #goOn(at: number): void {
    if (!this.#stopped.delete(at)) return;
    // Also where its connection is gone: the others must hear of it all the same.
    const going = Promise.resolve().then(() => this.#o.members[at]!.capture.power().goOn());
    this.#goingOn.push(going);
    going.then(() => { if (this.#stopped.size === 0 && this.#stoppedAtMs !== null) this.#pausedMs = this.#o.clock.monotonicMs() - this.#stoppedAtMs; }, () => undefined);
  }

  async #begin(): Promise<void> {
    if (this.#giveUp.signal.aborted) return;
    this.#isHeld = this.#o.hold !== undefined;
    await this.#o.hold?.begin();
  }

  async #stop(): Promise<void> {
    const { consistency, members, pauseMsMax, guard, clock } = this.#o;
    this.#fromMs = clock.monotonicMs();
    if (this.#giveUp.signal.aborted || consistency === 'per-guest') return;
    try {
      const states = await allOf(members.map(({ capture }) => capture.power().runState()));
      const running = [...members.keys()].filter((at) => states[at]!.running);
      await guard.paused(running.map((at) => ({ name: members[at]!.name, qmpPath: members[at]!.qmpPath })));
      this.#stoppedAtMs = clock.monotonicMs();
      // Nobody would have them go on any more.
      if (this.#giveUp.signal.aborted) return;
      for (const at of running) this.#stopped.add(at);
      void clock.delay(pauseMsMax, this.#over.signal).then(() => this.#late(), () => undefined);
      await allOf(running.map((at) => members[at]!.capture.power().pause()));
    } catch (error) {
      this.#fault ??= asFault(error);
      this.#break(this.#fault);
    }
  }

  #late(): void {
    const { pauseMsMax } = this.#o;
    this.#isLate = true;
    this.#fault ??= new Fault('CUT_PAUSED', `the guests were paused for ${pauseMsMax} ms and not all of them were cut: they go on, and are cut again`, { limitMs: pauseMsMax });
    this.#break(this.#fault);
  }
}

/** What the system refuses (a note that cannot be written) is a reason not to stop guests. A bug stays one. */
function asFault(error: unknown): Fault {
  if (isFault(error)) return error;
  if (error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string') return new Fault('INTERNAL', `the system refused: ${error.message}`, {}, error);
  throw error;
}
