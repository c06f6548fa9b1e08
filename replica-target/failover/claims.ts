/**
 * A failover's word with the witness, where there is one: the term is claimed before anything boots in it, once in the world; what came to nothing is given back. And the lease of
 * groups whose guests run here and are followed by nobody else on this host. It decides nothing about the failover.
 */
import type { Logger } from 'pino';
import { LeaseKeeper } from '../../host/lease-keeper.ts';
import type { Clock } from '../../host/clock.ts';
import type { Witness, WitnessView } from '../../host/witness.ts';
import { Fault } from '../../journal/fault.ts';
import type { GroupStore } from '../store/store.ts';
import type { GroupTurns } from './group-turns.ts';

export interface ClaimsOptions {
  readonly witness: Witness;
  readonly ttlMs: number;
  /** Lasting id of this target, and its name. */
  readonly targetId: string;
  readonly name: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The groups that are here, and what is known of them. */
export interface ClaimedGroups {
  readonly stores: () => readonly GroupStore[];
  readonly turns: GroupTurns;
  /** A failover of it is under way, or happened. */
  readonly isFailedOver: (groupId: string) => boolean;
}

export interface ClaimRequest {
  readonly groupId: string;
  readonly name: string;
  readonly term: number;
  /** Its source holds no lease of it any more. False: it was asked, and lets go by itself. */
  readonly isFree: boolean;
}

/** Part of a lease's time between two looks at what is to be given back. */
const settlePart = 1 / 6;
/** How often it is tried against others' changes. */
const turnsMax = 3;

export class Claims {
  readonly #o: ClaimsOptions;
  readonly #keeper: LeaseKeeper;
  /** Groups of which this target may have claimed a term in which nothing runs. */
  readonly #owed = new Set<string>();
  readonly #stop = new AbortController();
  #settling: Promise<void> = Promise.resolve();

  constructor(options: ClaimsOptions) {
    this.#o = options;
    const { witness, ttlMs, targetId, name, clock, log } = options;
    this.#keeper = new LeaseKeeper({ witness, holder: targetId, by: name, ttlMs, clock, log });
    this.#keeper.start();
  }

  /** Gives back what an earlier process claimed, and whatever could not be given back at once. */
  start(groups: ClaimedGroups): void {
    for (const { groupId } of groups.stores()) this.#owed.add(groupId);
    this.#settling = this.#settle(groups);
  }

  get ttlMs(): number { return this.#o.ttlMs; }

  look(groupId: string): Promise<WitnessView> {
    return this.#o.witness.look(groupId);
  }

  /** Once it resolves nobody else enters that term. Faults: WITNESS_UNREACHABLE, WITNESS_BLANK, WITNESS_HELD, WITNESS_CLAIMED. */
  async claim({ groupId, name, term, isFree }: ClaimRequest): Promise<void> {
    const { witness } = this.#o;
    for (let turn = 1; ; turn += 1) {
      const seen = await witness.look(groupId);
      const { record } = seen;
      if (record !== null && record.term >= term) {
        // Of an attempt whose end nobody heard of; whoever held it before may not have heard of it yet.
        const isOwn = record.term === term && record.by === this.#o.name;
        if (isOwn && isFree) this.#refuseHeld(seen, name);
        if (isOwn) return;
        throw new Fault('WITNESS_CLAIMED', `the witness says that ${record.by} claimed term ${record.term} of ${name}: it runs there`, { group: name, ...record });
      }
      if (isFree && record === null) throw new Fault('WITNESS_BLANK', `the witness was never told of ${name} by its source: whether its guest still runs there cannot be known`, { group: name });
      if (isFree) this.#refuseHeld(seen, name);
      if (await witness.put(groupId, { term, by: this.#o.name }, seen, isFree)) return;
      if (turn === turnsMax) throw new Fault('WITNESS_CLAIMED', `the witness’ record of ${name} changes under every attempt to claim it`, { group: name });
    }
  }

  #refuseHeld({ holders }: WitnessView, name: string): void {
    const holder = holders.find((one) => one.holder !== this.#o.targetId);
    if (holder !== undefined) throw new Fault('WITNESS_HELD', `${holder.by} holds the lease of ${name}: its guest may run there. Fail over by plan, or wait until the lease ends (${this.#o.ttlMs} ms after its last renewal)`, { group: name, by: holder.by, term: holder.term });
  }

  /** Nothing ran in that term. Resolves also where the witness could not be reached: it is tried again then, for the source takes its guest for live elsewhere until it is done. */
  async giveBack(groupId: string, name: string, term: number, to = term - 1): Promise<void> {
    try {
      const seen = await this.#o.witness.look(groupId);
      if (seen.record?.term === term && seen.record.by === this.#o.name) await this.#o.witness.put(groupId, to === 0 ? null : { term: to, by: this.#o.name }, seen, false);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.#owed.add(groupId);
      this.#o.log.warn({ group: name, term, code: error.code }, `the claim of term ${term} of ${name} could not be given back: ${error.message}`);
    }
  }

  /** `term`: null while nothing of it runs here. */
  hold(groupId: string, name: string, term: () => number | null): void {
    if (this.#keeper.report(groupId) === null) void this.#keeper.add({ groupId, name, term });
  }

  letGo(groupId: string): Promise<void> {
    return this.#keeper.remove(groupId, true);
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('no claim is given back any more'));
    await this.#settling;
    await this.#keeper.close();
  }

  async #settle({ stores, turns, isFailedOver }: ClaimedGroups): Promise<void> {
    const { clock } = this.#o;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      for (const groupId of this.#owed) {
        await turns.take(groupId, async () => {
          this.#owed.delete(groupId);
          const report = stores().find((store) => store.groupId === groupId)?.report();
          if (report?.state === 'protected' && !isFailedOver(groupId)) await this.#giveBackAbove(groupId, report.name, report.term);
        });
      }
      await clock.delay(this.#o.ttlMs * settlePart, signal).catch(() => undefined);
    }
  }

  /** Whatever this target claimed beyond the group's term: nothing runs in it. */
  async #giveBackAbove(groupId: string, name: string, term: number): Promise<void> {
    try {
      const { record } = await this.#o.witness.look(groupId);
      if (record !== null && record.term > term && record.by === this.#o.name) await this.giveBack(groupId, name, record.term, term);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.#owed.add(groupId);
    }
  }
}
