/**
 * Stops the guests of a group whose lease is gone, and has those go on that were stopped for it, and no others: which they were is noted before the first is stopped, so that the
 * daemon's next life knows. It speaks through the connection of the guest's capture, as a QMP socket has one client.
 */
import type { GuestPower } from '../capture/capture.ts';
import type { PausedNotes } from '../joint/paused-notes.ts';

export interface LeaseGuardOptions {
  readonly group: string;
  readonly qmpPath: string;
  /** Faults: QMP_*, GUEST_*, while its guests cannot be reached. */
  readonly power: () => GuestPower;
  readonly notes: PausedNotes;
}

export class LeaseGuard {
  readonly #o: LeaseGuardOptions;

  constructor(options: LeaseGuardOptions) {
    this.#o = options;
  }

  /** Its guests stand still when it resolves; false: not for this, for somebody else stopped them. */
  async stop(): Promise<boolean> {
    const { group, qmpPath, power, notes } = this.#o;
    if (!(await power().runState()).running) return (await notes.of(group)).length > 0;
    await notes.put({ group, guests: [{ name: group, qmpPath }] });
    await power().pause();
    return true;
  }

  async goOn(): Promise<void> {
    const { group, power, notes } = this.#o;
    if ((await notes.of(group)).length === 0) return;
    if ((await power().runState()).status === 'paused') await power().goOn();
    await notes.remove(group);
  }

  /** They were stopped by somebody else, or are somebody else's matter from now on. */
  forget(): Promise<void> {
    return this.#o.notes.remove(this.#o.group);
  }
}
