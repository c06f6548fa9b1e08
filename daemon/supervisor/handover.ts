/**
 * The source's part of a planned failover: the guest is shut down, what is left is sent as a `final` point, and the guest is let go of once
 * the target stands ready with it. It keeps what was asked and drives the steps; cutting and sending are the supervisor's.
 *
 *     running ──yield──> yielding ──takeOver──> relinquished
 *                           └──recall, any failure, loss of the session──> running
 *
 * Invariant: until `relinquished` is durable here the target runs nothing, so that the guest can always be started again where it was;
 * from then on it is never started here.
 */
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { formatPoint, type PointId } from '../../journal/point.ts';
import type { HandoverOrder } from '../../journal/wire.ts';
import type { GuestImage } from '../../qemu/guest-images.ts';
import type { Capture, GuestPower } from '../capture/capture.ts';
import type { TargetLink, TargetSession } from '../stream/session.ts';

export type YieldOrder = Extract<HandoverOrder, { readonly t: 'yield' }>;

/** What must survive the daemon. `yielding`: the guest was asked to shut down, may do so until `untilMs` (wall clock), and is then to be started again. `relinquished`: it is live elsewhere,
 * where `sourceId` protects it; its images here hold `point`. */
export type HandoverNote = { readonly state: 'yielding'; readonly untilMs: number } | { readonly state: 'relinquished'; readonly term: number; readonly sourceId: string; readonly point: PointId; readonly images: GuestImage[] };

export interface HandoverOptions {
  /** Throws when the guest may not be started again now. */
  readonly checkStart?: (() => void) | undefined;
  readonly groupId: string;
  readonly name: string;
  readonly clock: Clock;
  /** Durable when it resolves. Null: nothing of the kind any more. */
  readonly note: (note: HandoverNote | null) => Promise<void>;
  readonly noted: HandoverNote | null;
  /** The guest is let go of, durably here: whatever else must know that knows it when it resolves. May come more than once. */
  readonly relinquish: (term: number, sourceId: string) => Promise<void>;
}

/** What the target may take to apply what waits, and to start the guest, ms. */
const verdictMsMax = 300_000;

export class Handover {
  readonly #o: HandoverOptions;
  #noted: HandoverNote | null;
  /** The file may say otherwise than `noted`: a write of it failed. */
  #isUnsure = false;
  #order: YieldOrder | null = null;
  #verdict: ((order: Exclude<HandoverOrder, YieldOrder>) => void) | null = null;
  #wake: () => void = () => undefined;

  constructor(options: HandoverOptions) {
    this.#o = options;
    this.#noted = options.noted;
  }

