/**
 * What the indices of history files and digests are made of, as they are searched and merged: runs of before-images, sorted by
 * disk and offset, no byte twice in one source. Of several sources the older wins; merging cuts what an older one covers out of
 * the younger. Numbers only: no file is touched here.
 */

/** `at`: where the whole run's header lies in its history file; the piece may be less than that run. `file`: index in its source. */
export interface ImageRun {
  readonly disk: number;
  readonly start: number;
  readonly end: number;
  readonly isZero: boolean;
  readonly file: number;
  readonly at: number;
}

/** Walks a source in order. The fields are those of the current run, once `next` has said that there is one. */
export interface RunCursor {
  readonly disk: number;
  readonly start: number;
  readonly end: number;
  readonly isZero: boolean;
  readonly file: number;
  readonly at: number;
  /** A promise only when something must be read. */
  next(): boolean | Promise<boolean>;
}

/** One source in a merge: its current run, less what was taken from it already. */
class Head {
  readonly cursor: RunCursor;
  readonly fileBase: number;
  start = 0;
  isOver = false;

  constructor(cursor: RunCursor, fileBase: number) {
    this.cursor = cursor;
    this.fileBase = fileBase;
  }

  get disk(): number { return this.cursor.disk; }
  get end(): number { return this.cursor.end; }

  next(): void | Promise<void> {
    const found = this.cursor.next();
    if (typeof found === 'boolean') return this.#take(found);
    return found.then((isThere) => this.#take(isThere));
  }

  #take(isThere: boolean): void {
    this.isOver = !isThere;
    if (isThere) this.start = this.cursor.start;
  }
}

/** `sources`: oldest first, each with how many files come before its own. Calls `emit` in order; memory is that of the cursors. */
export async function mergeRuns(sources: readonly { readonly cursor: RunCursor; readonly fileBase: number }[], emit: (run: ImageRun) => void | Promise<void>): Promise<void> {
  const heads = sources.map(({ cursor, fileBase }) => new Head(cursor, fileBase));
  for (const head of heads) await head.next();
  for (;;) {
    let winner: Head | null = null;
    for (const head of heads) {
      if (head.isOver) continue;
      if (winner === null || head.disk < winner.disk || (head.disk === winner.disk && head.start < winner.start)) winner = head;
    }
    if (winner === null) return;
    const { disk, start } = winner;
    // Up to where an older source has something: that one's bytes are older.
    let end = winner.end;
    for (const head of heads) {
      if (head === winner) break;
      if (!head.isOver && head.disk === disk && head.start < end) end = head.start;
    }
    const { cursor } = winner;
    const emitted = emit({ disk, start, end, isZero: cursor.isZero, file: winner.fileBase + cursor.file, at: cursor.at });
    if (emitted !== undefined) await emitted;
    for (const head of heads) {
      while (!head.isOver && head.disk === disk && head.start < end) {
        if (head.end > end) { head.start = end; break; }
        const advanced = head.next();
        if (advanced !== undefined) await advanced;
      }
    }
  }
}
