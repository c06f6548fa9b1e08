/**
 * Stops the guests of a group whose lease is gone, and has those go on that were stopped for it, and no others: which they were is noted before the first is stopped, so that the
 * daemon's next life knows. It speaks through the connection of the guest's capture, as a QMP socket has one client; where that has none (its target is away, and the guest was
 * started anew), through one of its own.
 */
import type { LeasedGroup } from '../../host/lease-keeper.ts';
import { isFault } from '../../journal/fault.ts';
import type { GuestPower } from '../capture/capture.ts';
import type { PausedNotes } from '../joint/paused-notes.ts';
import type { HeldNotes } from './held-notes.ts';

export type LeasedPower = Pick<GuestPower, 'runState' | 'pause' | 'goOn'>;

export interface LeaseGuardOptions {
  readonly group: string;
  readonly qmpPath: string;
  /** Faults: QMP_*, GUEST_*, while its guests cannot be reached. */
  readonly power: () => LeasedPower;
  /** A connection of its own for as long as `act` takes. Faults: QMP_*. */
  readonly withOwn: <T>(act: (power: LeasedPower) => Promise<T>) => Promise<T>;
  /** Of those that were stopped. */
  readonly notes: Pick<PausedNotes, 'put' | 'of' | 'remove'>;
  readonly held: Pick<HeldNotes, 'read' | 'put' | 'remove'>;
}

export class LeaseGuard implements NonNullable<LeasedGroup['guard']> {
  readonly #o: LeaseGuardOptions;
  #isStopped = false;

  constructor(options: LeaseGuardOptions) {
    this.#o = options;
  }

  /** `still`: somebody else stopped them. */
  async stop(): Promise<'stopped' | 'still'> {
    const { group, qmpPath, notes } = this.#o;
    return this.#with(async (power) => {
      if (!(await power.runState()).running) return this.#isStopped || (await notes.of(group)).length > 0 ? 'stopped' : 'still';
      this.#isStopped = true;
      // A full disk does not keep it running: that it stands still for this is then known to this process alone.
      const noting = await notes.put({ group, guests: [{ name: group, qmpPath }] }).then(() => null, (error: unknown) => error);
      await power.pause();
      if (noting !== null) throw noting as Error;
      return 'stopped';
    });
  }

  async goOn(): Promise<void> {
    const { group, notes } = this.#o;
    if (!this.#isStopped && (await notes.of(group)).length === 0) return;
    await this.#with(async (power) => { if ((await power.runState()).status === 'paused') await power.goOn(); });
    await notes.remove(group);
    this.#isStopped = false;
  }

  /** `act` may be begun twice. */
  async #with<T>(act: (power: LeasedPower) => Promise<T>): Promise<T> {
    try {
      return await act(this.#o.power());
    } catch (error) {
      if (!isFault(error)) throw error;
      return this.#o.withOwn(act);
    }
  }

  heldUntilMs(): Promise<number | null> {
    return this.#o.held.read(this.#o.group);
  }

  noteHeld(untilMs: number): Promise<void> {
    return this.#o.held.put(this.#o.group, untilMs);
  }

  /** Whether they stand still, of guests that run on by choice. */
  async look(): Promise<'still' | 'running'> {
    return this.#with(async (power) => ((await power.runState()).running ? 'running' : 'still'));
  }

  /** They were stopped by somebody else, or are somebody else's matter from now on. */
  async forget(): Promise<void> {
    await this.#o.notes.remove(this.#o.group);
    await this.#o.held.remove(this.#o.group);
  }
}
