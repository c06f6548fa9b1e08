/**
 * The leases that this source holds at the witness for the guests that run here. Whoever would fail one over elsewhere asks the witness first, and is refused while its lease
 * lasts. What a lost lease means for the guest is the operator's choice. A daemon that is dead stops no guest: that is for the service manager, and for the fence hook.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import { LeaseKeeper, type LeaseReport } from '../../host/lease-keeper.ts';
import type { Witness } from '../../host/witness.ts';
import { PausedNotes } from '../joint/paused-notes.ts';
import { LeaseGuard, type LeaseGuardOptions } from './lease-guard.ts';

/** What becomes of a guest whose lease could not be renewed in time, or that is live elsewhere. */
export type OnLeaseLost = 'pause' | 'ignore';

export interface GuestLeasesOptions {
  readonly witness: Witness;
  readonly ttlMs: number;
  readonly sourceId: string;
  /** Of this source, for people. */
  readonly name: string;
  readonly dataFolder: string;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface LeasedGuest extends Omit<LeaseGuardOptions, 'notes'> {
  readonly groupId: string;
  readonly onLost: OnLeaseLost;
  /** Null: it does not run here. */
  readonly term: () => number | null;
}

export class GuestLeases {
  readonly #keeper: LeaseKeeper;
  readonly #notes: PausedNotes;
  readonly #guards = new Map<string, LeaseGuard>();

  constructor({ witness, ttlMs, sourceId, name, dataFolder, clock, log }: GuestLeasesOptions) {
    this.#notes = new PausedNotes(join(dataFolder, 'leases'));
    this.#keeper = new LeaseKeeper({ witness, holder: sourceId, by: name, ttlMs, clock, log });
  }

  async start(): Promise<void> {
    await this.#notes.prepare();
    this.#keeper.start();
  }

  add({ groupId, onLost, term, ...guest }: LeasedGuest): void {
    const guard = new LeaseGuard({ ...guest, notes: this.#notes });
    this.#guards.set(groupId, guard);
    // One that was stopped under another choice goes on when its lease is held.
    this.#keeper.add({ groupId, name: guest.group, term, guard: { stop: () => (onLost === 'pause' ? guard.stop() : Promise.resolve(false)), goOn: () => guard.goOn() } });
  }

  /** It is not supervised just now; its lease lasts. */
  suspend(groupId: string): Promise<void> {
    return this.#keeper.remove(groupId, false);
  }

  /** It is not this source's any more. */
  async remove(groupId: string): Promise<void> {
    await this.#keeper.remove(groupId, true);
    await this.#guards.get(groupId)?.forget();
    this.#guards.delete(groupId);
  }

  report(groupId: string): LeaseReport | null {
    return this.#keeper.report(groupId);
  }

  close(): Promise<void> {
    return this.#keeper.close();
  }
}
