/**
 * Keeps the leases of the groups whose guests run on this host, at a witness: one lease of the process, under which each group is held. A group that cannot be held any more
 * (the witness was not reached in time, or says that it runs elsewhere in a higher term) is stopped where that was chosen, before anybody else may take the lease for ended;
 * it goes on when it is held again. What stopping means is its holder's.
 */
import type { Clock } from './clock.ts';
import { leaseEndMs, planLease } from './lease-plan.ts';
import type { Witness } from './witness.ts';
import { Fault } from '../journal/fault.ts';

export interface LeasedGroup {
  readonly groupId: string;
  readonly name: string;
  /** In which its guests run here; null: they do not, and nothing is held. */
  term(): number | null;
  /** Absent: it runs on whatever becomes of the lease. */
  readonly guard?: {
    /** `stopped`: they stand still for this reason, and are known to. `still`: for another. `running`: they go on, by choice. Comes again and again. */
    stop(): Promise<'stopped' | 'still' | 'running'>;
    /** What stands still for this reason goes on. */
    goOn(): Promise<void>;
    /** Until when (`leaseEndMs`) it was held, as an earlier process of this host noted it; null: it was not, since this host was started. */
    heldUntilMs(): Promise<number | null>;
    noteHeld(untilMs: number): Promise<void>;
  };
}

/** `waiting`: not held yet, and in time. `lost`: not renewed in time. `superseded`: a higher term was claimed. */
export type LeaseState = 'waiting' | 'held' | 'lost' | 'superseded' | 'none';

export interface LeaseReport {
  readonly state: LeaseState;
  /** For people. */
  readonly why: string;
  /** Its guests were stopped for it. */
  readonly isStopped: boolean;
}

export interface LeaseLog {
  warn(facts: object, message: string): void;
  info(facts: object, message: string): void;
}

export interface LeaseKeeperOptions {
  readonly witness: Witness;
  /** Lasting id, and name, of this holder. */
  readonly holder: string;
  readonly by: string;
  readonly ttlMs: number;
  readonly clock: Clock;
  readonly log: LeaseLog;
}

interface Kept { readonly group: LeasedGroup; state: LeaseState; why: string; untilMs: number; heldTerm: number | null; heldLease: string | null; isStopped: boolean | null; isStill: boolean; isOut: boolean; renewing: Promise<void> | null; settling: Promise<void> | null; trouble: string | null }

/** Parts of the lease's time: between renewals, and between looks at whether one is overdue. */
const [renewPart, guardPart] = [1 / 6, 1 / 30];

export class LeaseKeeper {
  readonly #o: LeaseKeeperOptions;
  readonly #kept = new Map<string, Kept>();
  /** What is held no more, and may still be written there. */
  readonly #toLetGo = new Set<string>();
  readonly #stop = new AbortController();
  #lease: string | null = null;
  #running: Promise<unknown> = Promise.resolve();
  #wake: () => void = () => undefined;

  constructor(options: LeaseKeeperOptions) {
    this.#o = options;
  }

  start(): void {
    this.#running = Promise.all([this.#renewing(), this.#guarding()]);
  }

  /** Held from the next renewal on, which is at once. A lease that an earlier process held lasts no longer for this one. */
  async add(group: LeasedGroup): Promise<void> {
    const { clock, ttlMs } = this.#o;
    const untilMs = await group.guard?.heldUntilMs() ?? leaseEndMs(clock.monotonicMs(), ttlMs);
    this.#kept.set(group.groupId, { group, state: 'waiting', why: 'not asked yet', untilMs, heldTerm: null, heldLease: null, isStopped: null, isStill: false, isOut: false, renewing: null, settling: null, trouble: null });
    this.#toLetGo.delete(group.groupId);
    this.#wake();
  }

  /** `isLetGo`: it does not run here any more, and others need not wait for the lease to end. Resolves when nothing more is done to its guests. */
  async remove(groupId: string, isLetGo: boolean): Promise<void> {
    const kept = this.#kept.get(groupId);
    if (kept !== undefined) kept.isOut = true;
    this.#kept.delete(groupId);
    if (isLetGo) this.#toLetGo.add(groupId);
    // What it is just asking for may be granted, and is then to be let go as well.
    await kept?.renewing;
    await kept?.settling;
    await this.#letAllGo();
  }

