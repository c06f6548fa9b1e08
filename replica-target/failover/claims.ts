/**
 * A failover's word with the witness, where there is one: the term is claimed before anything boots in it, once in the world; what came to nothing is given back. And the lease of
 * groups whose guests run here and are followed by nobody else on this host. It decides nothing about the failover.
 */
import type { Logger } from 'pino';
import { LeaseKeeper } from '../../host/lease-keeper.ts';
import type { Clock } from '../../host/clock.ts';
import type { Witness, WitnessView } from '../../host/witness.ts';
import { Fault } from '../../journal/fault.ts';

export interface ClaimsOptions {
  readonly witness: Witness;
  readonly ttlMs: number;
  /** Lasting id of this target, and its name. */
  readonly targetId: string;
  readonly name: string;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface ClaimRequest {
  readonly groupId: string;
  readonly name: string;
  readonly term: number;
  /** Its source holds no lease of it any more. False: it was asked, and lets go by itself. */
  readonly isFree: boolean;
}

/** How often it is tried against others' changes. */
const turnsMax = 3;

export class Claims {
  readonly #o: ClaimsOptions;
  readonly #keeper: LeaseKeeper;

  constructor(options: ClaimsOptions) {
    this.#o = options;
    const { witness, ttlMs, targetId, name, clock, log } = options;
    this.#keeper = new LeaseKeeper({ witness, holder: targetId, by: name, ttlMs, clock, log });
    this.#keeper.start();
  }

  get ttlMs(): number { return this.#o.ttlMs; }

  look(groupId: string): Promise<WitnessView> {
    return this.#o.witness.look(groupId);
  }

  /** Once it resolves nobody else enters that term. Faults: WITNESS_UNREACHABLE, WITNESS_HELD, WITNESS_CLAIMED. */
  async claim({ groupId, name, term, isFree }: ClaimRequest): Promise<void> {
    const { witness } = this.#o;
    for (let turn = 1; ; turn += 1) {
      const seen = await witness.look(groupId);
      const { record } = seen;
      if (record !== null && record.term >= term) {
        // Of an attempt whose end nobody heard of.
        if (record.term === term && record.by === this.#o.name) return;
        throw new Fault('WITNESS_CLAIMED', `the witness says that ${record.by} claimed term ${record.term} of ${name}: it runs there`, { group: name, ...record });
      }
      const [holder] = seen.holders;
      if (isFree && holder !== undefined) throw new Fault('WITNESS_HELD', `${holder.by} holds the lease of ${name}: its guest may run there. Fail over by plan, or wait until the lease ends (${this.#o.ttlMs} ms after its last renewal)`, { group: name, by: holder.by, term: holder.term });
      if (await witness.put(groupId, { term, by: this.#o.name }, seen, isFree)) return;
      if (turn === turnsMax) throw new Fault('WITNESS_CLAIMED', `the witness’ record of ${name} changes under every attempt to claim it`, { group: name });
    }
  }

  /** Nothing ran in that term. Resolves also where the witness could not be reached: its record then says too much, until the source has entered that term. */
  async giveBack(groupId: string, name: string, term: number): Promise<void> {
    try {
      const seen = await this.#o.witness.look(groupId);
      if (seen.record?.term === term && seen.record.by === this.#o.name) await this.#o.witness.put(groupId, term === 1 ? null : { term: term - 1, by: this.#o.name }, seen, false);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.#o.log.warn({ group: name, term, code: error.code }, `the claim of term ${term} of ${name} could not be given back: ${error.message}`);
    }
  }

  /** `term`: null while nothing of it runs here. */
  hold(groupId: string, name: string, term: () => number | null): void {
    if (this.#keeper.report(groupId) === null) this.#keeper.add({ groupId, name, term });
  }

  letGo(groupId: string): Promise<void> {
    return this.#keeper.remove(groupId, true);
  }

  close(): Promise<void> {
    return this.#keeper.close();
  }
}
