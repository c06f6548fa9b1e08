/** What a person should look at now, in one shape for both roles: reports list it, and whatever tells people of it reads it there. It carries no history. */

export interface Alarm {
  /** A code of fault.ts's table. */
  readonly code: string;
  /** Null: it concerns no one group. */
  readonly group: string | null;
  /** For people, in one line. */
  readonly message: string;
  /** Wall clock, ms. */
  readonly sinceMs: number;
}