  /** Whether what stands still may be started now: it is looked into at once if not. Throws Fault LEASE_LOST. */
  checkStart(groupId: string): void {
    const kept = this.#kept.get(groupId);
    if (kept === undefined || this.mayRun(groupId)) return;
    throw new Fault('LEASE_LOST', `${kept.group.name} may not run here without its lease: ${kept.why}`, { group: kept.group.name, isSuperseded: kept.state === 'superseded' });
  }

  mayRun(groupId: string): boolean {
    const kept = this.#kept.get(groupId);
    const may = kept === undefined || !isWithout(kept.state) && this.#o.clock.monotonicMs() < kept.untilMs;
    if (!may) this.#wake();
    return may;
  }

  report(groupId: string): LeaseReport | null {
    const kept = this.#kept.get(groupId);
    return kept === undefined ? null : { state: kept.state, why: kept.why, isStopped: kept.isStopped === true };
  }

  /** Leases stay until they end by themselves: a process that is started anew goes on with them. */
  async close(): Promise<void> {
    this.#stop.abort(new Error('the leases are not kept any more'));
    await this.#running;
    await Promise.all([...this.#kept.values()].map(({ settling }) => settling ?? Promise.resolve()));
    this.#o.witness.close();
  }

  async #renewing(): Promise<void> {
    const { clock, ttlMs } = this.#o;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const woken = new Promise<void>((resolve) => { this.#wake = resolve; });
      if (this.#toLetGo.size > 0) await this.#letAllGo();
      if (this.#kept.size > 0) await this.#renew();
      const over = new AbortController();
      const stop = (): void => over.abort(signal.reason);
      signal.addEventListener('abort', stop, { once: true });
      await Promise.race([woken, clock.delay(ttlMs * renewPart, over.signal).catch(() => undefined)]);
      signal.removeEventListener('abort', stop);
      over.abort(new Error('woken'));
    }
  }

  async #renew(): Promise<void> {
    const { witness, ttlMs, clock } = this.#o;
    try {
      const sentMs = clock.monotonicMs();
      if (this.#lease !== null && !(await witness.keepAlive(this.#lease))) this.#lease = null;
      this.#lease ??= await witness.grant(ttlMs);
      const untilMs = leaseEndMs(sentMs, ttlMs);
      const lease = this.#lease;
      await Promise.all([...this.#kept.values()].map((kept) => {
        kept.renewing = this.#renewGroup(kept, lease, untilMs).catch((error: unknown) => { kept.why = troubleOf(error).message; }).finally(() => { kept.renewing = null; });
        return kept.renewing;
      }));
    } catch (error) {
      const { message } = troubleOf(error);
      for (const kept of this.#kept.values()) kept.why = message;
    }
  }

  async #letAllGo(): Promise<void> {
    for (const groupId of [...this.#toLetGo]) {
      try {
        await this.#o.witness.letGo(groupId, this.#o.holder);
        if (!this.#kept.has(groupId)) this.#toLetGo.delete(groupId);
      } catch (error) {
        troubleOf(error);
        return;
      }
    }
  }

  async #renewGroup(kept: Kept, lease: string, untilMs: number): Promise<void> {
    const { witness, holder, by, log } = this.#o;
    const { groupId, name } = kept.group;
    const term = kept.group.term();
    if (term === null) {
      this.#becomes(kept, 'none', 'it does not run here');
      return this.#letGo(kept);
    }
    const view = await witness.look(groupId);
    if (kept.isOut) return;
    const step = planLease(view, term);
    switch (step.step) {
      case 'stay-away':
        if (kept.state !== 'superseded') log.warn({ group: name, term: step.term, by: step.by }, `the witness says that ${name} is live elsewhere: ${step.by} claimed term ${step.term}`);
        this.#becomes(kept, 'superseded', `${step.by} claimed term ${step.term}`);
        this.#settle(kept);
        // As long as it may run here others have to know.
        return kept.isStill ? this.#letGo(kept) : undefined;
      case 'hold': {
        const isHeld = view.record?.term === term && kept.heldTerm === term && kept.heldLease === lease && view.holders.some((one) => one.holder === holder && one.term === term);
        if (!isHeld && !(await witness.hold(groupId, { holder, by, term }, lease, view))) return;
        if (kept.isOut) return;
        [kept.heldTerm, kept.heldLease, kept.untilMs] = [term, lease, untilMs];
        // An older note ends earlier, which is safe.
        await kept.group.guard?.noteHeld(untilMs).catch((error: unknown) => this.#tell(kept, error));
        if (kept.isOut || this.#o.clock.monotonicMs() >= untilMs) return;
        if (kept.state !== 'held') log.info({ group: name, term }, `the lease of ${name} is held`);
        this.#becomes(kept, 'held', `in term ${term}`);
        return this.#settle(kept);
      }
      default: return step satisfies never;
    }
  }

  /** Its lease says nothing any more, and would only keep others waiting. */
  async #letGo(kept: Kept): Promise<void> {
    if (kept.heldTerm === null) return;
    await this.#o.witness.letGo(kept.group.groupId, this.#o.holder);
    kept.heldTerm = null;
  }

  #becomes(kept: Kept, state: LeaseState, why: string): void {
    kept.state = state;
    kept.why = why;
  }

  async #guarding(): Promise<void> {
    const { clock, ttlMs, log } = this.#o;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      for (const kept of [...this.#kept.values()]) {
        if (['held', 'waiting'].includes(kept.state) && clock.monotonicMs() >= kept.untilMs) {
          log.warn({ group: kept.group.name }, `the lease of ${kept.group.name} could not be renewed in time: ${kept.why}`);
          this.#becomes(kept, 'lost', kept.why);
        }
        this.#settle(kept);
      }
      await clock.delay(ttlMs * guardPart, signal).catch(() => undefined);
    }
  }

  /** One at a time for each group, and nobody waits for it: a guest that does not answer holds up no other. What cannot be done now is tried again with the next look. */
  #settle(kept: Kept): void {
    kept.settling ??= this.#settleNow(kept).catch((error: unknown) => this.#tell(kept, error)).finally(() => { kept.settling = null; });
  }

  /** Stands still or runs as its lease says. */
  async #settleNow(kept: Kept): Promise<void> {
    const { guard, name } = kept.group;
    const isToStop = isWithout(kept.state);
    if (!isToStop) kept.isStill = false;
    // What is to stand still is seen to again and again: whoever starts it may not know.
    if (guard === undefined || (!isToStop && kept.isStopped === false) || kept.state === 'waiting' || kept.state === 'none' || kept.isOut) return;
    const wasStopped = kept.isStopped;
    if (isToStop) {
      const now = await guard.stop();
      kept.isStill = now !== 'running';
      kept.isStopped = now === 'stopped';
    } else {
      await guard.goOn();
      kept.isStopped = false;
    }
    kept.trouble = null;
    if (kept.isStopped && wasStopped !== true) this.#o.log.warn({ group: name, why: kept.why }, `${name} was stopped: its lease is ${kept.state}`);
    if (!kept.isStopped && wasStopped === true) this.#o.log.info({ group: name }, `${name} is not stopped for its lease any more`);
  }

  /** Said once, as it is met again and again. */
  #tell(kept: Kept, error: unknown): void {
    const { code, message } = troubleOf(error);
    if (kept.trouble === code) return;
    kept.trouble = code;
    this.#o.log.warn({ group: kept.group.name, code }, `the lease of ${kept.group.name}: ${message}`);
  }
}

/** A bug is none of the world's troubles, which bear a code. */
function troubleOf(error: unknown): { readonly code: string; readonly message: string } {
  if (error instanceof Error && 'code' in error) return { code: String(error.code), message: error.message };
  throw error;
}

function isWithout(state: LeaseState): boolean {
  return state === 'lost' || state === 'superseded';
}
