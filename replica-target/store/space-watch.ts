/**
 * Whether a group must hold its source off, and since when. A full disk holds until there is space again, which is looked for
 * in a steady pace. Any other failure holds for one pause: after it the source sends again, and the next success or failure says
 * how things are.
 */
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import type { Fault } from '../../journal/fault.ts';
import type { GroupStoreReport } from './store.ts';
import { errorCode } from './store-fault.ts';

/** Pace of looking for space, ms. */
const lookMs = 1000;

export class SpaceWatch {
  readonly #disk: Disk;
  readonly #clock: Clock;
  readonly #folder: string;
  readonly #needBytes: number;
  readonly #stopping = new AbortController();
  #held: GroupStoreReport['held'] = null;
  #full: Fault | null = null;
  #isLooking = false;
  #applyTrouble: GroupStoreReport['held'] = null;

  /** `needBytes`: what must be free before a full disk counts as having space again. */
  constructor(options: { readonly disk: Disk; readonly clock: Clock; readonly folder: string; readonly needBytes: number }) {
    this.#disk = options.disk;
    this.#clock = options.clock;
    this.#folder = options.folder;
    this.#needBytes = options.needBytes;
  }

  /** Set while nothing can be taken. */
  get full(): Fault | null { return this.#full; }

  report(): GroupStoreReport['held'] { return this.#held ?? this.#applyTrouble; }

  /** Taking failed. */
  hold(fault: Fault): void {
    this.#held = { code: fault.code, sinceMs: this.#held?.sinceMs ?? this.#clock.nowMs(), message: fault.message };
    if (fault.code === 'STORE_FULL') this.#full = fault;
    if (this.#isLooking) return;
    this.#isLooking = true;
    void this.#look();
  }

  /** Something was taken and is durable. */
  release(): void {
    if (this.#full === null) this.#held = null;
  }

  /** Applying failed, or went through again (null). */
  applying(fault: Fault | null): void {
    this.#applyTrouble = fault === null ? null : { code: fault.code, sinceMs: this.#applyTrouble?.sinceMs ?? this.#clock.nowMs(), message: fault.message };
  }

  stop(): void {
    this.#stopping.abort(new Error('the store is closed'));
  }

  async #look(): Promise<void> {
    const { signal } = this.#stopping;
    try {
      do {
        await this.#clock.delay(lookMs, signal);
        if (this.#full !== null && await this.#hasSpace()) this.#full = null;
      } while (this.#full !== null);
      this.#held = null;
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#isLooking = false;
    }
  }

  async #hasSpace(): Promise<boolean> {
    try {
      return await this.#disk.freeBytes(this.#folder) >= this.#needBytes;
    } catch (error) {
      // A disk that cannot say how much is free has no space for us.
      if (errorCode(error) === null) throw error;
      return false;
    }
  }
}
