/**
 * Brings the data of a guest home that was booted from an older point: looks at its QEMU once a second, starts and resumes
 * block-stream as homecoming-plan.ts says, and tells when no image of the guest reads from the view any more. It remembers
 * nothing that QEMU and the images do not say: killed at any moment, the next one goes on where QEMU is.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { continueGuest, dropView, lookAtGuest, resumeStream, streamHome, type GuestLook } from '../../qemu/guest-blocks.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { withMonitor } from './guest-launch.ts';
import { homeProgress, nextHomeSteps, type HomeProgress } from './homecoming-plan.ts';

/** Pace of looking, ms. */
const paceMs = 1000;

export interface HomecomingOptions {
  readonly group: string;
  /** The guest's (guest-launch.ts). */
  readonly folder: string;
  /** Sizes of the disks that were booted from a view, by number. */
  readonly sizes: ReadonlyMap<number, number>;
  readonly isRunning: () => boolean;
  /** Once, when all has arrived; tried again when it fails. */
  readonly onHome: () => Promise<void>;
  readonly log: Logger;
}

export interface HomeReport extends HomeProgress {
  /** `waiting`: QEMU does not answer, or the guest or its job was stopped because the view was away. */
  readonly state: 'streaming' | 'waiting' | 'home';
}

export class Homecoming {
  readonly #o: HomecomingOptions;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  #report: HomeReport;

  constructor(options: HomecomingOptions) {
    this.#o = options;
    let totalBytes = 0;
    for (const sizeBytes of options.sizes.values()) totalBytes += sizeBytes;
    this.#report = { state: 'waiting', doneBytes: 0, totalBytes };
    this.#ended = this.#run();
  }

  report(): HomeReport {
    return this.#report;
  }

  /** Resolves when nothing more is asked of QEMU. What QEMU does already goes on. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    let told: string | null = null;
    while (!signal.aborted && this.#o.isRunning()) {
      try {
        if (await this.#look()) return;
        told = null;
      } catch (error) {
        // QEMU may be gone, or stand still until the view is back, or the disk may be full: none is worth a line a second. A bug has no code.
        if (!(error instanceof Error && 'code' in error)) throw error;
        this.#report = { ...this.#report, state: 'waiting' };
        const code = String(error.code);
        if (told !== code) this.#o.log.warn({ group: this.#o.group, code }, `bringing home the data of ${this.#o.group} waits: ${error.message}`);
        told = code;
      }
      await delay(paceMs, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  /** Whether all has arrived. */
  async #look(): Promise<boolean> {
    const disks = [...this.#o.sizes.keys()];
    return withMonitor(this.#o.folder, async (qmp) => {
      const look = await lookAtGuest(qmp, disks);
      const isStopped = look.runState === 'io-error' || look.disks.some(({ job }) => job?.isStopped === true);
      this.#report = { state: isStopped ? 'waiting' : 'streaming', ...homeProgress(look.disks, this.#o.sizes) };
      return this.#act(qmp, look);
    });
  }

  async #act(qmp: QmpConnection, look: GuestLook): Promise<boolean> {
    for (const step of nextHomeSteps(look)) {
      switch (step.act) {
        case 'stream': await streamHome(qmp, step.disk); break;
        case 'resume': await resumeStream(qmp, step.disk); break;
        case 'continue': await continueGuest(qmp); break;
        case 'arrived':
          for (const { disk } of look.disks) await dropView(qmp, disk);
          await this.#o.onHome();
          this.#report = { ...this.#report, state: 'home', doneBytes: this.#report.totalBytes };
          return true;
        default: step satisfies never;
      }
    }
    return false;
  }
}

/** Of disks that need nothing more. */
export function allHome(disks: readonly { readonly sizeBytes: number }[]): HomeReport {
  const totalBytes = disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return { state: 'home', doneBytes: totalBytes, totalBytes };
}

export interface GroupHomecomingOptions extends Pick<HomecomingOptions, 'group' | 'onHome' | 'log'> {
  /** Each with its disks, by number, and their sizes. */
  readonly guests: readonly Pick<HomecomingOptions, 'folder' | 'sizes' | 'isRunning'>[];
}

/** Of all guests of a group: `onHome` comes once, when the last has arrived. */
export class GroupHomecoming {
  readonly #each: readonly Homecoming[];

  constructor({ guests, onHome, ...common }: GroupHomecomingOptions) {
    const waiting = new Set(guests.keys());
    this.#each = guests.map((guest, at) => new Homecoming({
      ...common, ...guest,
      onHome: async () => {
        if (waiting.size > 1 || !waiting.has(at)) return void waiting.delete(at);
        // Tried again when it fails.
        await onHome();
        waiting.delete(at);
      },
    }));
  }

  report(): HomeReport {
    const reports = this.#each.map((one) => one.report());
    const state = reports.every((one) => one.state === 'home') ? 'home' : reports.some((one) => one.state === 'streaming') ? 'streaming' : 'waiting';
    return { state, doneBytes: reports.reduce((sum, { doneBytes }) => sum + doneBytes, 0), totalBytes: reports.reduce((sum, { totalBytes }) => sum + totalBytes, 0) };
  }

  async stop(): Promise<void> {
    await Promise.all(this.#each.map((one) => one.stop()));
  }
}
