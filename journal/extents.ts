/**
 * Runs of bytes as sets and as layers: which bytes a bitmap, a delta or a file covers, and which of several overlapping
 * writes wins. Numbers only: no disk, no content. A set's extents are sorted, disjoint and never touch.
 */

/** Bytes from `start` up to, not including, `end`. */
export interface Extent {
  readonly start: number;
  readonly end: number;
}

export class ExtentSet {
  // Parallel arrays: a set of a million extents costs 16 MB, as objects it would cost 60.
  #starts: number[] = [];
  #ends: number[] = [];

  static of(extents: Iterable<Extent>): ExtentSet {
    const set = new ExtentSet();
    for (const { start, end } of extents) set.add(start, end);
    return set;
  }

  get count(): number {
    return this.#starts.length;
  }

  totalBytes(): number {
    let total = 0;
    for (let i = 0; i < this.#starts.length; i++) total += this.#ends[i]! - this.#starts[i]!;
    return total;
  }

  add(start: number, end: number): void {
    if (start >= end) return;
    const last = this.#ends.length - 1;
    // In order is how captures and journals deliver: no search, no shift.
    if (last < 0 || start > this.#ends[last]!) {
      this.#starts.push(start);
      this.#ends.push(end);
      return;
    }
    const from = this.#firstEndingAtOrAfter(start);
    const to = this.#firstStartingAfter(end);
    if (from >= to) {
      this.#starts.splice(from, 0, start);
      this.#ends.splice(from, 0, end);
      return;
    }
    const joinedStart = Math.min(start, this.#starts[from]!);
    const joinedEnd = Math.max(end, this.#ends[to - 1]!);
    this.#starts.splice(from, to - from, joinedStart);
    this.#ends.splice(from, to - from, joinedEnd);
  }

  remove(start: number, end: number): void {
    if (start >= end) return;
    const from = this.#firstEndingAtOrAfter(start + 1);
    const to = this.#firstStartingAfter(end - 1);
    if (from >= to) return;
    const starts: number[] = [];
    const ends: number[] = [];
    if (this.#starts[from]! < start) { starts.push(this.#starts[from]!); ends.push(start); }
    if (this.#ends[to - 1]! > end) { starts.push(end); ends.push(this.#ends[to - 1]!); }
    this.#starts.splice(from, to - from, ...starts);
    this.#ends.splice(from, to - from, ...ends);
  }

  /** Whether any byte of [start, end) is in the set. */
  overlaps(start: number, end: number): boolean {
    if (start >= end) return false;
    const at = this.#firstEndingAtOrAfter(start + 1);
    return at < this.#starts.length && this.#starts[at]! < end;
  }

  *[Symbol.iterator](): Iterator<Extent> {
    for (let i = 0; i < this.#starts.length; i++) yield { start: this.#starts[i]!, end: this.#ends[i]! };
  }

  /** Index of the first extent with `end >= value`. */
  #firstEndingAtOrAfter(value: number): number {
    return lowest(this.#ends.length, (i) => this.#ends[i]! >= value);
  }

  /** Index of the first extent with `start > value`. */
  #firstStartingAfter(value: number): number {
    return lowest(this.#starts.length, (i) => this.#starts[i]! > value);
  }
}

/** Overlapping runs in the order in which they were written. Packed: the runs of one large delta may be millions. */
export class RunList {
  #starts = new Float64Array(256);
  #ends = new Float64Array(256);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  start(run: number): number { return this.#starts[run]!; }
  end(run: number): number { return this.#ends[run]!; }

  /** Appends a run, newer than all before it. Returns its index. */
  push(start: number, end: number): number {
    if (this.#count === this.#starts.length) {
      this.#starts = grown(this.#starts);
      this.#ends = grown(this.#ends);
    }
    this.#starts[this.#count] = start;
    this.#ends[this.#count] = end;
    return this.#count++;
  }
}

/**
 * What is left of each run when every byte belongs to the newest run that covers it: in ascending order, disjoint.
 * `emit` is called with the bounds and the run's index. Time n log n.
 */
export function coalesceRuns(runs: RunList, emit: (start: number, end: number, run: number) => void): void {
  const order = new Uint32Array(runs.count);
  for (let i = 0; i < order.length; i++) order[i] = i;
  order.sort((a, b) => runs.start(a) - runs.start(b) || a - b);
  const covering = new NewestFirst();
  let next = 0;
  let position = 0;
  let openStart = -1;
  let openRun = -1;
  for (;;) {
    while (!covering.isEmpty() && runs.end(covering.newest()) <= position) covering.dropNewest();
    if (covering.isEmpty()) {
      if (next === order.length) break;
      position = Math.max(position, runs.start(order[next]!));
    }
    while (next < order.length && runs.start(order[next]!) <= position) covering.add(order[next++]!);
    while (!covering.isEmpty() && runs.end(covering.newest()) <= position) covering.dropNewest();
    if (covering.isEmpty()) continue;
    const newest = covering.newest();
    const until = next < order.length ? Math.min(runs.end(newest), runs.start(order[next]!)) : runs.end(newest);
    if (openRun !== newest) {
      if (openRun >= 0) emit(openStart, Math.min(position, runs.end(openRun)), openRun);
      openStart = position;
      openRun = newest;
    }
    position = until;
    // A run is closed as soon as it ends, so that a gap behind it is never counted to it.
    if (position === runs.end(newest)) {
      emit(openStart, position, openRun);
      openRun = -1;
    }
  }
}

/** A heap of run indices with the largest, that is the newest, on top. */
class NewestFirst {
  readonly #heap: number[] = [];

  isEmpty(): boolean { return this.#heap.length === 0; }
  newest(): number { return this.#heap[0]!; }

  add(run: number): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(run);
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (heap[above]! >= run) break;
      heap[at] = heap[above]!;
      at = above;
    }
    heap[at] = run;
  }

  dropNewest(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && heap[below + 1]! > heap[below]!) below++;
      if (heap[below]! <= last) break;
      heap[at] = heap[below]!;
      at = below;
    }
    heap[at] = last;
  }
}

function lowest(count: number, isTrue: (index: number) => boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isTrue(middle)) high = middle; else low = middle + 1;
  }
  return low;
}

function grown(array: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(array.length * 2);
  larger.set(array);
  return larger;
}
