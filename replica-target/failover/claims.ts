/**
 * A failover's word with the witness, where there is one: the term is claimed before anything boots in it, once in the world; what came to nothing is given back. And the lease of
 * groups whose guests run here and are followed by nobody else on this host. It decides nothing about the failover.
 */
import type { Logger } from 'pino';
import { LeaseKeeper } from '../../host/lease-keeper.ts';
import type { Clock } from '../../host/clock.ts';
import type { Witness, WitnessView } from '../../host/witness.ts';
import { Fault, isFault } from '../../journal/fault.ts';
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
const settlePart = 1 / 3;
/** How often it is tried against others' changes. */
const turnsMax = 3;

export class Claims {
  readonly #o: ClaimsOptions;
  readonly #keeper: LeaseKeeper;
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
    this.#settling = this.#settle(groups);
  }

  get ttlMs(): number { return this.#o.ttlMs; }

  look(groupId: string): Promise<WitnessView> {
    return this.#o.witness.look(groupId);
  }

  /** Once it resolves nobody else enters that term. Faults: WITNESS_UNREACHABLE, WITNESS_BLANK, WITNESS_HELD, WITNESS_CLAIMED. */
  async claim({ groupId, name, term, isFree }: ClaimRequest): Promise<void> {
    const { witness, targetId: byId, name: by } = this.#o;
    for (let turn = 1; turn <= turnsMax; turn += 1) {
      const seen = await witness.look(groupId);
      const { record } = seen;
      const isOwn = record?.term === term && record.byId === byId;
      if (record !== null && record.term >= term && !isOwn) throw new Fault('WITNESS_CLAIMED', `the witness says that ${record.by} claimed term ${record.term} of ${name}: it runs there`, { group: name, term: record.term, by: record.by });
      if (isFree && record === null) throw new Fault('WITNESS_BLANK', `the witness was never told of ${name} by its source: whether its guest still runs there cannot be known`, { group: name });
      // Of an attempt whose end nobody heard of; whoever held the term before may not have heard of it yet.
      const holder = seen.holders.find((one) => one.holder !== byId && one.term < term);
      if (isFree && holder !== undefined) throw new Fault('WITNESS_HELD', `${holder.by} holds the lease of ${name}: its guest may run there. Fail over by plan, or wait until the lease ends (${this.#o.ttlMs} ms after its last renewal)`, { group: name, by: holder.by, term: holder.term });
      if (isOwn) return;
      // Of an earlier term.
      if (seen.holders.some((one) => one.holder === byId)) await witness.letGo(groupId, byId);
      const before = record === null ? null : { term: record.term, byId: record.byId, by: record.by };
      if (await witness.put(groupId, { term, byId, by, before }, seen, isFree)) return;
    }
    throw new Fault('WITNESS_CLAIMED', `the witness’ record of ${name} changes under every attempt to claim it`, { group: name });
  }

  /** Nothing ran in that term, or does any more: the record is what it was before. Resolves also where the witness could not be reached: it is tried again then, for the source takes its guest for live elsewhere until it is done. */
  async giveBack(groupId: string, name: string): Promise<void> {
    try {
      const seen = await this.#o.witness.look(groupId);
      if (seen.record?.byId === this.#o.targetId) await this.#o.witness.put(groupId, seen.record.before ?? null, seen, false);
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#o.log.warn({ group: name, code: error.code }, `the claim of ${name} could not be given back yet: ${error.message}`);
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

  /** Whatever this target claimed for a group of which nothing runs here: also what an earlier process claimed, or what came of a question that was taken for lost. */
  async #settle({ stores, turns, isFailedOver }: ClaimedGroups): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const isIdle = (store: GroupStore): boolean => store.report().state === 'protected' && !isFailedOver(store.groupId);
      await Promise.all(stores().filter(isIdle).map((store) => turns.take(store.groupId, async () => {
        if (isIdle(store) && !signal.aborted) await this.giveBack(store.groupId, store.report().name);
      })));
      await this.#o.clock.delay(this.#o.ttlMs * settlePart, signal).catch(() => undefined);
    }
  }
}
