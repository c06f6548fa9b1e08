/** Holds the file systems of several guests still around one cut: each by its own agent and under its own watchdog. The point is `app` only if each guest's part of it is. */
import type { PointKind } from '../../journal/point.ts';
import type { AppCutHold, AppOutcome } from '../freeze/app-hold.ts';

export class JointAppHold implements AppCutHold {
  readonly #holds: readonly AppCutHold[];

  constructor(holds: readonly AppCutHold[]) {
    this.#holds = holds;
  }

  get isUsed(): boolean {
    return this.#holds.some(({ isUsed }) => isUsed);
  }

  /** The longest of each, and the first fault. */
  get outcome(): AppOutcome {
    const outcomes = this.#holds.map(({ outcome }) => outcome);
    const longest = (key: 'frozenMs' | 'freezeMs' | 'thawMs'): Partial<AppOutcome> => {
      const known = outcomes.flatMap((one) => (one[key] === undefined ? [] : [one[key]]));
      return known.length === 0 ? {} : { [key]: Math.max(...known) };
    };
    const fault = outcomes.find((one) => one.fault !== null)?.fault ?? null;
    return { fault, ...longest('frozenMs'), ...longest('freezeMs'), ...longest('thawMs'), ...(fault === null ? {} : { notApp: fault.code }) };
  }

  async begin(): Promise<void> {
    await Promise.all(this.#holds.map((hold) => hold.begin()));
  }

  async release(isCut: boolean): Promise<PointKind> {
    const kinds = await Promise.all(this.#holds.map((hold) => hold.release(isCut)));
    return kinds.every((kind) => kind === 'app') ? 'app' : 'crash';
  }
}
