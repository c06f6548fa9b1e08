/**
 * Before-images by place: for a range of a disk and a run of history files, the pieces of the oldest before-images, and their
 * bytes. It asks digests where there are some and the files' own indices where there are none; a digest that does not agree with
 * the file that it names is not believed. Every byte that it hands out was checked against its run's checksum.
 */
import type { Extent } from '../../journal/extents.ts';
import { isFault } from '../../journal/fault.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import { checksumOf, decodeHistoryRun, historyRunBytes, type HistoryRun } from '../store/history-format.ts';
import { corrupt, errorCode } from '../store/store-fault.ts';
import { BlockCache } from './block-cache.ts';
import type { Digest, DigestSearch, HistoryDigests } from './history-digests.ts';
import type { HistoryFile, HistoryLease, HistorySet } from './history-set.ts';
import type { ImageRun } from './image-runs.ts';

/** Reads of one lookup that are under way at once: the file system's threads are four. */
const readsInFlight = 8;
/** Digests and indices that are asked at once: what must be read is then read side by side. */
const searchesTogether = 16;
/** Runs nearer than this in one file are read together; what lies between costs less than another read. */
const gapBytesMax = 16 * 1024;
const readBytesMax = 1024 * 1024;
/** Reads up to here are tried without a thread: a copy from memory of some microseconds. */
const nowBytesMax = 64 * 1024;
/** Whole runs that are kept, checked, for whoever reads a large one piece by piece. */
const runCacheBytes = 8 * 1024 * 1024;
const keptRunBytesMin = 32 * 1024;

/** A piece of a before-image. `digest`: who says so, when it was not the file itself. */
export interface ImagePiece extends Extent {
  readonly isZero: boolean;
  readonly file: HistoryFile;
  readonly at: number;
  readonly digest: Digest | null;
}

export interface FoundImages {
  /** In order, disjoint. */
  readonly pieces: readonly ImagePiece[];
  /** What no file of the run has: in order. */
  readonly gaps: readonly Extent[];
}

/** Thrown inside: a digest was wrong, and has been given up. The search is done again without it. */
class DigestDistrusted extends Error {}

export class HistoryImages {
  readonly #folder: GroupFolder;
  readonly #history: HistorySet;
  readonly #digests: HistoryDigests;
  readonly #runs = new BlockCache(runCacheBytes);

  constructor(folder: GroupFolder, history: HistorySet, digests: HistoryDigests) {
    this.#folder = folder;
    this.#history = history;
    this.#digests = digests;
  }

  /** Of files [first, end) of a lease. `wanted`: in order, disjoint. Faults: STORE_CORRUPT. */
  async find(lease: HistoryLease, first: number, end: number, disk: number, wanted: readonly Extent[]): Promise<FoundImages> {
    for (;;) {
      try {
        return await this.#find(lease, this.#digests.cover(lease, first, end), disk, wanted);
      } catch (error) {
        if (!(error instanceof DigestDistrusted)) throw error;
      }
    }
  }

