/**
 * The third party that both sides of a partition can ask who may run a group's guests: a record per group (the highest term that was claimed for it, changed by compare-and-set)
 * and leases (whose host is alive, which end by themselves). As a seam: etcd-witness.ts has it from an etcd, a simulation has a model.
 *
 * A term is the fencing token: who claimed it is the only one who may run the group's guests in it, and a term is claimed once.
 */

export interface WitnessRecord {
  readonly term: number;
  /** Who claimed it: its lasting id, and for people the name of its host. */
  readonly byId: string;
  readonly by: string;
  /** Of a claim that may yet come to nothing: what the record was. Null or absent: there was none. */
  readonly before?: { readonly term: number; readonly byId: string; readonly by: string } | null | undefined;
}

/** Who says that the group's guests run on its host, and in which term, as long as its lease lasts. */
export interface WitnessHolder {
  readonly holder: string;
  readonly by: string;
  readonly term: number;
}

export interface WitnessView {
  readonly record: WitnessRecord | null;
  /** Of the record; '0': there is none. */
  readonly revision: string;
  readonly holders: readonly WitnessHolder[];
}

/** Faults: WITNESS_UNREACHABLE, of which it is not known whether what was asked was done. */
export interface Witness {
  look(groupId: string): Promise<WitnessView>;
  /** Null: takes the record away. Resolves with false, and changes nothing, when the record is not `seen`'s any more; or with `isFree`, when a lease holds the group. */
  put(groupId: string, record: WitnessRecord | null, seen: WitnessView, isFree: boolean): Promise<boolean>;
  /** Resolves with its id. `ttlMs` is rounded up to seconds. */
  grant(ttlMs: number): Promise<string>;
  /** False: it has ended, and with it all that it held. */
  keepAlive(lease: string): Promise<boolean>;
  /** Says that `holder` runs the group, until the lease ends, and makes its term the record's, where that is lower: both or neither. False: the record is not `seen`'s any more, or the lease has ended. */
  hold(groupId: string, holder: WitnessHolder, lease: string, seen: WitnessView): Promise<boolean>;
  letGo(groupId: string, holder: string): Promise<void>;
  close(): void;
}