  get noted(): HandoverNote | null { return this.#noted; }

  /** An order waits to be carried out. */
  get isAsked(): boolean { return this.#order !== null; }

  ordered(order: HandoverOrder): void {
    if (order.t === 'yield') {
      this.#order = order;
      this.#wake();
    } else if (order.t === 'recall' && this.#order?.id === order.id) this.#order = null;
    else this.#verdict?.(order);
  }

  /** What was asked over a session that is over counts no more. */
  forget(): void {
    this.#order = null;
  }

  /** Resolves when an order comes, at once when one waits; or when `paused` does. */
  async orOrder(paused: Promise<unknown>): Promise<void> {
    paused.catch(() => undefined); // whoever asks has gone on, then
    if (this.isAsked) return;
    await Promise.race([paused, new Promise<void>((resolve) => { this.#wake = resolve; })]);
  }

  /** What an earlier life of the daemon left: the guest runs when it resolves. */
  async takeUp(power: GuestPower): Promise<void> {
    if (this.#noted?.state !== 'yielding') return;
    await this.#startAgain(power, this.#noted);
  }

  /**
   * Carries out the order that waits. `final` cuts and sends the last point, and resolves when the target holds it. Resolves with whether the guest
   * is let go of; if not it runs on here, and the target was told why. Rejects with what ended the session, or broke the guest's QEMU.
   */
  async carryOut(session: TargetSession, power: GuestPower, final: () => Promise<PointId>, signal: AbortSignal): Promise<boolean> {
    const order = this.#order;
    if (order === null) return false;
    this.#order = null;
    const { groupId: group, name } = this.#o;
    const { id } = order;
    try {
      await this.#note({ state: 'yielding', untilMs: this.#o.clock.nowMs() + order.shutdownMs });
      const stoppedAtMs = await this.#stop(order, power, signal);
      const point = await final();
      // Listened for before it can come.
      const images = await power.images();
      const verdict = this.#awaitVerdict(id, signal);
      session.answer({ t: 'yielded', group, id, point, stoppedAtMs });
      const said = await this.#inTime(verdict);
      if (said.t === 'recall') throw new Fault('HANDOVER_ENDED', `the planned failover of ${name} to point ${formatPoint(point)} came to nothing at the target`, { group: name });
      // `stayAway` says so.
      await this.#note({ state: 'relinquished', term: said.term, sourceId: said.sourceId, point, images: [...images] });
      return true;
    } catch (error) {
      await this.#undo(power);
      // What the system refuses (a folder that cannot be written) is told by whoever supervises.
      if (!isFault(error)) throw error;
      session.answer({ t: 'kept', group, id, code: error.code, message: error.message.slice(0, 2000) });
      if (signal.aborted) throw error;
      return false;
    }
  }

  /**
   * The guest is live elsewhere: each session is told so, as the one before may have ended before it was heard, and its QEMU here is ended.
   * Resolves when the session is over, or at the signal.
   */
  async stayAway(link: TargetLink, capture: Capture, signal: AbortSignal): Promise<void> {
    if (this.#noted?.state !== 'relinquished') return;
    const { term, sourceId } = this.#noted;
    const session = await link.session(signal);
    await this.#o.relinquish(term, sourceId);
    session.answer({ t: 'relinquished', group: this.#o.groupId, term });
    try {
      await capture.connect();
      await capture.power().end();
    } catch (error) {
      // Gone already, mostly.
      if (!isFault(error)) throw error;
    } finally {
      await capture.close();
    }
    const aborted = new AbortController();
    const stopped = new Promise<void>((resolve) => { signal.addEventListener('abort', () => resolve(), { once: true, signal: aborted.signal }); });
    await Promise.race([session.closed, stopped]).finally(() => aborted.abort());
  }

  async #stop({ shutdownMs, onLimit }: YieldOrder, power: GuestPower, signal: AbortSignal): Promise<number> {
    const { clock, name } = this.#o;
    const why = await power.keepThroughOff();
    if (why !== null || !(await power.shutDown({ limitMs: shutdownMs, clock, signal }))) {
      if (why !== null && onLimit === 'give-up') throw new Fault('GUEST_KEEPS_RUNNING', `${name} is not shut down for a planned failover: ${why}. With \`--on-limit stop\` it is stopped where it stands, and nothing is lost`, { group: name });
      if (onLimit === 'give-up') throw new Fault('GUEST_KEEPS_RUNNING', `${name} did not shut down within ${shutdownMs} ms, and runs on; should it still shut down, it has to be started again`, { group: name, shutdownMs });
      await power.standStill();
    }
    return clock.nowMs();
  }

  /** Fault HANDOVER_ENDED: a guest that stands still does not wait for ever. What the target says later is not listened to, and it hears of the guest instead. */
  async #inTime(verdict: Promise<Exclude<HandoverOrder, YieldOrder>>): Promise<Exclude<HandoverOrder, YieldOrder>> {
    const over = new AbortController();
    const late = this.#o.clock.delay(verdictMsMax, over.signal).then(() => null, () => null);
    const said = await Promise.race([verdict, late]).finally(() => over.abort(new Error('answered')));
    if (said !== null) return said;
    this.#verdict = null;
    verdict.catch(() => undefined);
    throw new Fault('HANDOVER_ENDED', `the target of ${this.#o.name} did not go on within ${verdictMsMax} ms`, { group: this.#o.name });
  }

  #awaitVerdict(id: string, signal: AbortSignal): Promise<Exclude<HandoverOrder, YieldOrder>> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(signal.reason as Error);
      if (signal.aborted) return onAbort();
      signal.addEventListener('abort', onAbort, { once: true });
      this.#verdict = (order) => {
        if (order.id !== id) return;
        this.#verdict = null;
        signal.removeEventListener('abort', onAbort);
        resolve(order);
      };
    });
  }

  /** What cannot be undone now is undone by the next connection to the guest, as the note stays. */
  async #undo(power: GuestPower): Promise<void> {
    if (this.#noted?.state !== 'yielding') return;
    try {
      // A guest must not run here while its file may say that it is let go of.
      if (this.#isUnsure) await this.#note(this.#noted);
      await this.#startAgain(power, this.#noted);
    } catch (error) {
      if (!isFault(error) && (error as NodeJS.ErrnoException).syscall === undefined) throw error;
    }
  }

  async #startAgain(power: GuestPower, { untilMs }: Extract<HandoverNote, { readonly state: 'yielding' }>): Promise<void> {
    this.#o.checkStart?.();
    await power.startAgain(Math.max(0, untilMs - this.#o.clock.nowMs()));
    await this.#note(null);
  }

  async #note(note: HandoverNote | null): Promise<void> {
    this.#isUnsure = true;
    await this.#o.note(note);
    this.#noted = note;
    this.#isUnsure = false;
  }
}