  /** Puts the pieces' bytes into `into`, which begins at `start` of the disk. False when a digest was wrong: find again. Faults: STORE_CORRUPT. */
  async read(disk: number, pieces: readonly ImagePiece[], start: number, into: Buffer): Promise<boolean> {
    const reads: (() => void | Promise<void>)[] = [];
    const files = new Map<HistoryFile, ImagePiece[]>();
    for (const piece of pieces) {
      if (piece.isZero) { into.fill(0, piece.start - start, piece.end - start); continue; }
      const known = files.get(piece.file);
      if (known === undefined) files.set(piece.file, [piece]); else known.push(piece);
    }
    for (const [file, ofFile] of files) {
      ofFile.sort((a, b) => a.at - b.at);
      for (let index = 0; index < ofFile.length;) {
        const from = index++;
        const startAt = ofFile[from]!.at;
        let endAt = likelyEnd(ofFile[from]!);
        for (; index < ofFile.length; index++) {
          const next = ofFile[index]!;
          if (next.at > endAt + gapBytesMax || likelyEnd(next) - startAt > readBytesMax) break;
          endAt = Math.max(endAt, likelyEnd(next));
        }
        const together = ofFile.slice(from, index);
        const until = endAt;
        reads.push(() => this.#readTogether(file, disk, together, startAt, until, start, into));
      }
    }
    return allOf(reads);
  }

  async #find(lease: HistoryLease, searches: readonly DigestSearch[], disk: number, wanted: readonly Extent[]): Promise<FoundImages> {
    const pieces: ImagePiece[] = [];
    let gaps: readonly Extent[] = wanted;
    for (let from = 0; from < searches.length; from += searchesTogether) {
      const first = gaps[0];
      if (first === undefined) break;
      const { end } = gaps.at(-1)!;
      const asked = searches.slice(from, from + searchesTogether).map((search) => {
        const runs: ImageRun[] = [];
        return { search, runs, reading: this.#ask(lease, search, disk, first.start, end, runs) };
      });
      // Mostly what they need is in memory, and there is nothing to wait for.
      const reading = asked.flatMap((one) => one.reading ?? []);
      if (reading.length > 0) await Promise.all(reading);
      for (const { search, runs } of asked) {
        if (runs.length > 0) gaps = take(gaps, runs, pieces, (run) => ({ file: lease.files[search.first + run.file]!, digest: search.digest }));
      }
    }
    pieces.sort((a, b) => a.start - b.start);
    return { pieces, gaps };
  }

  #ask(lease: HistoryLease, { first, digest }: DigestSearch, disk: number, start: number, end: number, into: ImageRun[]): void | Promise<void> {
    if (digest === null) {
      const index = this.#digests.index(lease.files[first]!);
      return index instanceof Promise ? index.then((opened) => opened.lookup(disk, start, end, into)) : index.lookup(disk, start, end, into);
    }
    const asked = digest.reader.lookup(disk, start, end, into);
    return asked?.catch((error: unknown) => this.#distrust(digest, error));
  }

  /** A promise only when there is something to wait for. */
  #readTogether(file: HistoryFile, disk: number, pieces: readonly ImagePiece[], startAt: number, endAt: number, start: number, into: Buffer): void | Promise<void> {
    const path = this.#folder.undo(file.name);
    const only = pieces.length === 1 ? pieces[0]! : null;
    const large = only === null ? undefined : this.#runs.get(`${path}#${startAt}`);
    if (only !== null && large !== undefined) return this.#copy(path, disk, only, large, true, start, into);
    const length = endAt - startAt;
    const now = length > nowBytesMax ? null : this.#readNow(path, startAt, length);
    if (now !== null) return this.#copyAll(path, disk, pieces, now, startAt, start, into);
    return this.#readAt(path, startAt, length).then((bytes) => this.#copyAll(path, disk, pieces, bytes, startAt, start, into));
  }

