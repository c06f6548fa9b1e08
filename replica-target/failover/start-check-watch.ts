/**
 * When it is looked whether groups could start here, and what is kept of it: on schedule, when a source announced other hardware,
 * before a failover or a test, and when a person asks. What is looked at is start-check.ts's. Invariant: a failover never waits for
 * it: it takes what a young check found, or has one run beside.
 */
import { createHash } from 'node:crypto';
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import type { AbilitiesOptions } from '../../qemu/program-abilities.ts';
import type { AccelChoice } from '../operations.ts';
import type { NetworkName } from './network-plan.ts';
import type { GroupStore } from '../store/store.ts';
import type { StartReport } from './start-finding.ts';
import { isGroupDue, worseFindings } from './start-watch-plan.ts';

/** What differs from the config's, and when QEMU is asked anew. */
export interface StartQuestion { readonly accel?: AccelChoice | undefined; readonly network?: NetworkName | undefined; readonly qemu?: AbilitiesOptions }

export interface StartWatchOptions {
  readonly everyMs: number;
  readonly check: (store: GroupStore, question: StartQuestion) => Promise<StartReport>;
  readonly stores: () => readonly GroupStore[];
  readonly clock: Clock;
  readonly log: Logger;
}

/** What runs beside a failover, or was found shortly before. */
export interface CheckBeside {
  /** Null while it is under way, and when it failed. */
  readonly found: () => StartReport | null;
  /** The failover is done, or has failed: what was put off for it may go on. */
  readonly release: () => void;
  /** After the release. */
  readonly ended: Promise<StartReport | null>;
}

export const checkEveryMsDefault = 6 * 3_600_000;
/** How often groups are looked over for one that is due; also how soon after the start, ms. */
const lookMs = 10_000;
/** QEMU is asked once for all groups that are looked at in one round, ms. */
const roundMs = 60_000;
/** What a failover takes for how things are, ms. */
const youngMs = 10 * 60_000;

interface Known { readonly report: StartReport; readonly hardwareDigest: string }

export class StartWatch {
  readonly #o: StartWatchOptions;
  readonly #known = new WeakMap<GroupStore, Known>();
  /** A record is not written to once it is announced: the same object is the same hardware. */
  readonly #digests = new WeakMap<object, string>();
  readonly #stopping = new AbortController();
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #running: Promise<void>;

  constructor(options: StartWatchOptions) {
    this.#o = options;
    this.#running = this.#run();
  }

  /** The last one of each group that is here, without what is fine. */
  report(): StartReport[] {
    return this.#o.stores().flatMap((store) => {
      const report = this.#known.get(store)?.report;
      return report === undefined ? [] : [{ ...report, findings: report.findings.filter(({ verdict }) => verdict !== 'fine') }];
    });
  }

  /** Looks now. Only what is asked as the config has it is kept. */
  async check(store: GroupStore, question: StartQuestion = {}): Promise<StartReport> {
    const hardwareDigest = this.#digestOf(store);
    const checking = this.#o.check(store, question);
    const settled = checking.catch(() => undefined);
    this.#underWay.add(settled);
    try {
      const report = await checking;
      if (question.accel === undefined && question.network === undefined) this.#keep(store, { report, hardwareDigest });
      return report;
    } finally {
      this.#underWay.delete(settled);
    }
  }

  /** For a failover or a test that begins now. */
  beside(store: GroupStore, question: StartQuestion): CheckBeside {
    const known = this.#known.get(store);
    const isAsAsked = question.accel === undefined && (question.network === undefined || question.network === known?.report.network);
    if (known !== undefined && isAsAsked && this.#o.clock.nowMs() - known.report.atMs < youngMs && known.hardwareDigest === this.#digestOf(store)) {
      this.#warn(known.report);
      return { found: () => known.report, release: () => undefined, ended: Promise.resolve(known.report) };
    }
    let found: StartReport | null = null;
    let release = (): void => undefined;
    const askAfter = new Promise<void>((resolve) => { release = resolve; });
    const look = async (): Promise<StartReport | null> => {
      try {
        found = await this.check(store, { accel: question.accel, network: question.network, qemu: { askAfter } });
        this.#warn(found);
      } catch (error) {
        this.#couldNot(store, error);
      }
      return found;
    };
    return { found: () => found, release, ended: look() };
  }

  async close(): Promise<void> {
    this.#stopping.abort(new Error('the target stops'));
    await this.#running;
    // Each ends its own QEMU, within its own limit.
    await Promise.all(this.#underWay);
  }

  async #run(): Promise<void> {
    const { clock, stores, everyMs } = this.#o;
    const { signal } = this.#stopping;
    try {
      for (;;) {
        await clock.delay(lookMs, signal);
        const nowMs = clock.nowMs();
        for (const store of stores()) {
          signal.throwIfAborted();
          const known = this.#known.get(store);
          const { state, newest } = store.report();
          const hasHardware = Object.keys(store.hardware()).length > 0;
          const last = known === undefined ? null : { atMs: known.report.atMs, verdict: known.report.verdict, isSameHardware: known.hardwareDigest === this.#digestOf(store) };
          if (isGroupDue({ nowMs, everyMs, isProtected: state === 'protected', hasPoint: newest !== null, hasHardware, last })) await this.#checkQuietly(store);
        }
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async #checkQuietly(store: GroupStore): Promise<void> {
    try {
      await this.check(store, { qemu: { ageMsMax: roundMs } });
    } catch (error) {
      // It is tried again when groups are looked over next.
      this.#couldNot(store, error);
    }
  }

  /** Also what is a bug: protection and failover do not depend on this, and must not end by it. */
  #couldNot(store: GroupStore, error: unknown): void {
    const { name } = store.report();
    this.#o.log.error({ group: name, err: error }, `it could not be checked whether ${name} can start here`);
  }

  #keep(store: GroupStore, known: Known): void {
    const before = this.#known.get(store)?.report.findings ?? [];
    this.#known.set(store, known);
    const { group, findings } = known.report;
    for (const { check, verdict, found, advice } of worseFindings(before, findings)) {
      if (verdict === 'refused') this.#o.log.error({ group, check, advice }, `${group} could not start here: ${check}: ${found}`);
      else this.#o.log.warn({ group, check, advice }, `${group} would start here with a difference: ${check}: ${found}`);
    }
  }

  /** What a failover or a test goes on in spite of. */
  #warn({ group, findings }: StartReport): void {
    for (const { check, verdict, found, advice } of findings) {
      if (verdict === 'refused') this.#o.log.warn({ group, check, advice }, `${group} is started here although it is refused: ${check}: ${found}`);
    }
  }

  #digestOf(store: GroupStore): string {
    const hardware = store.hardware();
    const known = this.#digests.get(hardware);
    if (known !== undefined) return known;
    const digest = createHash('sha256').update(JSON.stringify(hardware)).digest('hex');
    this.#digests.set(hardware, digest);
    return digest;
  }
}
