/** The real clock: `Date`, `process.hrtime` (clock_gettime(2), CLOCK_MONOTONIC) and timers. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../clock.ts';

export const nodeClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => {
    const [seconds, nanoseconds] = process.hrtime();
    return seconds * 1000 + nanoseconds / 1e6;
  },
  async delay(ms, signal) {
    try {
      await sleep(ms, undefined, signal === undefined ? {} : { signal });
    } catch (error) {
      if (signal?.aborted === true) throw signal.reason;
      throw error;
    }
  },
};
