/**
 * What a cut takes of one disk from its write logs: each changed place once, as it was at the cut, read from the logs. What was
 * read to find the entries is kept for that, within bounds; the rest is read again. The logs are kept readable until the part is removed.
 */
import { runBytesMax } from '../../../journal/limits.ts';
import type { CapturedRun } from '../capture.ts';
import type { DeltaPart } from '../spooled-delta.ts';
import type { LogSource, LogWindow } from './log-stretch.ts';
import type { WrittenPiece } from './written-ranges.ts';

/** Read once and kept until the delta has ended, for each disk. */
export const keptBytesMax = 16 * 1024 * 1024;

/** What was read of one log on the way, in order of place. */
export class KeptWindows {
  readonly #windows: LogWindow[] = [];
  #bytes = 0;

  add(window: LogWindow): void {
    if (this.#bytes + window.bytes.length > keptBytesMax) return;
    this.#windows.push(window);
    this.#bytes += window.bytes.length;
  }

  /** Copies [at, at + length) into `into`; false when not all of it was kept. */
  copy(into: Buffer, intoAt: number, length: number, at: number): boolean {
    let [low, high] = [0, this.#windows.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#windows[middle]!.at <= at) low = middle + 1;
      else high = middle;
    }
    const window = this.#windows[low - 1];
    if (window === undefined || at + length > window.at + window.bytes.length) return false;
    window.bytes.copy(into, intoAt, at - window.at, at - window.at + length);
    return true;
  }
}

/** `release`: nobody reads the log for this part any more. */
export interface ReadLog { readonly source: LogSource; readonly kept: KeptWindows; release(): Promise<void> }

export class LogPart implements DeltaPart {
  readonly disk: number;
  readonly bytes: number;
  readonly #pieces: readonly WrittenPiece[];
  readonly #logs: readonly ReadLog[];

  /** `pieces`: in order of offset, none over another; their `log` is an index into `logs`. */
  constructor(disk: number, pieces: readonly WrittenPiece[], logs: readonly ReadLog[]) {
    this.disk = disk;
    this.#pieces = pieces;
    this.#logs = logs;
    this.bytes = pieces.reduce((sum, { length }) => sum + length, 0);
  }

  /** Pieces side by side on the disk travel as one run, wherever in the logs they stand. */
  *runs(): Iterable<CapturedRun> {
    let run: WrittenPiece[] = [];
    let runBytes = 0;
    for (const whole of this.#pieces) {
      for (let done = 0; done < whole.length;) {
        const last = run.at(-1);
        const continues = last !== undefined && last.offset + last.length === whole.offset + done && runBytes < runBytesMax;
        if (last !== undefined && !continues) {
          yield this.#run(run, runBytes);
          run = [];
          runBytes = 0;
        }
        const length = Math.min(whole.length - done, runBytesMax - runBytes);
        run.push({ offset: whole.offset + done, length, log: whole.log, at: whole.at + done });
        runBytes += length;
        done += length;
      }
    }
    if (run.length > 0) yield this.#run(run, runBytes);
  }

  async remove(): Promise<void> {
    for (const log of this.#logs) await log.release();
  }

  #run(pieces: readonly WrittenPiece[], length: number): CapturedRun {
    return { kind: 'data', disk: this.disk, offset: pieces[0]!.offset, length, read: (into, at) => this.#read(pieces, into, at) };
  }

  async #read(pieces: readonly WrittenPiece[], into: Buffer, intoAt: number): Promise<void> {
    let to = intoAt;
    for (const { length, log, at } of pieces) {
      const { source, kept } = this.#logs[log]!;
      if (!kept.copy(into, to, length, at)) await source.read(into, to, length, at);
      to += length;
    }
  }
}
