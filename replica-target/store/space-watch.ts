/**
 * Whether a group must hold its source off, and since when. A full disk holds until there is space again, which is looked for
 * in a steady pace; any other failure is only shown until the next success.
 */
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import type { Fault } from '../../journal/fault.ts';
import type { GroupStoreReport } from './store.ts';

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
    if (fault.code !== 'STORE_FULL' || this.#full !== null) return;
    this.#full = fault;
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
    while (this.#full !== null) {
      try {
        await this.#clock.delay(lookMs, signal);
        if (await this.#disk.freeBytes(this.#folder) < this.#needBytes) continue;
      } catch (error) {
        if (signal.aborted) return;
        // A disk that cannot say how much is free has not got space for us.
        if (error instanceof Error && 'code' in error) continue;
        throw error;
      }
      this.#full = null;
      this.#held = null;
    }
  }
}
