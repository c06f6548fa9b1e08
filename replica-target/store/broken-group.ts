/**
 * Stands for a group whose files cannot be used: it is shown, with why, and refuses everything with the same fault. One
 * damaged group must not keep a target from serving the others.
 */
import type { Fault } from '../../journal/fault.ts';
import type { GroupHolding } from '../../journal/wire.ts';
import type { GroupPoints } from '../points/points.ts';
import type { GroupFacts } from './group-facts.ts';
import type { GroupStore, GroupStoreReport, StoredPoint } from './store.ts';

export class BrokenGroup implements GroupStore {
  readonly groupId: string;
  readonly facts: GroupFacts | null;
  readonly restorePoints: GroupPoints;
  readonly #fault: Fault;
  readonly #sinceMs: number;

  /** `facts` null: not even `group.json` can be read. */
  constructor(groupId: string, facts: GroupFacts | null, fault: Fault, sinceMs: number) {
    this.groupId = groupId;
    this.facts = facts;
    this.#fault = fault;
    this.#sinceMs = sinceMs;
    const refuse = (): Promise<never> => this.#refuse();
    this.restorePoints = { list: refuse, find: refuse, open: refuse, changedSince: refuse, hold: refuse, lock: refuse, release: refuse, holds: () => [] };
  }

  holding(): GroupHolding { throw this.#fault; }
  announce(): Promise<never> { return this.#refuse(); }
  append(): Promise<never> { return this.#refuse(); }
  cutTorn(): Promise<void> { return Promise.resolve(); }
  seedBegin(): Promise<never> { return this.#refuse(); }
  seedRecord(): Promise<never> { return this.#refuse(); }
  seedEnd(): Promise<never> { return this.#refuse(); }
  compare(): Promise<never> { return this.#refuse(); }
  dismissSuspicion(): Promise<never> { return this.#refuse(); }
  onApplied(): () => void { return () => undefined; }
  points(): Promise<readonly StoredPoint[]> { return this.#refuse(); }
  drain(): Promise<never> { return this.#refuse(); }
  failOver(): Promise<never> { return this.#refuse(); }
  rollBack(): Promise<never> { return this.#refuse(); }
  commit(): Promise<never> { return this.#refuse(); }
  own(): Promise<never> { return this.#refuse(); }
  lendImages(): Promise<never> { return this.#refuse(); }
  handOver(): Promise<never> { return this.#refuse(); }
  hardware(): Readonly<Record<string, unknown>> { return this.facts?.hardware ?? {}; }
  close(): Promise<void> { return Promise.resolve(); }

  report(): GroupStoreReport {
    const { facts } = this;
    return {
      groupId: this.groupId, name: facts?.name ?? this.groupId, sourceId: facts?.sourceId ?? '', state: facts?.state ?? 'protected', term: facts?.term ?? 1,
      rpoMs: facts?.rpoMs ?? 0, seed: facts?.seed ?? 'none', isReclaimed: facts?.reclaimed != null, formerSourceIds: facts?.formerSourceIds ?? [], disks: [], newest: null, applied: null, pointCount: 0, oldest: null,
      journalBytes: 0, historyBytes: 0, replicaBytes: 0, retention: null,
      held: { code: this.#fault.code, sinceMs: this.#sinceMs, message: this.#fault.message },
    };
  }

  #refuse(): Promise<never> { return Promise.reject(this.#fault); }
}
