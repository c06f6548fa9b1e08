/**
 * A group's sealed history files, in order, in memory: names, ranges and sizes, no index. Each file begins where the one before
 * ends; the last ends at the applied mark, or at the batch that is being applied. The applier adds a file when it is sealed and
 * before it touches the replica: so what a reader does not find here has not been overwritten. Thinning and pruning replace
 * files; whoever reads at that moment ends on the files that it has, which are removed after the last such reader.
 */
import assert from 'node:assert/strict';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Disk } from '../../host/disk.ts';
import { comparePoints, isSamePoint, type PointId } from '../../journal/point.ts';
import { readChecked, removeIfThere, replaceChecked } from '../store/checked-json.ts';
import type { PointFacts } from '../store/catalog.ts';
import { pointFacts } from '../store/group-facts.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import { HistoryReader } from '../store/history-reader.ts';
import { errorCode } from '../store/store-fault.ts';
import { chainFault, startOf } from './history-chain-plan.ts';
import { OpenFiles } from './open-files.ts';

/** Files of history and digests that are open at once, per group. A lookup needs some 60; a process may have 1,024 and more. */
const openFilesMax = 256;
const prunedVersion = 1;
const count = z.number().int().nonnegative();
const prunedShape = z.object({ version: z.literal(prunedVersion), prunedTo: z.object({ term: count, point: count }), point: pointFacts.optional() });

/** `from` null: the replica before its first point. */
export interface HistoryFile { readonly name: string; readonly sizeBytes: number; readonly from: PointId | null; readonly to: PointId }

export interface HistoryListener {
  added?(file: HistoryFile): void;
  /** `removed` is not in the list any more; `merged` is in its place, null when the oldest were dropped. */
  replaced?(removed: readonly HistoryFile[], merged: HistoryFile | null): void;
  /** The mark has moved: these points are boundaries of the replica now. */
  settled?(applied: PointId | null): void;
}

/** The list as it was when somebody began to read. What is in it can be read until `release`. */
export interface HistoryLease {
  readonly files: readonly HistoryFile[];
  /** How many of `files` there were: later ones are appended to the same list. */
  readonly count: number;
  release(): void;
}

interface Generation { leases: number; readonly doomed: string[] }

export interface HistorySetOptions { readonly disk: Disk; readonly folder: GroupFolder; readonly log: Logger | null }

export class HistorySet {
  readonly #o: HistorySetOptions;
  readonly #listeners = new Set<HistoryListener>();
  readonly #pins = new Map<string, { readonly boundary: PointId; count: number }>();
  /** Boundaries inside a run that is being merged: from the merged file's rename on they are gone, whatever happens then. */
  readonly #leaving = new Set<PointId>();
  /** Open history files and digests, by path. */
  readonly open: OpenFiles;
  /** Appended to in place, replaced by a new array whenever a file goes: indices that a reader took stay right. */
  #files: HistoryFile[];
  #applied: PointId | null;
  #totalBytes: number;
  #generations: Generation[] = [{ leases: 0, doomed: [] }];
  #removing: Promise<void> = Promise.resolve();

  /** `files`: the line as group-opening.ts found it; with a batch to be done again, its file included. */
  constructor(options: HistorySetOptions, files: readonly HistoryFile[], applied: PointId | null) {
    const fault = chainFault(files);
    assert(fault === null, fault ?? '');
    this.#o = options;
    this.open = new OpenFiles(options.disk, openFilesMax);
    this.#files = [...files];
    this.#applied = applied;
    this.#totalBytes = files.reduce((total, { sizeBytes }) => total + sizeBytes, 0);
  }

