/**
 * Reads a stream line by line, keeps every line with the time at which it was seen, and lets callers wait for one.
 *
 * Invariant: a line that was there before the wait began counts as much as one that comes later, so that no caller
 * can miss what it waits for by asking late.
 */
import type { Readable } from 'node:stream';

export interface SeenLine {
  readonly text: string;
  /** performance.now() of the process that watches. */
  readonly atMs: number;
  readonly index: number;
  /** The match of the pattern that was waited for; empty for lines that were only collected. */
  readonly match: readonly string[];
}

export interface LineWatch {
  readonly lines: readonly SeenLine[];
  waitFor(
    pattern: RegExp,
    limitMs: number,
    options: { readonly from: number; readonly orFail?: RegExp; readonly context?: readonly SeenLine[] },
  ): Promise<SeenLine>;
  /** No more lines will come: whoever waits is told why. */
  end(why: string): void;
}

export function watchLines(stream: Readable): LineWatch {
  const lines: SeenLine[] = [];
  const waiting = new Set<() => void>();
  let ended: string | null = null;
  let rest = '';
  const wake = (): void => {
    for (const look of [...waiting]) look();
  };
  stream.setEncoding('utf8');
  stream.on('data', (chunk: string) => {
    const atMs = performance.now();
    const parts = (rest + chunk).split('\n');
    rest = parts.pop() ?? '';
    for (const part of parts) lines.push({ text: part.replace(/\r+$/, ''), atMs, index: lines.length, match: [] });
    if (parts.length > 0) wake();
  });

  return {
    lines,
    waitFor(pattern, limitMs, { from, orFail, context = [] }) {
      return new Promise((resolve, reject) => {
        let next = from;
        const settle = (act: () => void): void => {
          clearTimeout(timer);
          waiting.delete(look);
          act();
        };
        const fail = (why: string): void => {
          const last = [...context.slice(-10), ...lines.slice(-15)].map((line) => `  ${line.text}`).join('\n');
          settle(() => reject(new Error(`${why} while waiting for ${String(pattern)}; last lines:\n${last}`)));
        };
        const look = (): void => {
          for (; next < lines.length; next++) {
            const line = lines[next];
            const match = line && pattern.exec(line.text);
            if (line && match) return settle(() => resolve({ ...line, match: [...match] }));
            if (line && orFail?.test(line.text)) return fail(`"${line.text}"`);
          }
          if (ended !== null) fail(ended);
        };
        const timer = setTimeout(() => fail(`nothing within ${limitMs} ms`), limitMs);
        waiting.add(look);
        look();
      });
    },
    end(why) {
      ended = why;
      wake();
    },
  };
}
