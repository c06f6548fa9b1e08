/**
 * The points of a guest that are more than due: asked for by a person, or application-consistent by schedule. It keeps the
 * requests in order, says which one the next cut is for, and settles each once its point is acknowledged, withdrawn, or given up.
 * It cuts and freezes nothing: that is the supervisor's, which also decides when.
 */
import type { Clock } from '../../host/clock.ts';
import { Fault } from '../../journal/fault.ts';
import { formatPoint, isSamePoint, type PointId } from '../../journal/point.ts';
import type { MarkedPoint } from '../report.ts';
import { isAppDue } from './app-schedule-plan.ts';

export interface MarkWish {
  /** The guest is to freeze its file systems. */
  readonly isApp: boolean;
  /** The guest stands still: this is all that its disks hold. */
  readonly isFinal?: boolean;
  readonly label?: string | undefined;
}

/** Requests that wait at once; a person makes one at a time. */
const requestsMax = 16;
/** A guest that froze in vain so often for one request is left in peace: the point is taken as `crash`. */
const freezesMax = 3;

interface Request {
  readonly wish: MarkWish;
  /** What was cut for it and is not acknowledged. */
  cut: MarkedPoint | null;
  freezes: number;
  fault: Fault | null;
  settle(point: MarkedPoint | null, fault: Fault | null): void;
}

/** What one cut is for. */
export interface MarkOrder {
  readonly wish: MarkWish;
  /** Whether the guest is to freeze for this cut: not when that was tried often enough. */
  readonly isFrozenFor: boolean;
  /** Of the last freeze for it that came to nothing. */
  readonly fault: Fault | null;
  /** A freeze was tried for it; `fault`: what came between, if anything. */
  froze(fault: Fault | null): void;
  /** This point was cut for it, and is on its way. */
  cut(point: MarkedPoint): void;
}

export class Marks {
  readonly #clock: Clock;
  readonly #everyMs: number | null;
  readonly #guest: string;
  #requests: Request[] = [];
  /** Wall clock of the last application-consistent point, or of the attempt. */
  #lastAppAtMs: number | null;
  #wake: () => void = () => undefined;

  /** `everyMs`: of the schedule; null: none. `lastAppAtMs`: of an earlier life of the daemon. */
  constructor(clock: Clock, guest: string, everyMs: number | null, lastAppAtMs: number | null) {
    this.#clock = clock;
    this.#guest = guest;
    this.#everyMs = everyMs;
    this.#lastAppAtMs = lastAppAtMs;
  }

  get lastAppAtMs(): number | null {
    return this.#lastAppAtMs;
  }

  /** Resolves when the target holds the point. Faults: MARK_NOT_TAKEN. */
  request(wish: MarkWish, limitMs: number, why: () => string): Promise<MarkedPoint> {
    if (this.#requests.length >= requestsMax) return Promise.reject(new Fault('MARK_NOT_TAKEN', `${requestsMax} points of ${this.#guest} are asked for already`, { guest: this.#guest }));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const cut = request.cut === null ? '' : `; it was cut as ${formatPoint(request.cut)}, and may still arrive`;
        request.settle(null, new Fault('MARK_NOT_TAKEN', `no such point of ${this.#guest} was acknowledged within ${limitMs} ms (${why()})${cut}`, { guest: this.#guest, limitMs }));
      }, limitMs);
      const request: Request = {
        wish, cut: null, freezes: 0, fault: null,
        settle: (point, fault) => {
          clearTimeout(timer);
          this.#requests = this.#requests.filter((one) => one !== request);
          if (point === null) reject(fault ?? new Fault('MARK_NOT_TAKEN', `the point of ${this.#guest} was withdrawn`, { guest: this.#guest }));
          else resolve(point);
        },
      };
      this.#requests.push(request);
      this.#wake();
    });
  }

  /** What the next cut is for, if for more than the pace. */
  next(): MarkOrder | null {
    if (this.#requests.length === 0 && isAppDue(this.#everyMs, this.#lastAppAtMs, this.#clock.nowMs())) {
      const request: Request = { wish: { isApp: true }, cut: null, freezes: 0, fault: null, settle: () => { this.#requests = this.#requests.filter((one) => one !== request); } };
      this.#requests.push(request);
    }
    // Kept in hand, as it may be withdrawn while the guest is cut for it.
    const [first] = this.#requests;
    if (first === undefined) return null;
    return {
      wish: first.wish, isFrozenFor: first.wish.isApp && first.freezes < freezesMax, fault: first.fault,
      froze: (fault) => {
        first.freezes += 1;
        first.fault = fault;
      },
      cut: (point) => { first.cut = point; },
    };
  }

  /** The target holds this point; what was cut for a request and is not this one is lost, and is cut again. */
  held(id: PointId | null): MarkedPoint | null {
    const request = this.#requests.find(({ cut }) => cut !== null);
    const cut = request?.cut ?? null;
    if (request === undefined || cut === null) return null;
    if (!isSamePoint(cut, id)) {
      request.cut = null;
      return null;
    }
    if (request.wish.isApp) this.#lastAppAtMs = cut.cutAtMs;
    request.settle(cut, null);
    return cut;
  }

  /** Resolves when a request comes, at once when one waits; or when `paused` does. */
  async orRequest(paused: Promise<unknown>): Promise<void> {
    paused.catch(() => undefined); // whoever asks has gone on, then
    if (this.#requests.length > 0) return;
    await Promise.race([paused, new Promise<void>((resolve) => { this.#wake = resolve; })]);
  }

  /** Supervision ends. */
  close(): void {
    for (const request of [...this.#requests]) request.settle(null, null);
  }
}
