/**
 * Planned failovers that stand ready here, and whoever waits for the source to let go of its guest. It keeps nothing beyond the wait: a source that
 * speaks later is heard by failover.ts.
 */
import type { Clock } from '../../host/clock.ts';
import { Fault } from '../../journal/fault.ts';

/** How long a source may take to note that it lets go, ms. */
const letGoMsMax = 30_000;

export type LetGoAnswer = 'let go' | 'kept';

export class LetGoWaits {
  readonly #clock: Clock;
  readonly #waits = new Map<string, (answer: LetGoAnswer) => void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether somebody waited to hear it. */
  heard(groupId: string, answer: LetGoAnswer): boolean {
    const wait = this.#waits.get(groupId);
    wait?.(answer);
    return wait !== undefined;
  }

  /** `ask` puts the question. Faults: HANDOVER_ENDED (the source kept its guest); SOURCE_ABSENT with `isReady` (it did not say in time, and may have let go). */
  async wait(groupId: string, group: string, ask: () => void): Promise<void> {
    const over = new AbortController();
    const late = this.#clock.delay(letGoMsMax, over.signal).then(() => 'late' as const, () => 'late' as const);
    const said = new Promise<LetGoAnswer>((resolve) => { this.#waits.set(groupId, resolve); });
    ask();
    const answer = await Promise.race([said, late]);
    over.abort(new Error('answered'));
    this.#waits.delete(groupId);
    switch (answer) {
      case 'let go': return;
      case 'kept': throw new Fault('HANDOVER_ENDED', `the source of ${group} kept its guest`, { group });
      case 'late': throw new Fault('SOURCE_ABSENT', `the source of ${group} did not say that it let go of its guest: ${group} stands ready here, and runs when the source says so, or when it is asked to fail over once more`, { group, limitMs: letGoMsMax, isReady: true });
      default: return answer satisfies never;
    }
  }
}
