/** Looks at the free space of the data folder's file system, so that a report can say it and when it will be used up (forecast-plan.ts). It decides nothing: what is taken is space-watch.ts's matter. */
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import { planForecast, type SpaceSeen } from './forecast-plan.ts';
import { errorCode } from './store-fault.ts';

const paceMs = 60_000;
/** Looks that the forecast is made from: six hours. */
const seenMax = 360;

export interface VolumeReport {
  readonly freeBytes: number;
  /** Nothing more is taken before less than this is free. */
  readonly keptBytes: number;
  /** Until that is reached, if it goes on as in the last hours, ms. Null: not known, or not within a year. */
  readonly fullInMs: number | null;
}

export class VolumeWatch {
  readonly #o: { readonly disk: Disk; readonly clock: Clock; readonly folder: string; readonly keptBytes: number };
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #seen: SpaceSeen[] = [];

  constructor(options: { readonly disk: Disk; readonly clock: Clock; readonly folder: string; readonly keptBytes: number }) {
    this.#o = options;
    this.#running = this.#run();
  }

  /** Null: it was not looked at yet, or the file system does not say. */
  report(): VolumeReport | null {
    const last = this.#seen.at(-1);
    const { keptBytes } = this.#o;
    return last === undefined ? null : { freeBytes: last.freeBytes, keptBytes, fullInMs: planForecast(this.#seen, keptBytes) };
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('the volume is looked at no more'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { disk, clock, folder } = this.#o;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        this.#seen = [...this.#seen, { atMs: clock.monotonicMs(), freeBytes: await disk.freeBytes(folder) }].slice(-seenMax);
      } catch (error) {
        if (errorCode(error) === null) throw error;
        this.#seen = [];
      }
      await clock.delay(paceMs, signal).catch((error: unknown) => { if (!signal.aborted) throw error; });
    }
  }
}
