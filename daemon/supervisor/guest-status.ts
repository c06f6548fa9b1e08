/**
 * The figures of one supervised guest, as they change, and the report made from them. Keeps no decision: the supervisor
 * tells it what happened, renderers read the report.
 */
import type { Clock } from '../../host/clock.ts';
import type { Fault } from '../../journal/fault.ts';
import { comparePoints, isSamePoint, type PointId } from '../../journal/point.ts';
import type { CaptureFigures, CapturedDisk, FullPassProgress } from '../capture/capture.ts';
import type { GuestPhase, GuestReport, MarkedPoint } from '../report.ts';
import { Exposure } from './exposure.ts';

interface CutTimes { readonly id: PointId; readonly cutAtMs: number; readonly cutMonotonicMs: number }

export interface GuestFacts {
  readonly name: string;
  readonly groupId: string;
  readonly qmpPath: string;
  readonly members?: GuestReport['members'];
  readonly target: string;
  readonly rpoMs: number;
}

/** Points whose cut time is remembered until they are reported applied. */
const cutsMax = 4096;

export class GuestStatus {
  readonly #clock: Clock;
  readonly #exposure = new Exposure();
  #phase: GuestPhase = 'connecting';
  #detail = 'starting';
  #phaseSinceMs: number;
  #cuts: CutTimes[] = [];
  #captured: CutTimes | null = null;
  #received: CutTimes | null = null;
  #applied: CutTimes | null = null;
  #pass: { progress: FullPassProgress; startedAtMs: number; rate: number } | null = null;
  #lastFault: GuestReport['lastFault'] = null;
  #fullPasses = 0;
  term = 1;
  disks: readonly CapturedDisk[] = [];
  behindBytes = 0;
  isPaused = false;
  passSentBytes = 0;
  marked: MarkedPoint | null = null;

  /** `last`: the newest point that an earlier life of the daemon knew to be acknowledged; its age is then told by the wall clock. */
  constructor(clock: Clock, last: (PointId & { readonly cutAtMs: number }) | null = null) {
    this.#clock = clock;
    this.#phaseSinceMs = clock.nowMs();
    if (last !== null) this.#received = { id: last, cutAtMs: last.cutAtMs, cutMonotonicMs: clock.monotonicMs() - Math.max(0, clock.nowMs() - last.cutAtMs) };
  }

  /** For people: why no point comes, if none does. */
  get standing(): string {
    return `${this.#phase}: ${this.#detail}`;
  }

  get phase(): GuestPhase {
    return this.#phase;
  }

  enter(phase: GuestPhase, detail: string): void {
    if (phase !== this.#phase) this.#phaseSinceMs = this.#clock.nowMs();
    this.#phase = phase;
    this.#detail = detail;
  }

  fault(fault: Fault): void {
    this.#lastFault = { code: fault.code, message: fault.message, atMs: this.#clock.nowMs() };
  }

  passBegan(rateBytesPerSecond: number): void {
    this.#pass = { progress: { doneBytes: 0, totalBytes: 0 }, startedAtMs: this.#clock.nowMs(), rate: rateBytesPerSecond };
    this.passSentBytes = 0;
    this.#fullPasses += 1;
  }

  passProgressed(progress: FullPassProgress): void {
    if (this.#pass !== null) this.#pass.progress = progress;
  }

  passEnded(): void {
    this.#pass = null;
  }

  cut(id: PointId, cutAtMs: number, cutMonotonicMs: number): void {
    this.#captured = { id, cutAtMs, cutMonotonicMs };
    this.#cuts.push(this.#captured);
    if (this.#cuts.length > cutsMax) this.#cuts.shift();
  }

  acknowledged(id: PointId): void {
    const times = this.#cuts.find((cut) => isSamePoint(cut.id, id));
    if (times === undefined) return;
    const before = this.#received;
    if (before !== null) this.#exposure.add(this.#clock.monotonicMs() - before.cutMonotonicMs);
    this.#received = times;
    this.behindBytes = 0;
  }

  applied(id: PointId): void {
    const at = this.#cuts.findIndex((cut) => isSamePoint(cut.id, id));
    if (at < 0) return;
    // Only what was acknowledged is applied; the word of that is older, and may still be on its way through this process.
    if (this.#received === null || comparePoints(id, this.#received.id) > 0) this.acknowledged(id);
    this.#applied = this.#cuts[at]!;
    this.#cuts = this.#cuts.slice(at + 1);
  }

  #unacknowledged(): number {
    const received = this.#received;
    if (received === null) return this.#cuts.length;
    return this.#cuts.length - 1 - this.#cuts.findLastIndex(({ id }) => isSamePoint(id, received.id));
  }

  report(facts: GuestFacts, capture: CaptureFigures | null): GuestReport {
    const age = (times: CutTimes | null): number | null => (times === null ? null : this.#clock.monotonicMs() - times.cutMonotonicMs);
    return {
      ...facts,
      term: this.term,
      phase: this.#phase,
      detail: this.#detail,
      phaseSinceMs: this.#phaseSinceMs,
      disks: this.disks,
      newestPoint: this.#received === null ? null : { term: this.#received.id.term, point: this.#received.id.point, cutAtMs: this.#received.cutAtMs },
      clocks: { capturedMs: age(this.#captured), receivedMs: age(this.#received), appliedMs: age(this.#applied), newestPointMs: age(this.#received) },
      behindBytes: this.behindBytes,
      pass: this.#pass === null ? null : {
        ...this.#pass.progress, rateBytesPerSecond: this.#pass.rate, isPaused: this.isPaused, startedAtMs: this.#pass.startedAtMs, sentBytes: this.passSentBytes,
      },
      capture,
      rpo: this.#exposure.distribution(),
      exposure: this.#exposure.histogram(),
      waiting: { unacknowledgedPoints: this.#unacknowledged(), unappliedPoints: this.#cuts.length },
      lastFault: this.#lastFault,
      fullPasses: this.#fullPasses,
      marked: this.marked,
    };
  }
}
