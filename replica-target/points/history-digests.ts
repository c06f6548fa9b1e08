/**
 * A group's digests: which are there, which of them a search uses, and making the next ones in the background. They are derived
 * from the history files and from nothing else: one that is damaged, or whose files have changed, is thrown away and made anew,
 * and while it is missing the search asks what is beneath it. No before-image is ever copied by this.
 */
import type { Logger } from 'pino';
import type { Disk } from '../../host/disk.ts';
import { comparePoints, isSamePoint, type PointId } from '../../journal/point.ts';
import { isFault } from '../../journal/fault.ts';
import { removeIfThere } from '../store/checked-json.ts';
import { undoFileName, type GroupFolder } from '../store/group-folder.ts';
import { errorCode } from '../store/store-fault.ts';
import { BlockCache } from './block-cache.ts';
import { digestFanout, planDigests, type DigestPart } from './digest-plan.ts';
import { DigestReader, type DigestSource } from './digest-reader.ts';
import { DigestWriter } from './digest-writer.ts';
import { startOf } from './history-chain-plan.ts';
import type { HistoryFile, HistoryLease, HistorySet } from './history-set.ts';
import { mergeRuns, type RunCursor } from './image-runs.ts';
import { UndoIndex } from './undo-index.ts';

/** Pages of indices that are kept in memory, per group. */
const cacheBytesMax = 32 * 1024 * 1024;
/** History files whose fences are kept in memory: some 200 bytes each. */
const indicesMax = 4096;
/** From, to, and a number: no name is ever used twice, so that one can be removed late. */
const digestName = /^[\d.]+-\d+\.\d+\.(\d+)\.digest$/;

/** What a search asks: a digest, or a single history file. `first`: index in the list of the first file that it speaks of. */
export interface DigestSearch {
  readonly first: number;
  readonly fileCount: number;
  readonly digest: Digest | null;
}

export interface Digest {
  readonly level: number;
  readonly from: PointId | null;
  readonly to: PointId;
  /** Files that it covers, when it was made. */
  readonly files: readonly HistoryFile[];
  readonly reader: DigestReader;
  isCovered: boolean;
}

/** Thrown inside, to end a long merge at once. */
class DigestStopped extends Error {}

export interface HistoryDigestsOptions { readonly disk: Disk; readonly folder: GroupFolder; readonly groupId: string; readonly history: HistorySet; readonly log: Logger | null }

export class HistoryDigests {
  readonly #o: HistoryDigestsOptions;
  readonly source: DigestSource;
  /** By level, from 1 on, each in order. */
  #levels: Digest[][] = [];
  readonly #byFirst = new Map<HistoryFile, Digest[]>();
  readonly #covered = new Set<HistoryFile>();
  /** In order of last use. */
  readonly #indices = new Map<string, UndoIndex | Promise<UndoIndex>>();
  #addedSincePlan = digestFanout;
  #serial = 1;
  #working: Promise<void> | null = null;
  #isStopped = false;
  readonly #stopListening: () => void;

  constructor(options: HistoryDigestsOptions) {
    this.#o = options;
    this.source = { open: options.history.open, cache: new BlockCache(cacheBytesMax) };
    this.#stopListening = options.history.listen({
      settled: () => { this.#addedSincePlan++; this.#wake(); },
      replaced: (removed) => { this.#forget(removed); this.#addedSincePlan = digestFanout; this.#wake(); },
    });
  }

  get count(): number { return this.#levels.reduce((total, level) => total + level.length, 0); }
  get sizeBytes(): number { return this.#levels.reduce((total, level) => level.reduce((sum, { reader }) => sum + reader.sizeBytes, total), 0); }
  get cacheBytes(): number { return this.source.cache.bytes; }

  /** Takes those that are there and fit the list, removes the others, and begins to make what is missing. */
  start(): void {
    this.#working = this.#load().finally(() => {
      this.#working = null;
      this.#wake();
    });
  }

  async #load(): Promise<void> {
    try {
      for (const name of await this.#o.disk.list(this.#o.folder.history)) {
        const parsed = digestName.exec(name);
        if (parsed === null) continue;
        this.#serial = Math.max(this.#serial, Number(parsed[1]) + 1);
        const found = await this.#loadOne(name);
        if (found === null || this.#isCovered(found, found.level - 1)) await removeIfThere(this.#o.disk, this.#o.folder.undo(name)); else this.#put(found);
      }
    } catch (error) {
      if (errorCode(error) === null) throw error;
      this.#o.log?.warn({ err: error, path: this.#o.folder.history }, 'the digests of the history cannot be read; looking up is slower until they are made anew');
    }
  }

