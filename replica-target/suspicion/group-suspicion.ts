/**
 * What is known of a group's changes and whether they are suspected, over restarts: the newest points' changes, what is usual,
 * the evidence, and the suspicion that stands until a person dismisses it. A suspicion is written at once (`suspicion.json`),
 * and points from before it are held; what points changed is written now and then, and losing the last minute of it harms nothing. It never fails what called it: a target that cannot note a suspicion still replicates, and says so in its log.
 */
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { comparePoints, formatPoint, type PointId } from '../../journal/point.ts';
import { readChecked, replaceChecked } from '../store/checked-json.ts';
import type { PointFacts } from '../store/catalog.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import { errorCode } from '../store/store-fault.ts';
import { pointKey } from '../points/retention-plan.ts';
import { pointChanges, type PointChanges } from './point-changes.ts';
import { gather, judge, learnable, nothingGathered, suspicionKinds, usualOf, usualPoints, type Gathering, type Sensitivity, type Suspicion, type SuspicionPolicy, type Usual } from './suspicion-plan.ts';

const version = 1;
const count = z.number().int().nonnegative();
const pointId = z.object({ term: count, point: count });
const flag = z.object({
  kind: z.enum(suspicionKinds), first: pointId,
  /** The newest that could be restored from before `first`; null: there was none. */
  before: pointId.nullable(),
  /** They grow while it stands, as the evidence does. */
  bytes: count, changedBytes: count,
  sinceMs: count, holdIds: z.array(z.string()), dismissedAtMs: count.nullable(),
  /** The newest that would have been a suspicion of its own, had this one not stood: of another kind, or begun later; null: none. */
  again: z.object({ kind: z.enum(suspicionKinds), first: pointId, bytes: count, sinceMs: count }).nullable().default(null),
});
const state = z.object({
  version: z.literal(version),
  points: z.array(pointId.extend({ cutAtMs: count, changes: pointChanges })),
  flags: z.array(flag),
});

/** Points whose changes are remembered: six hours at one every five seconds, 1 MiB of file. */
const pointsKept = 4096;
/** Of a long batch, what is usual is looked up anew after so many points. */
const usualEvery = 64;
/** Dismissed suspicions that are remembered. */
const flagsKept = 20;
/** What points changed is written no more often than this, ms. */
const writeMs = 60_000;
/** Beside the newest one from before, the newest that is older than these are held too: it may have begun before it was noticed, ms. */
const holdAgesMs = [0, 3_600_000, 86_400_000] as const;

/** One suspicion of a group, that stands or was dismissed. */
export type SuspicionFlag = z.infer<typeof flag>;

export interface SuspicionReport {
  readonly sensitivity: SuspicionPolicy['sensitivity'];
  /** The one that stands; null: none. */
  readonly active: SuspicionFlag | null;
  readonly dismissed: readonly SuspicionFlag[];
  /** Points that were looked at, of those that are remembered. */
  readonly pointCount: number;
  /** Share of changed bytes that cannot be compressed, usually; null: not known yet. */
  readonly incompressibleShare: number | null;
}

export interface GroupSuspicionOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly log: Logger | null;
  readonly folder: GroupFolder;
  readonly name: () => string;
  readonly policy: () => SuspicionPolicy;
  /** Oldest first: those that can be restored. */
  readonly restorable: () => Promise<readonly PointFacts[]>;
  readonly hold: (point: PointId, reason: string, untilMs: number) => Promise<{ readonly holdId: string }>;
  readonly release: (holdId: string) => Promise<void>;
}

interface Remembered extends PointId { readonly cutAtMs: number; readonly changes: PointChanges }

export class GroupSuspicion {
  readonly #o: GroupSuspicionOptions;
  #points: Remembered[] = [];
  readonly #byPoint = new Map<string, PointChanges>();
  #flags: SuspicionFlag[] = [];
  #gathering: Gathering = nothingGathered;
  #writtenMs = 0;
  #isUnwritten = false;
  #writing: Promise<void> = Promise.resolve();

