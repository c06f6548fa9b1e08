/**
 * An index over a group's points and history files, in level. It decides nothing and knows nothing that the files do not: when
 * it is missing, behind or damaged, it is filled again from the headers of the history files and the seals in the journal
 * (catalog-opening.ts). Writes are queued and not waited for.
 */
import type { AbstractLevel } from 'abstract-level';
import { comparePoints, type PointId, type PointKind } from '../../journal/point.ts';
import type { CutFacts } from '../../journal/seal.ts';

export type CatalogLevel = AbstractLevel<string | Buffer | Uint8Array, string, string>;

/** A point as history files and catalog keep it. */
export interface PointFacts extends PointId, CutFacts {
  readonly kind: PointKind;
  readonly cutAtMs: number;
  readonly arrivedAtMs: number;
  readonly changedBytes: number;
  readonly label?: string | undefined;
}

export interface HistoryEntry { readonly name: string; readonly sizeBytes: number; readonly from: PointId | null; readonly to: PointId }

/** The catalog is not what was written. Of no one's concern but those who make it anew. */
export class DamagedCatalog extends Error {
  override readonly name = 'DamagedCatalog';
}

export class Catalog {
  readonly #level: CatalogLevel;
  #writing: Promise<void> = Promise.resolve();
  #pointCount = 0;
  #oldest: PointFacts | null = null;
  /** History files up to here have lost their inner points. */
  #thinnedTo = historyPrefix;
  readonly #onFailure: (error: unknown) => void;

  private constructor(level: CatalogLevel, onFailure: (error: unknown) => void) {
    this.#level = level;
    this.#onFailure = onFailure;
  }

  static async open(level: CatalogLevel, onFailure: (error: unknown) => void): Promise<Catalog> {
    await level.open();
    const catalog = new Catalog(level, onFailure);
    for await (const [key, value] of level.iterator(range(pointPrefix))) {
      const point = JSON.parse(value) as PointFacts;
      if (pointKey(point) !== key) throw new DamagedCatalog(`${key} holds another point`);
      catalog.#oldest ??= point;
      catalog.#pointCount++;
    }
    return catalog;
  }

