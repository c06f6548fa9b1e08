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
import { HeldNotes } from './held-notes.ts';
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

export interface LeasedGuest extends Omit<LeaseGuardOptions, 'notes' | 'held'> {
  readonly groupId: string;
  readonly onLost: OnLeaseLost;
  /** Null: it does not run here. */
  readonly term: () => number | null;
}

export class GuestLeases {
  readonly #o: GuestLeasesOptions;
  readonly #keeper: LeaseKeeper;
  readonly #notes: PausedNotes;
  readonly #held: HeldNotes;
  readonly #guards = new Map<string, LeaseGuard>();
  readonly #isStopping = new Map<string, boolean>();

  constructor(options: GuestLeasesOptions) {
    this.#o = options;
    const { witness, ttlMs, sourceId, name, dataFolder, clock, log } = options;
    this.#notes = new PausedNotes(join(dataFolder, 'unleased'));
    this.#held = new HeldNotes(join(dataFolder, 'leases'));
    this.#keeper = new LeaseKeeper({ witness, holder: sourceId, by: name, ttlMs, clock, log });
  }

  async start(): Promise<void> {
    await this.#notes.prepare();
    await this.#held.prepare();
    this.#keeper.start();
  }

  async add({ groupId, onLost, term, ...guest }: LeasedGuest): Promise<void> {
    const guard = new LeaseGuard({ ...guest, notes: this.#notes, held: this.#held });
    this.#guards.set(groupId, guard);
    // One that was stopped under another choice goes on when its lease is held.
    const isStopping = onLost === 'pause';
    this.#isStopping.set(groupId, isStopping);
    await this.#keeper.add({ groupId, name: guest.group, term, guard: isStopping ? guard : { stop: () => guard.look(), goOn: () => guard.goOn(), heldUntilMs: () => Promise.resolve(null), noteHeld: () => Promise.resolve() } });
  }

  /** Fault LEASE_LOST: a guest that stands still may not be started now. */
  checkStart(groupId: string): void {
    if (this.#isStopping.get(groupId) === true) this.#keeper.checkStart(groupId);
  }

  /** It is not supervised just now; its lease lasts. */
  suspend(groupId: string): Promise<void> {
    return this.#keeper.remove(groupId, false);
  }

  /** It is protected no more, and runs on: the witness is to know nothing of it, or its target would take it for lost. Fault WITNESS_UNREACHABLE: it does. */
  async forget(groupId: string): Promise<void> {
    const { witness } = this.#o;
    await this.#keeper.remove(groupId, true);
    for (let isDone = false; !isDone;) {
      const seen = await witness.look(groupId);
      isDone = seen.record === null || await witness.put(groupId, null, seen, false);
    }
  }

  /** It is not this source's any more. */
  async remove(groupId: string): Promise<void> {
    await this.#keeper.remove(groupId, true);
    await this.#guards.get(groupId)?.forget();
    this.#guards.delete(groupId);
    this.#isStopping.delete(groupId);
  }

  report(groupId: string): LeaseReport | null {
    return this.#keeper.report(groupId);
  }

  close(): Promise<void> {
    return this.#keeper.close();
  }
}