  constructor(options: GroupSuspicionOptions) {
    this.#o = options;
  }

  /** What cannot be read is forgotten, and said: points are not worth less for it. */
  async load(): Promise<void> {
    try {
      const kept = await readChecked(this.#o.disk, this.#o.folder.suspicion, state, version);
      for (const point of kept?.points ?? []) this.#remember(point);
      this.#flags = kept?.flags ?? [];
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#o.log?.error({ group: this.#o.name(), code: error.code }, `what was noted of suspicions is lost: ${error.message}`);
    }
  }

  get isOn(): boolean { return this.#o.policy().sensitivity !== 'off'; }

  /** Null: it was not looked at, or is forgotten. */
  changesOf(point: PointId): PointChanges | null {
    return this.#byPoint.get(pointKey(point)) ?? null;
  }

  /** At or after the first point of the suspicion that stands. */
  isSuspect(point: PointId): boolean {
    const active = this.#active();
    return active !== null && comparePoints(point, active.first) >= 0;
  }

  /** Points were applied, oldest first. */
  async applied(points: readonly PointFacts[], changes: readonly PointChanges[] | null): Promise<void> {
    const { sensitivity } = this.#o.policy();
    if (changes === null || sensitivity === 'off') return;
    let usual = this.#usual(sensitivity, points[0]?.cutAtMs ?? 0);
    for (const [index, { term, point, cutAtMs }] of points.entries()) {
      const sampled = { term, point, cutAtMs, changes: changes[index]! };
      if (index > 0 && index % usualEvery === 0) usual = this.#usual(sensitivity, cutAtMs);
      this.#gathering = gather(this.#gathering, sampled, usual, sensitivity);
      this.#remember(sampled);
      const suspicion = judge(this.#gathering, sensitivity);
      if (suspicion === null) continue;
      const active = this.#active();
      if (active === null) await this.#raise(suspicion);
      else await this.#follow(active, suspicion);
    }
    this.#isUnwritten = true;
    if (this.#o.clock.monotonicMs() - this.#writtenMs >= writeMs) await this.#write().catch((error: unknown) => this.#notWritten(error));
  }

  /** The suspicion that stands was looked into by a person. Durable when it resolves. Fault REQUEST_INVALID: none stands. */
  async dismiss(): Promise<SuspicionFlag> {
    const active = this.#active();
    if (active === null) throw new Fault('REQUEST_INVALID', `nothing is suspected of ${this.#o.name()}`, { group: this.#o.name() });
    const dismissed = { ...active, dismissedAtMs: Math.round(this.#o.clock.nowMs()) };
    const before = this.#flags;
    this.#flags = [...before.filter((one) => one !== active), dismissed].slice(-flagsKept);
    try {
      await this.#write();
    } catch (error) {
      this.#flags = before;
      throw error;
    }
    this.#gathering = nothingGathered;
    for (const holdId of active.holdIds) await this.#o.release(holdId);
    return dismissed;
  }

  report(): SuspicionReport {
    const { sensitivity } = this.#o.policy();
    return {
      sensitivity, active: this.#active(), dismissed: this.#flags.filter(({ dismissedAtMs }) => dismissedAtMs !== null), pointCount: this.#points.length,
      incompressibleShare: sensitivity === 'off' ? null : usualOf(this.#points.slice(-usualPoints).map(({ changes }) => changes), sensitivity).incompressibleShare,
    };
  }

  async close(): Promise<void> {
    if (this.#isUnwritten) await this.#write().catch((error: unknown) => this.#notWritten(error));
    await this.#writing;
  }

  /** When a point that was cut at `nowMs` is judged. */
  #usual(sensitivity: Sensitivity, nowMs: number): Usual {
    const dismissedMs = this.#flags.reduce((last, { dismissedAtMs }) => Math.max(last, dismissedAtMs ?? 0), 0);
    return usualOf(learnable(this.#points, nowMs, dismissedMs).map(({ changes }) => changes), sensitivity);
  }

  #active(): SuspicionFlag | null {
    return this.#flags.find(({ dismissedAtMs }) => dismissedAtMs === null) ?? null;
  }

  #remember(point: Remembered): void {
    this.#points.push(point);
    this.#byPoint.set(pointKey(point), point.changes);
    if (this.#points.length <= pointsKept * 1.25) return;
    for (const old of this.#points.splice(0, this.#points.length - pointsKept)) this.#byPoint.delete(pointKey(old));
  }

  async #raise({ kind, first, bytes, changedBytes }: Suspicion): Promise<void> {
    const { clock, log, name } = this.#o;
    const earlier = (await this.#o.restorable()).filter((point) => comparePoints(point, first) < 0);
    const held = holdAgesMs.flatMap((ageMs) => {
      const newest = earlier.at(-1);
      const found = newest === undefined ? undefined : earlier.findLast(({ cutAtMs }) => cutAtMs <= newest.cutAtMs - ageMs);
      return found === undefined ? [] : [found];
    });
    const holdIds: string[] = [];
    for (const point of new Set(held)) {
      try {
        holdIds.push((await this.#o.hold(point, `from before what is suspected since ${formatPoint(first)}`, clock.nowMs() + this.#o.policy().holdMs)).holdId);
      } catch (error) {
        if (!isFault(error)) throw error;
        log?.error({ group: name(), point: formatPoint(point), code: error.code }, `a point from before a suspicion could not be held: ${error.message}`);
      }
    }
    const before = earlier.at(-1);
    this.#flags.push({ kind, first, before: before === undefined ? null : { term: before.term, point: before.point }, bytes, changedBytes, sinceMs: Math.round(clock.nowMs()), holdIds, dismissedAtMs: null, again: null });
    log?.error({ group: name(), first: formatPoint(first), before: before === undefined ? null : formatPoint(before), kind, bytes }, `something may be encrypting ${name()}`);
    await this.#write().catch((error: unknown) => this.#notWritten(error));
  }

  /** What is judged while `active` stands: shown with it, and told as no alarm of its own. */
  async #follow(active: SuspicionFlag, { kind, first, bytes, changedBytes }: Suspicion): Promise<void> {
    const { again } = active;
    const become = (more: Partial<SuspicionFlag>): void => { this.#flags = this.#flags.map((one) => (one === active ? { ...active, ...more } : one)); };
    if (active.kind === kind && comparePoints(first, active.first) <= 0) {
      if (bytes > active.bytes) become({ bytes, changedBytes });
    } else if (again !== null && comparePoints(first, again.first) <= 0) {
      if (again.kind === kind && bytes > again.bytes) become({ again: { ...again, bytes } });
    } else {
      become({ again: { kind, first, bytes, sinceMs: Math.round(this.#o.clock.nowMs()) } });
      this.#o.log?.error({ group: this.#o.name(), first: formatPoint(first), kind, bytes }, `what may be encrypting ${this.#o.name()} goes on`);
      await this.#write().catch((error: unknown) => this.#notWritten(error));
    }
  }

  /** One after the other, each with what is known when its turn comes. */
  #write(): Promise<void> {
    const written = this.#writing.then(async () => {
      this.#writtenMs = this.#o.clock.monotonicMs();
      this.#isUnwritten = false;
      await replaceChecked(this.#o.disk, this.#o.folder.suspicion, { version, points: this.#points.slice(-pointsKept), flags: this.#flags } satisfies z.infer<typeof state>);
    });
    this.#writing = written.then(() => undefined, () => { this.#isUnwritten = true; });
    return written;
  }

  #notWritten(error: unknown): void {
    if (!isFault(error) && errorCode(error) === null) throw error;
    this.#o.log?.warn({ group: this.#o.name(), err: error }, 'what points changed could not be noted; it is tried again');
  }
}