  /** Oldest first. Not to be kept over an await: see {@link lease}. */
  get files(): readonly HistoryFile[] { return this.#files; }
  get count(): number { return this.#files.length; }
  get totalBytes(): number { return this.#totalBytes; }
  /** The replica's newest point, durable. The last file may end later: its batch is being applied. */
  get applied(): PointId | null { return this.#applied; }

  listen(listener: HistoryListener): () => void {
    this.#listeners.add(listener);
    return () => { this.#listeners.delete(listener); };
  }

  /** A file was sealed. Before the first byte of its batch is written to the replica. */
  add(file: HistoryFile): void {
    const last = this.#files.at(-1);
    assert(isSamePoint(file.from, this.#applied) && (last === undefined || isSamePoint(last.to, file.from)), `${file.name} follows the newest history file`);
    this.#files.push(file);
    this.#totalBytes += file.sizeBytes;
    for (const listener of this.#listeners) listener.added?.(file);
  }

  /** The mark is durable at `applied`. */
  settle(applied: PointId | null): void {
    this.#applied = applied;
    for (const listener of this.#listeners) listener.settled?.(applied);
  }

  /** Index of the file that begins at this boundary, the count for the applied mark; null when it is no boundary (any more). */
  indexOf(boundary: PointId | null): number | null {
    const index = this.#firstFromAtOrAfter(startOf(boundary));
    const file = this.#files[index];
    if (file !== undefined) return isSamePoint(file.from, boundary) ? index : null;
    return isSamePoint(boundary, this.#applied) ? index : null;
  }

  /** The newest point at or before `point` that replica and history alone produce; undefined when none is left (null is 0.0). */
  boundaryAtOrBefore(point: PointId): PointId | null | undefined {
    if (this.#applied !== null && comparePoints(this.#applied, point) <= 0) return this.#applied;
    const index = this.#firstFromAtOrAfter(point);
    const file = this.#files[index];
    if (file !== undefined && isSamePoint(file.from, point)) return point;
    const before = this.#files[index - 1];
    if (before !== undefined) return before.from;
    return this.#applied === null ? null : undefined;
  }

  /** Whether a merge that takes this boundary away is under way: it is not to be pinned any more. */
  isLeaving(boundary: PointId | null): boolean {
    if (boundary !== null) for (const leaving of this.#leaving) if (isSamePoint(leaving, boundary)) return true;
    return false;
  }

  /** Before a run is merged: from here on nobody pins what goes. Null when it may not be merged; else what ends it, however it ends. */
  leave(run: readonly HistoryFile[]): (() => void) | null {
    if (!this.mayReplace(run, false)) return null;
    const boundaries = run.slice(0, -1).map(({ to }) => to);
    if (boundaries.some((boundary) => this.isLeaving(boundary))) return null;
    for (const boundary of boundaries) this.#leaving.add(boundary);
    return () => { for (const boundary of boundaries) this.#leaving.delete(boundary); };
  }

  /** Until it is released, nothing makes this boundary go away. Taken in one go with choosing it: no await between. */
  pin(boundary: PointId | null): () => void {
    assert(this.indexOf(boundary) !== null && !this.isLeaving(boundary), 'only a boundary that stays is pinned');
    const id = startOf(boundary);
    const key = `${id.term}.${id.point}`;
    const pin = this.#pins.get(key) ?? { boundary: id, count: 0 };
    pin.count++;
    this.#pins.set(key, pin);
    let isReleased = false;
    return () => {
      if (isReleased) return;
      isReleased = true;
      pin.count--;
      if (pin.count === 0) this.#pins.delete(key);
    };
  }

  /**
   * Whether these neighbours may be made one file now (or, `isDropped`, be given up): no pinned boundary would go, they are in
   * the list, and none belongs to a batch that is still being applied. `replace` asks again.
   */
  mayReplace(run: readonly HistoryFile[], isDropped: boolean): boolean {
    const first = run[0];
    const last = run.at(-1);
    if (first === undefined || last === undefined) return false;
    if (this.#applied === null || comparePoints(last.to, this.#applied) > 0) return false;
    const at = this.#files.indexOf(first);
    if (at < 0 || (isDropped && at !== 0) || run.some((file, index) => this.#files[at + index] !== file)) return false;
    const from = startOf(first.from);
    for (const { boundary } of this.#pins.values()) {
      const order = comparePoints(boundary, from);
      if ((isDropped ? order >= 0 : order > 0) && comparePoints(boundary, last.to) < 0) return false;
    }
    return true;
  }

  /**
   * Puts `merged`, sealed and durable under its name, in the place of a run of neighbours; or, with null, gives up the oldest.
   * False, and nothing has changed, when that may not be (any more): then a merged file is the caller's to remove. The list has
   * changed when this is called; what it resolves to is that the decision is durable. The replaced files are removed after the
   * last reader that has them.
   */
  async replace(run: readonly HistoryFile[], merged: HistoryFile | null): Promise<boolean> {
    if (!this.mayReplace(run, merged === null)) return false;
    const first = run[0]!;
    const last = run.at(-1)!;
    assert(merged === null || (isSamePoint(merged.from, first.from) && isSamePoint(merged.to, last.to)), 'a merged file has the range of what it replaces');
    const at = this.#files.indexOf(first);
    this.#files = [...this.#files.slice(0, at), ...(merged === null ? [] : [merged]), ...this.#files.slice(at + run.length)];
    this.#totalBytes += (merged?.sizeBytes ?? 0) - run.reduce((total, { sizeBytes }) => total + sizeBytes, 0);
    for (const listener of this.#listeners) listener.replaced?.(run, merged);
    // A file that kept its name was written anew; there is nothing to remove then.
    const names = run.map(({ name }) => name).filter((name) => name !== merged?.name);
    if (merged === null) {
      const { facts } = await HistoryReader.facts(this.#o.disk, this.#o.folder, last.name);
      await writePruned(this.#o, last.to, facts.points.at(-1));
    }
    this.doom(names.map((name) => this.#o.folder.undo(name)));
    return true;
  }

  /** Begins one read. Short: a held view takes one for every read. */
  lease(): HistoryLease {
    const generation = this.#generations.at(-1)!;
    generation.leases++;
    let isReleased = false;
    return {
      files: this.#files,
      count: this.#files.length,
      release: () => {
        assert(!isReleased, 'a lease is released once');
        isReleased = true;
        generation.leases--;
        this.#sweep();
      },
    };
  }

  /** Removes files once nobody who reads now can be using them. */
  doom(paths: readonly string[]): void {
    this.#generations.at(-1)!.doomed.push(...paths);
    this.#generations.push({ leases: 0, doomed: [] });
    this.#sweep();
  }

  /** Resolves when what is free to be removed is removed. */
  async removed(): Promise<void> {
    await this.#removing;
  }

  async close(): Promise<void> {
    await this.#removing;
    await this.open.close();
  }

  #sweep(): void {
    while (this.#generations.length > 1 && this.#generations[0]!.leases === 0) {
      const { doomed } = this.#generations.shift()!;
      if (doomed.length > 0) this.#removing = this.#removing.then(() => this.#remove(doomed));
    }
  }

  async #remove(paths: readonly string[]): Promise<void> {
    for (const path of paths) {
      this.open.forget(path);
      try {
        await removeIfThere(this.#o.disk, path);
      } catch (error) {
        if (errorCode(error) === null) throw error;
        // It is found and removed at the next start.
        this.#o.log?.warn({ err: error, path }, 'a replaced file could not be removed');
      }
    }
  }

  /** Index of the first file whose `from` is at or after `point`. */
  #firstFromAtOrAfter(point: PointId): number {
    let low = 0;
    let high = this.#files.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (comparePoints(startOf(this.#files[middle]!.from), point) >= 0) high = middle; else low = middle + 1;
    }
    return low;
  }
}

/** Up to which point history was given up, and that point, which no file's header has any more; null when none was. Faults: STORE_CORRUPT, STORE_NEWER. */
export async function readPruned(disk: Disk, folder: GroupFolder): Promise<{ readonly prunedTo: PointId; readonly point?: PointFacts | undefined } | null> {
  return readChecked(disk, folder.pruned, prunedShape, prunedVersion);
}

async function writePruned({ disk, folder }: HistorySetOptions, prunedTo: PointId, point: PointFacts | undefined): Promise<void> {
  await replaceChecked(disk, folder.pruned, { version: prunedVersion, prunedTo, point });
}
