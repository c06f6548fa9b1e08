/** Time as a seam: the daemons ask this, never `Date` or timers, so that a simulation can own time. */
export interface Clock {
  /** Wall clock, ms since 1970. May jump. */
  nowMs(): number;
  /** Never goes back, and is the same for all processes of this host until it is started anew; for durations. ms with fractions. */
  monotonicMs(): number;
  /** Resolves after `ms`; rejects with the signal's reason when aborted. */
  delay(ms: number, signal?: AbortSignal): Promise<void>;
}
