/**
 * Whether a running role is of any use, as its service manager should know: asked over its own control socket, as an operator would ask, so that the
 * main loop turned, the server answered and the report could be made; and its folders could be looked at, so that the threads that read and write do
 * not all hang. A folder may take its time, as all those threads may wait for a slow disk at once: only one that has been silent for minutes counts. What goes badly (a target that is away, a full disk) is no matter of life: a new process would find the same.
 */
import { stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

/** Each question waits for folders so long; one that takes longer is asked of the next time, ms. */
const lookMs = 2_000;
/** A folder that said nothing for so long hangs: longer than any flush of a disk that works, ms. */
const hungMsDefault = 120_000;

/** One look at a folder at a time, whoever asks: a hanging one holds one of the few threads for reading and writing. */
const looks = new Map<string, { readonly sinceMs: number; readonly done: Promise<unknown> }>();

export interface LivenessQuestion {
  /** Over the control socket; rejects when nobody answers. */
  report(): Promise<unknown>;
  readonly folders: readonly string[];
  /** For the report, ms. */
  readonly limitMs: number;
  /** For a folder, from when it was first asked, ms. */
  readonly hungMs?: number;
  /** Tests have folders that hang. */
  readonly look?: (folder: string) => Promise<unknown>;
}

/** Null when it is; else why not, for people. Never rejects. */
export async function askLiveness({ report, folders, limitMs, hungMs = hungMsDefault, look = stat }: LivenessQuestion): Promise<string | null> {
  const answers = await Promise.all([
    answer('its report', report(), limitMs, () => `no answer within ${limitMs} ms from its report`),
    ...folders.map((folder) => {
      const { sinceMs, done } = lookAt(folder, look);
      return answer(folder, done, Math.min(limitMs, lookMs), () => {
        const silentMs = performance.now() - sinceMs;
        return silentMs < hungMs ? null : `no answer for ${Math.round(silentMs)} ms from ${folder}`;
      });
    }),
  ]);
  return answers.find((why) => why !== null) ?? null;
}

async function answer(what: string, asked: Promise<unknown>, limitMs: number, late: () => string | null): Promise<string | null> {
  const over = new AbortController();
  const said = asked.then(() => null, (error: unknown) => `${what}: ${error instanceof Error ? error.message : String(error)}`);
  return Promise.race([said, delay(limitMs, undefined, { signal: over.signal }).then(late, () => null)]).finally(() => over.abort());
}

function lookAt(folder: string, look: (folder: string) => Promise<unknown>): { readonly sinceMs: number; readonly done: Promise<unknown> } {
  const underWay = looks.get(folder);
  if (underWay !== undefined) return underWay;
  const done = look(folder).finally(() => looks.delete(folder));
  const begun = { sinceMs: performance.now(), done };
  looks.set(folder, begun);
  return begun;
}
