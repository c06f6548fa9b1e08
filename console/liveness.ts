/**
 * Whether a running role is of any use, as its service manager should know: asked over its own control socket, as an operator would ask, so that the
 * main loop turned, the server answered and the report could be made; and its folders could be looked at, so that the threads that read and write do
 * not all hang. What goes badly (a target that is away, a full disk) is no matter of life: a new process would find the same.
 */
import { stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

export interface LivenessQuestion {
  /** Over the control socket; rejects when nobody answers. */
  report(): Promise<unknown>;
  readonly folders: readonly string[];
  /** For all of it, ms. */
  readonly limitMs: number;
}

/** Null when it is; else why not, for people. Never rejects. */
export async function askLiveness({ report, folders, limitMs }: LivenessQuestion): Promise<string | null> {
  const over = new AbortController();
  const waiting = new Set(['its report', ...folders]);
  const one = async (what: string, asked: Promise<unknown>): Promise<string | null> => {
    try {
      await asked;
      return null;
    } catch (error) {
      return `${what}: ${error instanceof Error ? error.message : String(error)}`;
    } finally {
      waiting.delete(what);
    }
  };
  const all = Promise.all([one('its report', report()), ...folders.map((folder) => one(folder, stat(folder)))]).then((answers) => answers.find((answer) => answer !== null) ?? null);
  const late = delay(limitMs, undefined, { signal: over.signal }).then(() => `no answer within ${limitMs} ms from ${[...waiting].join(', ')}`, () => null);
  return Promise.race([all, late]).finally(() => over.abort());
}
