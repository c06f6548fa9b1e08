/** The real clock: `Date`, `performance.now` and timers. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../clock.ts';

export const nodeClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  async delay(ms, signal) {
    try {
      await sleep(ms, undefined, signal === undefined ? {} : { signal });
    } catch (error) {
      if (signal?.aborted === true) throw signal.reason;
      throw error;
    }
  },
};
