/**
 * A witness in the simulation: one truth, and a way to it for each side that can be cut by itself. A question takes time each way; when the way is cut meanwhile, whoever asked does
 * not know whether what it asked for was done.
 */
import type { Witness, WitnessHolder, WitnessRecord, WitnessView } from '../../host/witness.ts';
import { Fault } from '../../journal/fault.ts';
import type { Life, World } from './world.ts';

interface Held extends WitnessHolder { readonly lease: string }

export class ModelWitness {
  readonly #world: World;
  readonly #records = new Map<string, { readonly record: WitnessRecord; readonly revision: string }>();
  readonly #held = new Map<string, Held[]>();
  readonly #leases = new Map<string, { ttlMs: number; endMs: number }>();
  #revision = 0;

  constructor(world: World) {
    this.#world = world;
  }

  /** `isReachable`: by that side, now. */
  client(life: Life, isReachable: () => boolean, answerMsMax: number): Witness {
    const world = this.#world;
    const ask = async <T>(act: () => T): Promise<T> => {
      const unreachable = async (): Promise<never> => {
        await life.delay(answerMsMax);
        throw new Fault('WITNESS_UNREACHABLE', 'the witness does not answer');
      };
      await life.delay(world.dice.integer(20));
      if (!isReachable()) return unreachable();
      this.#expire();
      const done = act();
      await life.delay(world.dice.integer(20));
      return isReachable() && !world.dice.chance(0.02) ? done : unreachable();
    };
    return {
      look: (groupId) => ask(() => this.#view(groupId)),
      put: (groupId, record, seen, isFree) => ask(() => {
        const now = this.#view(groupId);
        if (now.revision !== seen.revision || (isFree && now.holders.length > 0)) return false;
        this.#note(groupId, record);
        return true;
      }),
      grant: (ttlMs) => ask(() => {
        const lease = `lease ${this.#leases.size + 1}`;
        this.#leases.set(lease, { ttlMs, endMs: world.nowMs + ttlMs });
        return lease;
      }),
      keepAlive: (lease) => ask(() => {
        const known = this.#leases.get(lease)!;
        if (known.endMs <= world.nowMs) return false;
        known.endMs = world.nowMs + known.ttlMs;
        return true;
      }),
      hold: (groupId, holder, lease, seen) => ask(() => {
        if (this.#view(groupId).revision !== seen.revision || this.#leases.get(lease)!.endMs <= world.nowMs) return false;
        if ((seen.record?.term ?? 0) < holder.term) this.#note(groupId, { term: holder.term, byId: holder.holder, by: holder.by });
        this.#held.set(groupId, [...(this.#held.get(groupId) ?? []).filter((one) => one.holder !== holder.holder), { ...holder, lease }]);
        return true;
      }),
      letGo: (groupId, holder) => ask(() => { this.#held.set(groupId, (this.#held.get(groupId) ?? []).filter((one) => one.holder !== holder)); }),
      close: () => undefined,
    };
  }

  #note(groupId: string, record: WitnessRecord | null): void {
    this.#revision += 1;
    if (record === null) this.#records.delete(groupId);
    else this.#records.set(groupId, { record, revision: String(this.#revision) });
    this.#world.log(`the witness notes ${record === null ? 'nothing' : `term ${record.term} by ${record.by}`}`);
  }

  #view(groupId: string): WitnessView {
    const found = this.#records.get(groupId);
    return { record: found?.record ?? null, revision: found?.revision ?? '0', holders: (this.#held.get(groupId) ?? []).map(({ holder, by, term }) => ({ holder, by, term })) };
  }

  #expire(): void {
    for (const [groupId, held] of this.#held) this.#held.set(groupId, held.filter(({ lease }) => this.#leases.get(lease)!.endMs > this.#world.nowMs));
  }
}
