/**
 * Keeps one guest protected: connects to it, agrees with the target on a base, and then either passes over the whole
 * disks (first sync, resync) or cuts deltas at the group's pace, for ever. It heals by starting over: whatever fails, the
 * running delta is dropped (its bitmap merged back by the capture), and the loop asks both sides anew what they hold.
 * It decides nothing itself about bases (next-step-plan.ts) and touches neither QMP nor sockets.
 */
import { setMaxListeners } from 'node:events';
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { Random } from '../../host/random.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { comparePageBytes } from '../../journal/limits.ts';
import { formatPoint, type PointId, type PointKind } from '../../journal/point.ts';
import type { GroupAnnouncement, GroupHolding } from '../../journal/wire.ts';
import type { Capture, CapturedDelta, CapturedDisk } from '../capture/capture.ts';
import type { GuestReport, MarkedPoint } from '../report.ts';
import { PassSender, type PassSenderOptions } from '../resync/pass-sender.ts';
import type { PassTurns } from '../resync/pass-turns.ts';
import type { Encoder } from '../stream/encoder.ts';
import type { TargetLink, TargetSession } from '../stream/session.ts';
import { GuestStatus, type GuestFacts } from './guest-status.ts';
import { Marks, type MarkWish } from './marks.ts';
import { cutPoint, shipDelta, type Agreed } from './cycle.ts';
import type { RelayedGuest, RelayedPoint } from '../relay/relay-capture.ts';
import { wakingPower } from '../relay/waking-power.ts';
import { Handover } from './handover.ts';
import type { SupervisorOptions } from './supervisor-options.ts';
import { NewestPoint } from './newest-point.ts';
import { heldPoint, nextPoint, planNextStep, type NextStep } from './next-step-plan.ts';

/** Pause before starting over, growing from the first to the second while nothing succeeds, ms. */
const retryMsMin = 250;
const retryMsMax = 10_000;
const uncommittedRetryMs = 1_000;
/** The fastest pace without a write log, ms. */
export const copyPaceMsMin = 1000;
/** How often QEMU is asked how much is dirty while the target is away, ms. */
const measureMs = 2_000;

/** How long a final point may take to be cut and acknowledged, ms. */
const finalMsMax = 600_000;

export class GuestSupervisor {
  readonly #o: SupervisorOptions;
  readonly #status: GuestStatus;
  readonly #marks: Marks;
  readonly #handover: Handover;
  readonly #newest: NewestPoint;
  readonly #stop = new AbortController();
  #running: Promise<void> | null = null;
  #isConnected = false;
  #hardware: Readonly<Record<string, unknown>> = {};
  #rate: number;
  #retryMs = retryMsMin;
  #resume: () => void = () => undefined;
  #isPassing = false;
  /** Until a pass has ended well. */
  #isResyncAsked = false;
  /** The target holds all that the guest wrote, which stands still to go elsewhere: a point more would only part both sides of what is agreed. */
  #isAtRest = false;
  #giveBackTurn: () => void = () => undefined;

  constructor(options: SupervisorOptions) {
    this.#o = options;
    this.#status = new GuestStatus(options.clock, options.lastPoint);
    this.#marks = new Marks(options.clock, options.facts.name, options.app?.everyMs ?? null, options.lastPoint?.appAtMs ?? null);
    this.#handover = new Handover({ groupId: options.facts.groupId, name: options.facts.name, clock: options.clock, noted: options.handover, note: options.noteHandover, relinquish: options.relinquish, checkStart: options.checkStart });
    this.#newest = new NewestPoint(options.lastPoint);
    this.#status.isPaused = options.isPaused;
    this.#status.term = options.term ?? 1;
    this.#rate = options.rateBytesPerSecond;
  }