  #copyAll(path: string, disk: number, pieces: readonly ImagePiece[], bytes: Buffer, startAt: number, start: number, into: Buffer): void | Promise<void> {
    const waiting: Promise<void>[] = [];
    for (const piece of pieces) {
      try {
        const copying = this.#copy(path, disk, piece, bytes.subarray(piece.at - startAt), false, start, into);
        if (copying !== undefined) waiting.push(copying);
      } catch (error) {
        if (waiting.length === 0) throw error;
        waiting.push(Promise.reject(error instanceof Error ? error : new Error(String(error))));
      }
    }
    if (waiting.length > 0) return allSettled(waiting);
  }

  /** `bytes`: from the run's header on, perhaps not to its end. */
  #copy(path: string, disk: number, piece: ImagePiece, bytes: Buffer, isChecked: boolean, start: number, into: Buffer): void | Promise<void> {
    const reading = decodeHistoryRun(bytes);
    if (!reading.ok) return this.#wrong(piece, path, reading.detail);
    const { value: run } = reading;
    if (run.kind !== 'data' || run.disk !== disk || run.offset > piece.start || run.offset + run.length < piece.end) return this.#wrong(piece, path, 'the run is not the one that the index names');
    if (bytes.length >= historyRunBytes + run.length) return this.#copyRun(path, disk, piece, run, bytes, isChecked, start, into);
    return this.#readAt(path, piece.at, historyRunBytes + run.length).then((whole) => this.#copyRun(path, disk, piece, run, whole, false, start, into));
  }

  #copyRun(path: string, disk: number, piece: ImagePiece, run: HistoryRun & { readonly payload: bigint }, whole: Buffer, isChecked: boolean, start: number, into: Buffer): void {
    const payload = whole.subarray(historyRunBytes, historyRunBytes + run.length);
    if (!isChecked) {
      // The header is the file's own word: nothing but the file is damaged here.
      if (payload.length !== run.length || checksumOf(payload) !== run.payload) throw corrupt(path, piece.at + historyRunBytes, 'a before-image fails its checksum', { disk, diskOffset: run.offset });
      if (run.length >= keptRunBytesMin && run.length > piece.end - piece.start) this.#runs.put(`${path}#${piece.at}`, Buffer.from(whole.subarray(0, historyRunBytes + run.length)));
    }
    payload.copy(into, piece.start - start, piece.start - run.offset, piece.end - run.offset);
  }

  /** What is in the page cache is had with one call, for a tenth of what a thread costs; null when it is not. */
  #readNow(path: string, at: number, length: number): Buffer | null {
    const file = this.#history.open.ready(path);
    if (file?.readNow === undefined || !Number.isSafeInteger(at + length)) return null;
    const bytes = Buffer.allocUnsafe(length);
    return file.readNow(bytes, length, at) === length ? bytes : null;
  }

  #readAt(path: string, at: number, length: number): Promise<Buffer> {
    if (!Number.isSafeInteger(at + length)) return Promise.reject(corrupt(path, 0, 'the index names a place beyond any file'));
    return this.#history.open.use(path, async (file) => {
      const bytes = Buffer.allocUnsafe(length);
      return bytes.subarray(0, await file.read(bytes, 0, length, at));
    });
  }

  #wrong(piece: ImagePiece, path: string, detail: string): never {
    const fault = corrupt(path, piece.at, detail);
    if (piece.digest === null) throw fault;
    return this.#distrust(piece.digest, fault);
  }

  #distrust(digest: Digest, error: unknown): never {
    if (!isFault(error, 'STORE_CORRUPT') && errorCode(error) === null) throw error;
    this.#digests.distrust(digest, error);
    throw new DigestDistrusted('a digest was wrong', { cause: error });
  }
}

/** Some at once. All that were begun have ended when it settles: nobody writes into the buffer afterwards. False when a digest was wrong. */
async function allOf(reads: readonly (() => void | Promise<void>)[]): Promise<boolean> {
  let next = 0;
  let failure: { readonly error: unknown } | null = null;
  const one = async (): Promise<void> => {
    while (failure === null && next < reads.length) {
      try {
        const reading = reads[next++]!();
        if (reading !== undefined) await reading;
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(readsInFlight, reads.length) }, one));
  const failed = failure as { readonly error: unknown } | null;
  if (failed === null) return true;
  if (failed.error instanceof DigestDistrusted) return false;
  throw failed.error;
}

/** Nobody writes into a buffer any more when it settles. */
async function allSettled(waiting: readonly Promise<void>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(waiting)) if (outcome.status === 'rejected') throw outcome.reason;
}

/** Moves what the runs have of the gaps into `pieces`; returns what is left. All in order. */
function take(gaps: readonly Extent[], runs: readonly ImageRun[], pieces: ImagePiece[], from: (run: ImageRun) => Pick<ImagePiece, 'file' | 'digest'>): Extent[] {
  const left: Extent[] = [];
  let at = 0;
  for (const gap of gaps) {
    let start = gap.start;
    while (at < runs.length && runs[at]!.end <= start) at++;
    for (let index = at; index < runs.length && runs[index]!.start < gap.end; index++) {
      const run = runs[index]!;
      if (run.start > start) left.push({ start, end: run.start });
      const end = Math.min(run.end, gap.end);
      pieces.push({ start: Math.max(start, run.start), end, isZero: run.isZero, at: run.at, ...from(run) });
      start = end;
    }
    if (start < gap.end) left.push({ start, end: gap.end });
  }
  return left;
}

/** Of most runs the piece is all: a digest names less only where an older run covers the rest. */
function likelyEnd(piece: ImagePiece): number {
  return piece.at + historyRunBytes + (piece.end - piece.start);
}