  /** What to ask for files [first, end) of a lease, oldest first. */
  cover({ files }: HistoryLease, first: number, end: number): DigestSearch[] {
    const searches: DigestSearch[] = [];
    for (let at = first; at < end;) {
      let digest: Digest | null = null;
      for (const candidate of this.#byFirst.get(files[at]!) ?? []) {
        if (at + candidate.files.length <= end && candidate.files.length > (digest?.files.length ?? 0)) digest = candidate;
      }
      const fileCount = digest?.files.length ?? 1;
      searches.push({ first: at, fileCount, digest });
      at += fileCount;
    }
    return searches;
  }

  index(file: HistoryFile): UndoIndex | Promise<UndoIndex> {
    const known = this.#indices.get(file.name);
    if (known !== undefined) {
      this.#indices.delete(file.name);
      this.#indices.set(file.name, known);
      return known;
    }
    const opening = UndoIndex.open(this.source, this.#o.folder.undo(file.name));
    this.#indices.set(file.name, opening);
    opening.then((index) => { if (this.#indices.get(file.name) === opening) this.#indices.set(file.name, index); }, () => this.#indices.delete(file.name));
    const oldest = this.#indices.keys().next();
    if (this.#indices.size > indicesMax && oldest.done !== true) this.#indices.delete(oldest.value);
    return opening;
  }

  /** It was found damaged, or not to fit its files. */
  distrust(digest: Digest, error: unknown): void {
    if (!this.#isThere(digest)) return;
    this.#o.log?.warn({ path: digest.reader.path, err: error }, 'a digest of the history is damaged and is made anew');
    this.#drop(digest);
    this.#addedSincePlan = digestFanout;
    this.#wake();
  }

  /** Resolves when there is nothing more to make now. */
  async idle(): Promise<void> {
    while (this.#working !== null) await this.#working;
  }

  async close(): Promise<void> {
    this.#isStopped = true;
    this.#stopListening();
    await this.#working;
  }

  #wake(): void {
    if (this.#working !== null || this.#isStopped || this.#addedSincePlan < digestFanout) return;
    this.#working = this.#work().finally(() => {
      this.#working = null;
      this.#wake();
    });
  }

  async #work(): Promise<void> {
    try {
      while (!this.#isStopped) {
        this.#addedSincePlan = 0;
        const { history } = this.#o;
        const settled = history.files.length - (isSettled(history) ? 0 : 1);
        const files: DigestPart[] = [];
        for (let index = 0; index < settled; index++) {
          const file = history.files[index]!;
          files.push({ from: file.from, to: file.to, isCovered: this.#covered.has(file) });
        }
        const plan = planDigests([files, ...this.#levels]);
        if (plan === null) return;
        const below = plan.level === 1 ? history.files.slice(0, settled) : this.#levels[plan.level - 2]!;
        for (const parts of plan.firsts.map((first) => below.slice(first, first + digestFanout))) {
          if (!this.#isStopped) await this.#make(plan.level, parts);
        }
      }
    } catch (error) {
      // Restores do not need it; the next files that come give reason to try again.
      if (error instanceof DigestStopped) return;
      if (errorCode(error) === null && !isFault(error)) throw error;
      this.#o.log?.warn({ err: error, path: this.#o.folder.history }, 'a digest of the history could not be made; looking up is slower until it is');
    }
  }

  async #make(level: number, parts: readonly (HistoryFile | Digest)[]): Promise<void> {
    const { history, disk, folder, groupId } = this.#o;
    const files = parts.flatMap((part) => ('reader' in part ? part.files : [part]));
    const isStill = (): boolean => {
      const at = history.indexOf(files[0]!.from);
      return at !== null && files.every((file, index) => history.files[at + index] === file) && parts.every((part) => !('reader' in part) || this.#isThere(part));
    };
    const lease = history.lease();
    try {
      if (!isStill()) return;
      const path = folder.undo(undoFileName(files[0]!.from, files.at(-1)!.to).replace(/\.undo$/, `.${this.#serial++}.digest`));
      const sources: { cursor: RunCursor; fileBase: number }[] = [];
      let fileBase = 0;
      for (const part of parts) {
        sources.push({ cursor: 'reader' in part ? part.reader.cursor() : (await this.index(part)).cursor(), fileBase });
        fileBase += 'reader' in part ? part.files.length : 1;
      }
      const writer = await DigestWriter.begin(disk, path);
      try {
        await mergeRuns(sources, (run) => {
          if (this.#isStopped) throw new DigestStopped('the group is being closed');
          return writer.add(run);
        });
        await writer.seal({ groupId, level, from: files[0]!.from, files });
      } catch (error) {
        await writer.abandon().catch((second: unknown) => { if (errorCode(second) === null) throw second; });
        if (isFault(error, 'STORE_CORRUPT')) for (const part of parts) if ('reader' in part && error.facts['path'] === part.reader.path) this.distrust(part, error);
        throw error;
      }
      const reader = await DigestReader.open(this.source, path);
      if (reader === null || !isStill()) return history.doom([path]);
      this.#put({ level, from: files[0]!.from, to: files.at(-1)!.to, files, reader, isCovered: false });
    } finally {
      lease.release();
    }
  }

  async #loadOne(name: string): Promise<Digest | null> {
    const { history, folder, groupId, log } = this.#o;
    try {
      const reader = await DigestReader.open(this.source, folder.undo(name));
      if (reader === null || reader.trailer.groupId !== groupId) return null;
      const table = await reader.table();
      const at = history.indexOf(reader.trailer.from);
      if (at === null || table.length === 0) return null;
      const files = history.files.slice(at, at + table.length);
      const isSame = files.length === table.length && files.every(({ to, sizeBytes }, index) => isSamePoint(to, table[index]!.to) && sizeBytes === table[index]!.sizeBytes);
      if (!isSame) return null;
      return { level: reader.trailer.level, from: reader.trailer.from, to: files.at(-1)!.to, files, reader, isCovered: false };
    } catch (error) {
      if (errorCode(error) === null && !isFault(error)) throw error;
      log?.warn({ err: error, path: folder.undo(name) }, 'a digest of the history cannot be read and is made anew');
      return null;
    }
  }

  #put(digest: Digest): void {
    const level = this.#levels[digest.level - 1] ??= [];
    for (let below = 0; below < digest.level; below++) this.#levels[below] ??= [];
    let at = level.length;
    while (at > 0 && comparePoints(startOf(level[at - 1]!.from), startOf(digest.from)) > 0) at--;
    level.splice(at, 0, digest);
    const first = digest.files[0]!;
    this.#byFirst.set(first, [...this.#byFirst.get(first) ?? [], digest]);
    digest.isCovered = this.#isCovered(digest, digest.level);
    this.#cover(digest, true);
  }

  #drop(digest: Digest): void {
    const level = this.#levels[digest.level - 1]!;
    level.splice(level.indexOf(digest), 1);
    const first = digest.files[0]!;
    const left = this.#byFirst.get(first)!.filter((other) => other !== digest);
    if (left.length === 0) this.#byFirst.delete(first); else this.#byFirst.set(first, left);
    this.#cover(digest, false);
    this.#o.history.doom([digest.reader.path]);
  }

  #isThere(digest: Digest): boolean {
    return this.#byFirst.get(digest.files[0]!)?.includes(digest) === true;
  }

  #forget(removed: readonly HistoryFile[]): void {
    for (const file of removed) this.#indices.delete(file.name);
    const from = startOf(removed[0]!.from);
    const to = removed.at(-1)!.to;
    for (const digest of this.#levels.flat()) if (comparePoints(startOf(digest.from), to) < 0 && comparePoints(digest.to, from) > 0) this.#drop(digest);
  }

  /** What a digest is made of is spoken for while it is there. */
  #cover(digest: Digest, isCovered: boolean): void {
    if (digest.level === 1) {
      for (const file of digest.files) if (isCovered) this.#covered.add(file); else this.#covered.delete(file);
      return;
    }
    for (const child of this.#levels[digest.level - 2]!) if (contains(digest, child)) child.isCovered = isCovered;
  }

  /** `level`: index of the level in which a digest over this one would be. */
  #isCovered(digest: Digest, level: number): boolean {
    return this.#levels[level]?.some((above) => contains(above, digest)) === true;
  }
}

function contains(above: Digest, below: Digest): boolean {
  return comparePoints(startOf(above.from), startOf(below.from)) <= 0 && comparePoints(above.to, below.to) >= 0;
}

function isSettled(history: HistorySet): boolean {
  const last = history.files.at(-1);
  return last === undefined || isSamePoint(last.to, history.applied);
}