  start(): void { this.#running = this.#run(); }

  report(): GuestReport {
    return this.#status.report(this.#o.facts, this.#isConnected ? this.#o.capture.figures() : null);
  }

  /** Holds a full pass, or lets it go on. Cycles are not held: that would only make RPO worse. */
  async pause(isPaused: boolean): Promise<void> {
    this.#status.isPaused = isPaused;
    if (!isPaused) this.#resume();
    if (this.#isPassing) this.#lendTurn(isPaused);
    await this.#o.capture.pausePass(isPaused);
  }

  #lendTurn(isLent: boolean): void {
    this.#giveBackTurn();
    this.#giveBackTurn = isLent ? this.#o.passes.lend() : () => undefined;
  }

  /** A point now, beside those that are due. Resolves when the target holds it. Faults: MARK_NOT_TAKEN. */
  mark(wish: MarkWish, limitMs: number): Promise<MarkedPoint> {
    return this.#marks.request(wish, limitMs, () => `the guest is ${this.#status.standing}`);
  }

  /** Compares the whole guest with the replica by hash, after the next point, and sends what differs. */
  resync(): void {
    this.#isResyncAsked = true;
  }

  /** Takes effect with the next full pass. */
  setRate(bytesPerSecond: number): void {
    this.#rate = bytesPerSecond;
  }

  /** Ends supervision; the bitmaps stay in the guest, so that the next start goes on with a delta. */
  async close(): Promise<void> {
    await this.#halt();
    // Whatever stands in the way: the next life, or the stop hook, tries again.
    if (this.#isConnected) await this.#o.capture.park().catch((error: unknown) => this.#o.log.warn({ err: error }, 'not everything could be taken out of the guest'));
    await this.#o.capture.close();
  }

  /** Ends supervision and takes everything of ours out of the guest. */
  async release(): Promise<void> {
    await this.#halt();
    await this.#o.capture.connect();
    await this.#o.capture.release();
  }

  async #halt(): Promise<void> {
    this.#stop.abort(new Error('supervision ended'));
    await this.#running;
    this.#marks.close();
    this.#running = null;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        if (this.#handover.noted?.state === 'relinquished') {
          this.#status.term = this.#handover.noted.term;
          this.#status.enter('relinquished', `handed over: live elsewhere since term ${this.#status.term}`);
          await this.#handover.stayAway(this.#o.link, this.#o.capture, signal);
          continue;
        }
        await this.#connectGuest();
        // Of an earlier life, or of an attempt whose undoing failed.
        if (this.#handover.noted !== null) await this.#handover.takeUp(this.#o.capture.power());
        const session = await this.#awaitSession(signal);
        await this.#protect(session, signal);
      } catch (error) {
        if (signal.aborted) break;
        await this.#recover(error, signal);
      }
    }
  }

  async #connectGuest(): Promise<void> {
    if (this.#isConnected) return;
    if (this.#status.phase !== 'behind') this.#status.enter('connecting', 'connecting to the guest');
    const guest = await this.#o.capture.connect();
    this.#isConnected = true;
    this.#hardware = guest.hardware;
    this.#status.disks = guest.disks;
    void this.#o.capture.closed().then(() => { this.#isConnected = false; });
    await this.#o.noteImages?.(await this.#o.capture.power().images());
  }

  /** Waits for the target; meanwhile keeps the figure of how far behind it is. */
  async #awaitSession(signal: AbortSignal): Promise<TargetSession> {
    const waiting = new AbortController();
    const stop = (): void => waiting.abort(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    try {
      const session = this.#o.link.session(waiting.signal);
      let isDone = false;
      const done = session.then(() => { isDone = true; }, () => { isDone = true; });
      await Promise.race([done, this.#o.clock.delay(50, signal)]);
      if (!isDone) await this.#o.capture.rest();
      while (!isDone) {
        const link = this.#o.link.report();
        this.#status.enter('behind', `target ${link.state}: ${link.lastFault?.message ?? 'no connection yet'}`);
        if (this.#isConnected) this.#status.behindBytes = await this.#o.capture.measureDirtyBytes();
        await Promise.race([done, this.#o.clock.delay(measureMs, signal)]);
      }
      return await session;
    } finally {
      signal.removeEventListener('abort', stop);
      waiting.abort(new Error('no longer waiting'));
    }
  }

  async #recover(error: unknown, signal: AbortSignal): Promise<void> {
    const fault = asFault(error);
    this.#status.fault(fault);
    this.#o.log.warn({ guest: this.#o.facts.name, code: fault.code, facts: fault.facts, retryMs: this.#retryMs }, fault.message);
    switch (fault.code) {
      case 'TERM_OLD': case 'GROUP_FAILED_OVER':
        this.#status.enter('superseded', fault.message);
        this.#retryMs = retryMsMax;
        break;
      case 'GROUP_FOREIGN': case 'GUEST_UNSUITED': case 'GUEST_TAKEN':
        this.#status.enter('refused', fault.message);
        this.#retryMs = retryMsMax;
        break;
      case 'GROUP_UNCOMMITTED':
        // Until the guest's data has come home, which may be any moment.
        this.#retryMs = Math.min(this.#retryMs, uncommittedRetryMs);
        this.#status.enter('held', fault.message);
        break;
      case 'STORE_FULL': case 'STORE_SYNC': case 'RETENTION_FULL':
        this.#status.enter('held', fault.message);
        break;
      case 'QMP_UNREACHABLE': case 'QMP_CLOSED': case 'QMP_TIMEOUT': case 'QMP_GARBAGE': case 'LIBVIRT_UNREACHABLE': case 'LIBVIRT_REFUSED':
        this.#isConnected = false;
        this.#status.enter('connecting', fault.message);
        await this.#o.capture.close();
        break;
      case 'GUEST_CHANGED':
        // Connecting anew lists the disks and records the hardware as they are now, for the next announcement.
        this.#isConnected = false;
        this.#status.enter('behind', fault.message);
        await this.#o.capture.close();
        break;
      case 'CUT_BLURRED':
        return; // cut again at once: the guest's next instant is as good
      default:
        this.#status.enter(fault.code !== 'LEASE_LOST' ? 'behind' : fault.facts['isSuperseded'] === true ? 'superseded' : 'held', fault.message);
    }
    await this.#o.capture.rest();
    const pauseMs = this.#retryMs * (0.5 + this.#o.random.fraction() / 2);
    this.#retryMs = Math.min(retryMsMax, this.#retryMs * 2);
    await this.#o.clock.delay(pauseMs, signal).catch((reason: unknown) => { if (!signal.aborted) throw reason; });
  }

  /** All that happens over one session: it ends by a fault, or returns when both sides are to be asked anew. */
  async #protect(session: TargetSession, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    // Every record that waits for the link listens.
    setMaxListeners(0, over.signal);
    const end = (reason: unknown): void => over.abort(reason);
    const onStop = (): void => end(signal.reason);
    signal.addEventListener('abort', onStop, { once: true });
    const ignored = session.listen(this.#o.facts.groupId, {
      onClosed: end,
      onApplied: (applied) => this.#status.applied(applied),
      onHeld: (code, message) => end(new Fault('STORE_FULL', `the target holds us off (${code}): ${message}`)),
      onRefused: end,
      onOrder: (order) => this.#handover.ordered(order),
    });
    try {
      const announced = this.#o.capture.disks();
      const holding = await session.announce(this.#announcement());
      await this.#o.noteTerm?.(holding.term);
      this.#status.term = holding.term;
      await this.#advance(session, holding, announced, over.signal);
    } finally {
      ignored();
      this.#handover.forget();
      signal.removeEventListener('abort', onStop);
      // What this attempt still has on its way out must not reach the target behind the next announcement.
      end(new Error('this attempt is over'));
    }
  }

  #announcement(): GroupAnnouncement {
    const { groupId, name, rpoMs } = this.#o.facts;
    return { group: groupId, name, term: this.#status.term, rpoMs, disks: this.#o.capture.disks().map((disk) => ({ ...disk })), hardware: { ...this.#hardware } };
  }

  async #advance(session: TargetSession, holding: GroupHolding, announced: readonly CapturedDisk[], signal: AbortSignal): Promise<void> {
    const standing = await this.#o.capture.reconcile(heldPoint(holding), holding.open?.parts ?? 0);
    if (!isSameDisks(announced, this.#o.capture.disks())) throw new Fault('GUEST_CHANGED', 'the disks are not those that were announced');
    const step = planNextStep(holding, standing, this.#isResyncAsked);
    if (step.step !== 'cycle' && this.#status.isPaused) {
      this.#status.enter(step.step, `paused before it began: ${step.why}`);
      await this.#untilResumed(signal);
      return; // an image may have been put under the group meanwhile: ask both sides anew
    }
    if (step.step === 'cycle') return this.#cycles(session, holding, step.base, signal);
    if (this.#o.passes.isFull) this.#status.enter(step.step, `waits for its turn on the link: ${step.why}`);
    const passed = await this.#o.passes.take(() => this.#pass(session, holding, step, signal), signal);
    this.#isResyncAsked = false;
    return this.#cycles(session, passed.holding, passed.base, signal);
  }

  /** Resolves with what both sides agree on then. */
  async #pass(session: TargetSession, holding: GroupHolding, step: Exclude<NextStep, { step: 'cycle' }>, signal: AbortSignal): Promise<{ readonly holding: GroupHolding; readonly base: PointId }> {
    switch (step.step) {
      case 'first-sync': {
        this.#status.enter('first-sync', step.why);
        this.#o.log.info({ guest: this.#o.facts.name, compared: step.isCompared }, `first sync: ${step.why}`);
        const seedDeltaId = this.#o.random.bytes(8).readBigUInt64LE();
        const begun = await session.seedBegin(this.#o.facts.groupId, seedDeltaId.toString(16).padStart(16, '0'));
        const base = { term: holding.term, point: 0 };
        await this.#fullPass(session, begun, { kind: 'seed', seedDeltaId, isCompared: step.isCompared, ...(begun.images === undefined ? {} : { blockBytes: comparePageBytes }) }, base, signal);
        return { holding: { ...begun, seed: 'done' }, base };
      }
      case 'resync': {
        this.#status.enter('resync', step.why);
        this.#o.log.warn({ guest: this.#o.facts.name }, `resync: ${step.why}`);
        const open = await this.#fullPass(session, holding, { kind: 'delta', isCompared: true }, step.base, signal);
        return { holding: { ...holding, open }, base: step.base };
      }
      default: return step satisfies never;
    }
  }

  async #fullPass(
    session: TargetSession, holding: GroupHolding, manner: Pick<PassSenderOptions, 'kind' | 'isCompared' | 'seedDeltaId' | 'blockBytes'>, base: PointId, signal: AbortSignal,
  ): Promise<GroupHolding['open']> {
    const { capture, facts, encoder, random } = this.#o;
    const next = capture.passPoint?.() ?? nextPoint(base, holding.term);
    const sender = new PassSender({ session, groupId: facts.groupId, holding, base, next, ...manner, encoder, random, signal });
    this.#status.passBegan(this.#rate);
    this.#isPassing = true;
    this.#lendTurn(this.#status.isPaused);
    try {
      await capture.fullPass(sender, {
        rateBytesPerSecond: this.#rate,
        signal,
        images: holding.images ?? null,
        onProgress: (progress) => {
          this.#status.passProgressed(progress);
          this.#status.passSentBytes = sender.sentBytes;
        },
      });
      const ended = await sender.finish();
      await capture.settlePass(base);
      return ended.open;
    } finally {
      sender.abandon();
      this.#isPassing = false;
      this.#lendTurn(false);
      this.#status.passEnded();
    }
  }

  #untilResumed(signal: AbortSignal): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#resume = resolve;
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
  }

  /** Cuts at the group's pace; a round is followed at once by the next cut. */
  async #cycles(session: TargetSession, holding: GroupHolding, from: PointId, signal: AbortSignal): Promise<void> {
    const { capture, clock, facts, turns } = this.#o;
    let [base, open] = [from, holding.open];
    // What was cut for a request before the last session ended may have arrived.
    this.#told(this.#marks.held(base));
    for (;;) {
      if (signal.aborted) throw signal.reason;
      if (this.#handover.isAsked) return this.#handOver(session, { holding, base, open }, signal);
      while (this.#isAtRest) await this.#untilResumed(signal);
      const begunMs = clock.monotonicMs();
      await capture.awaitChange?.(base, signal);
      const endTurn = await turns.take(signal);
      if (this.#handover.isAsked) { endTurn(); continue; }
      const { delta, next, open: after } = await this.#cycle(session, { holding, base, open }, signal, endTurn).finally(endTurn);
      open = after;
      this.#retryMs = retryMsMin;
      if (delta.isRound) {
        this.#status.enter('behind', 'catching up in rounds: the delta is larger than the spool');
        continue;
      }
      this.#status.acknowledged(next);
      this.#told(this.#marks.held(next));
      this.#acknowledged({ ...next, kind: delta.kind, cutAtMs: delta.cutAtMs });
      this.#status.enter('protected', `newest point ${formatPoint(next)}`);
      base = next;
      this.#isAtRest = delta.kind === 'final';
      // Both sides are asked anew, and what follows is a pass.
      if (this.#isResyncAsked) return;
      // Copies of dirty blocks come no faster than they are worth, also while they stand in for a write log.
      const paceMs = capture.figures().capture === 'writelog' ? facts.rpoMs : Math.max(copyPaceMsMin, facts.rpoMs);
      await this.#untilDue(Math.max(0, paceMs - (clock.monotonicMs() - begunMs)), signal);
    }
  }

  /** `onLeft`: all of it has left, and only the target is waited for. */
  async #cycle(session: TargetSession, agreed: Agreed, signal: AbortSignal, onLeft: () => void): Promise<{ readonly delta: CapturedDelta; readonly next: PointId; readonly open: GroupHolding['open'] }> {
    const { capture } = this.#o;
    const follows = nextPoint(agreed.base, agreed.holding.term);
    const { delta, about } = await cutPoint(this.#o, agreed.base, follows, this.#marks.next());
    const next = delta.id ?? follows;
    if (!delta.disks.every(({ disk, sizeBytes }) => capture.disks()[disk]?.sizeBytes === sizeBytes) || !isSameDisks(this.#status.disks, capture.disks())) {
      await delta.end('dropped');
      throw new Fault('GUEST_CHANGED', 'a disk changed its size, or came or went');
    }
    if (!delta.isRound) this.#status.cut(next, delta.cutAtMs, delta.cutMonotonicMs);
    this.#status.behindBytes = delta.changedBytes;
    return { delta, next, open: await shipDelta(this.#o, session, agreed, { delta, about, next }, signal, onLeft) };
  }

  /** Shuts the guest down, and sends what is left as a final point. Then it is let go of, or both sides are asked anew. */
  async #handOver(session: TargetSession, from: Agreed, signal: AbortSignal): Promise<void> {
    const { capture, facts, log } = this.#o;
    const { term } = from.holding;
    this.#status.enter('yielding', `shutting ${facts.name} down for a planned failover`);
    log.warn({ guest: facts.name }, `a planned failover of ${facts.name} begins: it is shut down`);
    const isLetGo = await this.#handover.carryOut(session, capture.power(), async () => {
      let { base, open } = from;
      for (;;) {
        const delta = await capture.cut(base, nextPoint(base, term), 'final');
        const next = delta.id ?? nextPoint(base, term);
        open = await shipDelta(this.#o, session, { holding: from.holding, base, open }, { delta, next, about: {} }, signal);
        if (delta.isRound) continue;
        this.#acknowledged({ ...next, kind: delta.kind, cutAtMs: delta.cutAtMs });
        if (delta.kind === 'final') return next;
        base = next;
      }
    }, signal);
    if (!isLetGo) return log.warn({ guest: facts.name }, `the planned failover of ${facts.name} came to nothing; it runs on`);
    log.warn({ guest: facts.name }, `${facts.name} was handed over`);
    this.#isConnected = false;
  }

  #told(marked: MarkedPoint | null): void {
    if (marked === null) return;
    this.#status.marked = marked;
    const facts = { guest: this.#o.facts.name, ...marked };
    if (marked.reason === null) this.#o.log.info(facts, `point ${formatPoint(marked)} is ${marked.kind}`);
    else this.#o.log.warn(facts, `point ${formatPoint(marked)} is ${marked.kind}, and was to be app: ${marked.reason.code}: ${marked.reason.message}`);
  }

  /** Until the pace asks for the next cut, or somebody does. */
  async #untilDue(ms: number, signal: AbortSignal): Promise<void> {
    const pause = new AbortController();
    const stop = (): void => pause.abort(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    try {
      await this.#handover.orOrder(this.#marks.orRequest(this.#o.clock.delay(ms, pause.signal)));
    } finally {
      signal.removeEventListener('abort', stop);
      pause.abort(new Error('no longer waiting'));
    }
  }

  #acknowledged(point: RelayedPoint): void {
    this.#newest.reached(point);
    this.#o.onAcknowledged({ ...point, appAtMs: this.#marks.lastAppAtMs ?? undefined });
  }

  /** For whoever sends its points on to another target. */
  relayed(): RelayedGuest {
    const { capture } = this.#o;
    return {
      newest: () => this.#newest.point,
      awaitNewer: (since, signal) => this.#newest.newerThan(since, signal),
      disks: () => capture.disks(),
      hardware: () => this.#hardware,
      power: () => wakingPower(capture.power(), () => { this.#isAtRest = false; this.#resume(); }),
      takeFinal: async () => { await this.#marks.request({ isApp: false, isFinal: true }, finalMsMax, () => `the guest is ${this.#status.standing}`); },
    };
  }
}

/** What the system refuses (a disk that fails, a folder that may not be entered) is the world's failure, not a bug: the guest is tried again. */
function asFault(error: unknown): Fault {
  if (isFault(error)) return error;
  if (error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === 'string') {
    return new Fault('INTERNAL', `the system refused: ${error.message}`, { errno: (error as NodeJS.ErrnoException).code }, error);
  }
  throw error;
}

function isSameDisks(a: readonly CapturedDisk[], b: readonly CapturedDisk[]): boolean {
  const describe = (disks: readonly CapturedDisk[]): string => JSON.stringify(disks.map(({ disk, name, sizeBytes }) => [disk, name, sizeBytes]));
  return describe(a) === describe(b);
}
