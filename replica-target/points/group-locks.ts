/**
 * What a group's locks go by: the time that its target has seen pass, and the spans of points that a policy locked (lock-spans-plan.ts), in `locks.json` of the group's own files.
 *
 * *Witnessed time* is the sum of what the monotonic clock ran while the group was open here, noted every few minutes. It goes on only while somebody watches: a wall clock that is set
 * forward or back does not move it, neither does a restart, and a target that was off for a week keeps its locks a week longer. What a crash loses of it lengthens locks as well. A lock
 * is never shortened: the file only ever gains spans, and loses those that are over.
 */
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Clock } from '../../host/clock.ts';
import type { Disk } from '../../host/disk.ts';
import { isSamePoint, type PointId } from '../../journal/point.ts';
import { readChecked, replaceChecked } from '../store/checked-json.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import { lockedForMs, planSpans, type LockSpan } from './lock-spans-plan.ts';

const locksVersion = 1;
const count = z.number().int().nonnegative();
const pointId = z.object({ term: count, point: count });
const locksShape = z.object({
  version: z.literal(locksVersion),
  /** Time that the group's targets have seen pass while they ran, ms. */
  witnessedMs: count,
  spans: z.array(z.object({ after: pointId.nullable(), to: pointId.nullable(), forMs: count, fromMs: count })),
  /** Files of the group may bear the immutable attribute. */
  isAttributed: z.boolean().default(false),
});

/** How often witnessed time is noted while there is a lock, ms: a crash makes locks last that much longer. */
const noteEveryMs = 5 * 60_000;

export interface GroupLocksOptions {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly folder: GroupFolder;
  readonly log: Logger | null;
}

export class GroupLocks {
  readonly #o: GroupLocksOptions;
  #spans: readonly LockSpan[] = [];
  #isAttributed = false;
  /** As it was when this process began to watch, and the monotonic clock then. */
  #began: { readonly witnessedMs: number; readonly atMs: number };
  #notedMs = 0;
  /** What the file holds differs from what is known. */
  #isUnsure = false;
  #writing: Promise<void> = Promise.resolve();

  constructor(options: GroupLocksOptions) {
    this.#o = options;
    this.#began = { witnessedMs: 0, atMs: options.clock.monotonicMs() };
  }

  /** Faults: STORE_CORRUPT, STORE_NEWER. */
  async load(): Promise<void> {
    const kept = await readChecked(this.#o.disk, this.#o.folder.locks, locksShape, locksVersion);
    this.#began = { witnessedMs: kept?.witnessedMs ?? 0, atMs: this.#o.clock.monotonicMs() };
    this.#notedMs = this.#began.witnessedMs;
    this.#spans = kept?.spans ?? [];
    this.#isAttributed = kept?.isAttributed ?? false;
  }

  witnessedMs(): number {
    return Math.floor(this.#began.witnessedMs + Math.max(0, this.#o.clock.monotonicMs() - this.#began.atMs));
  }

  /**
   * Brings the spans up to the policy and to now, and notes how much time has passed when that is due, or there is a lock of another kind to be counted down. Durable when it resolves;
   * when it rejects, what was locked stays locked, and it is tried again with the next call.
   */
  async look(forMs: number | null, newest: PointId | null, hasOthers: boolean): Promise<void> {
    const witnessedMs = this.witnessedMs();
    const spans = planSpans(this.#spans, { forMs, newest, witnessedMs });
    const isDue = (hasOthers || spans.length > 0) && witnessedMs - this.#notedMs >= noteEveryMs;
    if (spans === this.#spans && !isDue && !this.#isUnsure) return;
    this.#spans = spans;
    await this.#write();
  }

  /** Before a lock of another kind counts from now: what it counts from has been noted. */
  async note(): Promise<void> {
    await this.#write();
  }

  /** For how much longer the policy locks the point, ms; 0: it does not. */
  lockedForMs(point: PointId): number {
    return this.#spans.length === 0 ? 0 : lockedForMs(this.#spans, point, this.witnessedMs());
  }

  /** The policy locks what is newer than this (null: every point), or did until a moment ago; undefined: it locks nothing. */
  lockedAfter(): PointId | null | undefined {
    return this.#spans[0]?.after;
  }

  /** For how much longer the policy locks anything, given the newest point; 0: nothing. */
  longestMs(newest: PointId | null): number {
    const witnessedMs = this.witnessedMs();
    return this.#spans.reduce((longest, { after, to, forMs, fromMs }) => {
      if (to === null) return newest === null || isSamePoint(newest, after) ? longest : Math.max(longest, forMs);
      return Math.max(longest, fromMs + forMs - witnessedMs);
    }, 0);
  }

  get isAttributed(): boolean { return this.#isAttributed; }

  /** Durable before the first file gets the attribute, and after the last has lost it; when it rejects, the next call tries again. */
  async attributed(isAttributed: boolean): Promise<void> {
    if (this.#isAttributed === isAttributed && !this.#isUnsure) return;
    this.#isAttributed = isAttributed;
    await this.#write();
  }

  /** Notes the time once more, so that a restart costs none. */
  async close(hasOthers: boolean): Promise<void> {
    await this.#writing;
    if (this.#spans.length === 0 && !hasOthers) return;
    await this.#write().catch((error: unknown) => this.#o.log?.warn({ err: error, path: this.#o.folder.locks }, 'how much time has passed for locks could not be noted: they last longer by it'));
  }

  /** One after the other, each with what is known when its turn comes. */
  #write(): Promise<void> {
    this.#isUnsure = true;
    const written = this.#writing.then(async () => {
      const witnessedMs = this.witnessedMs();
      await replaceChecked(this.#o.disk, this.#o.folder.locks, { version: locksVersion, witnessedMs, spans: this.#spans, isAttributed: this.#isAttributed });
      this.#notedMs = witnessedMs;
      this.#isUnsure = false;
    });
    this.#writing = written.then(() => undefined, () => undefined);
    return written;
  }
}

/** Of a group that is not open: whether it may have locked points, as its files say. Faults: STORE_CORRUPT, STORE_NEWER. */
export async function mayHaveSpans(disk: Disk, folder: GroupFolder): Promise<boolean> {
  return ((await readChecked(disk, folder.locks, locksShape, locksVersion))?.spans.length ?? 0) > 0;
}
