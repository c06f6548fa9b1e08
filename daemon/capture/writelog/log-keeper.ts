/**
 * When a guest has write logs and when the dirty bitmaps stand in for them: by what the operator chose, by what its QEMU and the
 * spool allow, and with a pause after each time that they had to be given up. How logs work is in write-logs.ts.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../../host/clock.ts';
import { isFault, type Fault } from '../../../journal/fault.ts';
import type { PointId } from '../../../journal/point.ts';
import type { GuestDisk } from '../../../qemu/guest-disks.ts';
import type { CaptureChoice } from '../capture.ts';
import { planCapture, type WritePattern } from './capture-plan.ts';
import type { LogGuest, WriteLogs } from './write-logs.ts';

/** How often write logs are looked after, ms: a log of a sixteenth of the spool must not fill up between two looks. */
const tendMs = 200;
/** After the logs had to be given up, they are not put in again for this long, ms: doubled each time, up to the second. */
const pauseMsMin = 5_000;
const pauseMsMax = 300_000;
/** Cuts that changed something, from which `auto` judges how a guest writes; then it begins anew. */
const patternCuts = 20;

export interface LogKeeperOptions { readonly logs: WriteLogs; readonly clock: Clock; readonly log: Logger; readonly choice: CaptureChoice; readonly rpoMs: number }

export class LogKeeper {
  readonly logs: WriteLogs;
  readonly #o: LogKeeperOptions;
  #choice: CaptureChoice;
  #why = '';
  #pauseMs = pauseMsMin;
  #notBeforeMs = 0;
  #pattern: WritePattern | null = null;
  #patternNow = { cuts: 0, writtenBytes: 0, changedBytes: 0 };
  #writtenBytes: number | null = null;

  constructor(options: LogKeeperOptions) {
    this.#o = options;
    this.logs = options.logs;
    this.#choice = options.choice;
  }

  /** Why changes are captured as they are just now. */
  get why(): string { return this.#why; }

  choose(choice: CaptureChoice): void {
    this.#choice = choice;
    this.#notBeforeMs = 0;
  }

  wishes(): boolean {
    const plan = planCapture({ choice: this.#choice, rpoMs: this.#o.rpoMs, now: this.logs.isIn ? 'writelog' : 'cbt', pattern: this.#pattern });
    this.#why = plan.why;
    return plan.capture === 'writelog';
  }

  /** After a cut: what the guest had its devices write in all, and what the delta has of it. Never rejects: no cut depends on it. */
  async observe({ qmp }: LogGuest, changedBytes: number): Promise<void> {
    if (this.#choice !== 'auto') return;
    const stats = await qmp.execute<readonly { readonly stats: { readonly wr_bytes: number } }[]>('query-blockstats').catch((error: unknown) => {
      this.#o.log.debug({ err: error }, 'how the guest writes could not be asked');
      return [];
    });
    const before = this.#writtenBytes;
    this.#writtenBytes = stats.reduce((sum, one) => sum + one.stats.wr_bytes, 0);
    if (before === null || this.#writtenBytes <= before || changedBytes === 0) return;
    const { cuts, writtenBytes, changedBytes: changed } = this.#patternNow;
    this.#patternNow = { cuts: cuts + 1, writtenBytes: writtenBytes + this.#writtenBytes - before, changedBytes: changed + changedBytes };
    if (this.#patternNow.cuts < patternCuts) return;
    this.#pattern = this.#patternNow;
    this.#patternNow = { cuts: 0, writtenBytes: 0, changedBytes: 0 };
  }

  /** Puts the logs in where they are wished for; when that fails, the bitmaps do. True: the disks may have other nodes on top now. */
  async attach(guest: LogGuest, disks: readonly GuestDisk[]): Promise<boolean> {
    if (!this.wishes()) return false;
    if (this.#o.clock.monotonicMs() < this.#notBeforeMs) {
      this.#why = givenUp(this.logs.outWhy);
      return false;
    }
    try {
      await this.logs.attach(guest, disks);
      this.#forgetPattern();
    } catch (error) {
      if (!isRefusal(error)) throw error;
      await this.pause(guest, `it could not be put in: ${error.message}`);
    }
    return true;
  }

  /** After a cut that was copied: the next can be read from the logs. If not, this one is none the worse. */
  async mark(guest: LogGuest, point: PointId, disks: readonly GuestDisk[]): Promise<void> {
    if (!this.logs.isIn) return;
    try {
      await this.logs.mark(guest, point, disks);
    } catch (error) {
      if (!isLogFault(error)) throw error;
      await this.pause(guest, error.message);
    }
  }

  /** The target has a point that the logs go on from: whatever was wrong with them is over. */
  worked(): void {
    this.#pauseMs = pauseMsMin;
  }

  /** The bitmaps go on in the logs' place, for a while. */
  async pause(guest: LogGuest, why: string): Promise<void> {
    this.#notBeforeMs = this.#o.clock.monotonicMs() + this.#pauseMs;
    this.#pauseMs = Math.min(pauseMsMax, this.#pauseMs * 2);
    this.#o.log.warn({ why }, 'the write log is given up for now; the dirty bitmaps go on from the same point');
    this.#why = givenUp(why);
    await this.giveUp(guest, why);
  }

  async giveUp(guest: LogGuest, why: string): Promise<void> {
    await this.logs.giveUp(guest, await guest.listDisks(), why);
    this.#forgetPattern();
  }

  /** What was seen of one capture says nothing of the other. */
  #forgetPattern(): void {
    this.#pattern = null;
    this.#patternNow = { cuts: 0, writtenBytes: 0, changedBytes: 0 };
  }

  /** Until the signal: sees to it that no log fills up unseen, also while the target is away. `inTurn`: never in the middle of a cut or a pass. */
  async tend(guest: LogGuest, signal: AbortSignal, inTurn: (act: () => Promise<void>) => Promise<void>): Promise<void> {
    const look = async (): Promise<void> => {
      if (!signal.aborted && await this.logs.tend(guest)) await this.pause(guest, this.logs.outWhy);
    };
    for (;;) {
      try {
        await this.#o.clock.delay(tendMs, signal);
        await inTurn(look);
      } catch (error) {
        if (signal.aborted) return;
        if (isFault(error)) this.#o.log.debug({ code: error.code }, error.message);
        // What the system refuses (a file that cannot be made) is no bug; nor is it one the next time.
        else if (typeof (error as NodeJS.ErrnoException).syscall === 'string') this.#o.log.warn({ err: error }, 'the write logs could not be looked after');
        else throw error;
      }
    }
  }
}

export function isLogFault(error: unknown): error is Fault {
  return isFault(error, 'LOG_BROKEN') || isFault(error, 'LOG_IMPLAUSIBLE');
}

function isRefusal(error: unknown): error is Fault {
  return isFault(error, 'SPOOL_FULL') || isFault(error, 'QMP_COMMAND') || isFault(error, 'GUEST_CHANGED') || isFault(error, 'GUEST_UNSUITED');
}

function givenUp(why: string): string {
  return `the write log was given up: ${why}`;
}