  get pointCount(): number { return this.#pointCount; }
  get oldest(): PointFacts | null { return this.#oldest; }

  async point(id: PointId): Promise<PointFacts | null> {
    await this.#writing;
    const value = await this.#level.get(pointKey(id)) as string | undefined;
    return value === undefined ? null : JSON.parse(value) as PointFacts;
  }

  /** Newest last. */
  points(): Promise<PointFacts[]> {
    return this.mapPoints((facts) => facts);
  }

  /** As {@link points}, for who needs little of each: a day of them has 86,400. */
  async mapPoints<T>(map: (facts: PointFacts) => T): Promise<T[]> {
    await this.#writing;
    const found: T[] = [];
    for await (const value of this.#level.values(range(pointPrefix))) found.push(map(JSON.parse(value) as PointFacts));
    return found;
  }

  async histories(): Promise<HistoryEntry[]> {
    await this.#writing;
    const found: HistoryEntry[] = [];
    for await (const value of this.#level.values(range(historyPrefix))) found.push(JSON.parse(value) as HistoryEntry);
    return found;
  }

  /** A point that is new to the catalog. */
  putPoint(facts: PointFacts): void {
    this.#pointCount++;
    if (this.#oldest === null || comparePoints(facts, this.#oldest) < 0) this.#oldest = facts;
    this.#write(() => this.#level.put(pointKey(facts), JSON.stringify(facts)));
  }

  putHistory(entry: HistoryEntry): void {
    this.#write(() => this.#level.put(historyKey(entry.to), JSON.stringify(entry)));
  }

  dropHistory(entry: HistoryEntry): void {
    this.#write(() => this.#level.del(historyKey(entry.to)));
  }

  /**
   * The journal holds only what follows `floor`: a point inside a batch that begins before it can no longer be produced, its
   * batch's last point can.
   */
  thin(floor: PointId): void {
    this.#write(async () => {
      const boundaries = new Set<string>();
      let first: PointId | null = null;
      let last: PointId | null = null;
      for await (const [key, value] of this.#level.iterator({ gt: this.#thinnedTo, lt: `${historyPrefix}~` })) {
        const { from, to } = JSON.parse(value) as HistoryEntry;
        if (comparePoints(from ?? { term: 0, point: 0 }, floor) >= 0) break;
        first ??= from ?? { term: 0, point: 0 };
        last = to;
        boundaries.add(pointKey(to));
        this.#thinnedTo = key;
      }
      if (first === null || last === null) return;
      // In one pass: after an opening these are all files that there are.
      const keys = await this.#level.keys({ gt: pointKey(first), lt: pointKey(last) }).all();
      await this.#dropKeys(keys.filter((key) => !boundaries.has(key)));
    });
  }

  /**
   * Neighbouring history files became one, or the oldest were given up (null). Points that only their boundaries produced go;
   * those that the journal, complete from `floor` on (null: from its beginning), still produces stay.
   */
  replaceHistory(removed: readonly HistoryEntry[], merged: HistoryEntry | null, floor: PointId | null): void {
    const first = removed[0];
    const last = removed.at(-1);
    if (first === undefined || last === undefined) return;
    this.#write(async () => {
      await this.#level.batch(removed.map(({ to }) => ({ type: 'del', key: historyKey(to) })));
      if (merged !== null) await this.#level.put(historyKey(merged.to), JSON.stringify(merged));
      const from = first.from ?? { term: 0, point: 0 };
      if (merged === null) await this.#dropPoints(pointPrefix, pointKey(last.to));
      else if (floor !== null && comparePoints(from, floor) < 0) await this.#dropPoints(pointKey(from), pointKey(last.to));
    });
  }

  /** Nothing leads to points before `oldest` any more. */
  async dropBefore(oldest: PointId): Promise<void> {
    await this.#writing;
    await this.#dropPoints(pointPrefix, pointKey(oldest));
  }

  /** The files hold no point after `newest`. */
  async dropAfter(newest: PointId | null): Promise<void> {
    await this.#writing;
    const gt = newest === null ? pointPrefix : pointKey(newest);
    const keys = await this.#level.keys({ gt, lt: `${pointPrefix}~` }).all();
    if (keys.length === 0) return;
    await this.#level.batch(keys.map((key) => ({ type: 'del', key })));
    this.#pointCount -= keys.length;
    if (this.#pointCount === 0) this.#oldest = null;
  }

  async clear(): Promise<void> {
    await this.#writing;
    await this.#level.clear();
    this.#pointCount = 0;
    this.#oldest = null;
    this.#thinnedTo = historyPrefix;
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.#level.close();
  }

  /** Those between two keys, exclusive. */
  async #dropPoints(gt: string, lt: string): Promise<void> {
    await this.#dropKeys(await this.#level.keys({ gt, lt }).all());
  }

  async #dropKeys(keys: readonly string[]): Promise<void> {
    if (keys.length === 0) return;
    await this.#level.batch(keys.map((key) => ({ type: 'del', key })));
    this.#pointCount -= keys.length;
    const [oldest] = await this.#level.values({ ...range(pointPrefix), limit: 1 }).all();
    this.#oldest = oldest === undefined ? null : JSON.parse(oldest) as PointFacts;
  }

  #write(write: () => Promise<void>): void {
    this.#writing = this.#writing.then(write).catch((error: unknown) => this.#onFailure(error));
  }
}

const pointPrefix = 'point!';
const historyPrefix = 'undo!';

/** Fixed widths, so that the order of keys is the order of points. */
function sortable({ term, point }: PointId): string {
  return `${String(term).padStart(10, '0')}.${String(point).padStart(16, '0')}`;
}

function pointKey(id: PointId): string {
  return pointPrefix + sortable(id);
}

function historyKey(to: PointId): string {
  return historyPrefix + sortable(to);
}

function range(prefix: string): { gt: string; lt: string } {
  return { gt: prefix, lt: `${prefix}~` };
}
