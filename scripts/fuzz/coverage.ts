/**
 * Which blocks of the product's own code have run, as V8 counts them (the inspector's precise coverage, block by block): what tells
 * an input that leads somewhere new from one that does not. It costs milliseconds a look, so it is asked once a batch.
 */
import { Session } from 'node:inspector';

interface Range { readonly startOffset: number; readonly endOffset: number; readonly count: number }
interface Coverage { readonly result: readonly { readonly scriptId: string; readonly url: string; readonly functions: readonly { readonly ranges: readonly Range[] }[] }[] }

const ours = /\/(journal|host|qemu|daemon|replica-target|console)\/[^?]*\.[jt]s$/;

export class CoverageWatch {
  readonly #session = new Session();
  readonly #seen = new Set<string>();

  constructor() {
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** Blocks that have run since it began, over all decoders that were looked at. */
  get blockCount(): number { return this.#seen.size; }

  /** Blocks that ran since the last look, and had never run before it. */
  fresh(): ReadonlySet<string> {
    const fresh = new Set<string>();
    for (const block of this.#ran()) {
      if (this.#seen.has(block)) continue;
      this.#seen.add(block);
      fresh.add(block);
    }
    return fresh;
  }

  /** Which of these ran since the last look. */
  among(wanted: ReadonlySet<string>): ReadonlySet<string> {
    const found = new Set<string>();
    for (const block of this.#ran()) if (wanted.has(block)) found.add(block);
    return found;
  }

  close(): void {
    this.#session.post('Profiler.stopPreciseCoverage');
    this.#session.disconnect();
  }

  /** Taking the counts sets them back to zero. */
  *#ran(): Generator<string> {
    for (const { scriptId, url, functions } of this.#take().result) {
      if (!ours.test(url) || url.includes('/node_modules/')) continue;
      for (const { ranges } of functions) {
        for (const { startOffset, endOffset, count } of ranges) if (count > 0) yield `${scriptId}:${startOffset}-${endOffset}`;
      }
    }
  }

  #take(): Coverage {
    let taken: Coverage | undefined;
    // The session is this thread's own: it answers within the call.
    this.#session.post('Profiler.takePreciseCoverage', (error, coverage) => {
      if (error === null) taken = coverage;
    });
    if (taken === undefined) throw new Error('V8 gave no coverage');
    return taken;
  }
}
