/**
 * Whether a group must hold its source off, and since when. A full disk holds until there is space again, which is looked for
 * in a steady pace. Any other failure holds for one pause: after it the source sends again, and the next success or failure says
 * how things are.
 */
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import { Fault } from '../../journal/fault.ts';
import type { GroupStoreReport } from './store.ts';
import { errorCode } from './store-fault.ts';

/** Pace of looking for space, ms. */
const lookMs = 1000;

export class SpaceWatch {
  readonly #disk: Disk;
  readonly #clock: Clock;
  readonly #folder: string;
  readonly #freeBytesMin: number;
  readonly #segmentBytes: number;
  #bytesUnchecked = 0;
  readonly #stopping = new AbortController();
  #held: GroupStoreReport['held'] = null;
  #full: Fault | null = null;
  #isLooking = false;
  #overLimit: { readonly fault: Fault; readonly held: NonNullable<GroupStoreReport['held']> } | null = null;
  #applyTrouble: GroupStoreReport['held'] = null;

  constructor(options: { readonly disk: Disk; readonly clock: Clock; readonly folder: string; readonly freeBytesMin: number; readonly segmentBytes: number }) {
    this.#disk = options.disk;
    this.#clock = options.clock;
    this.#folder = options.folder;
    this.#freeBytesMin = options.freeBytesMin;
    this.#segmentBytes = options.segmentBytes;
  }

  /** Set while nothing can be taken. */
  get full(): Fault | null { return this.#full ?? this.#overLimit?.fault ?? null; }

  report(): GroupStoreReport['held'] { return this.#held ?? this.#overLimit?.held ?? this.#applyTrouble; }

  /** Journal and history are past what they may take, and nothing of them may be given up; null: there is room again. */
  overLimit(fault: Fault | null): void {
    this.#overLimit = fault === null ? null : { fault, held: { code: fault.code, sinceMs: this.#overLimit?.held.sinceMs ?? this.#clock.nowMs(), message: fault.message } };
  }

  /** Fault STORE_FULL. For what goes past the journal: asked of the file system once per segment's worth of data, as the journal does. */
  async checkBefore(bytes: number): Promise<void> {
    this.#bytesUnchecked += bytes;
    if (this.#bytesUnchecked < this.#segmentBytes) return;
    this.#bytesUnchecked = 0;
    const [freeBytes, freeBytesMin] = [await this.#disk.freeBytes(this.#folder), this.#freeBytesMin];
    if (freeBytes < freeBytesMin + this.#segmentBytes) throw new Fault('STORE_FULL', `${freeBytes} bytes are free, ${freeBytesMin} of them are to stay free`, { freeBytes, freeBytesMin });
  }

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
      return await this.#disk.freeBytes(this.#folder) >= this.#freeBytesMin + this.#segmentBytes;
    } catch (error) {
      // A disk that cannot say how much is free has no space for us.
      if (errorCode(error) === null) throw error;
      return false;
    }
  }
}
