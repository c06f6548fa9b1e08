/**
 * In which order the guests of a group are started, and when one counts as ready: pure, from the config. Guests of the same place in the order start together; the next place
 * waits until each of them is ready, or its time is up, for a group that waits for ever is worse than one that comes up without one of its guests.
 */

/** How a guest shows that it is ready. What is not named is not asked; without any a guest is ready when its processors run. */
export interface ReadyChecks {
  /** Its agent answers. */
  readonly agent?: boolean | undefined;
  /** It has said this on its first serial port since it was started: a regular expression, by lines. */
  readonly serial?: string | undefined;
  /** A program of this host's that ends with 0; it gets the facts as JSON on its standard input. */
  readonly command?: readonly string[] | undefined;
  /** From the start of its processors, ms. */
  readonly withinMs: number;
}

export interface GuestStart {
  /** Guests with smaller numbers first; 0 unless it is said. */
  readonly order: number;
  /** Before it is started, when its turn has come, ms. */
  readonly delayMs: number;
  readonly ready: ReadyChecks | null;
}

export const startAtOnce: GuestStart = { order: 0, delayMs: 0, ready: null };

/** Names, place after place. */
export function startStages(names: readonly string[], starts: Readonly<Record<string, GuestStart>>): readonly (readonly string[])[] {
  const stages = new Map<number, string[]>();
  for (const name of names) {
    const { order } = starts[name] ?? startAtOnce;
    stages.set(order, [...(stages.get(order) ?? []), name]);
  }
  return [...stages].sort(([a], [b]) => a - b).map(([, stage]) => stage);
}
