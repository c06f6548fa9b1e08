/**
 * Gives a guest that was started here to the source role of this host, which then follows what it writes, and takes it back. What was never given is
 * taken back in vain, which is fine. It decides nothing about the failover.
 */
import type { Logger } from 'pino';
import type { Clock } from '../../host/clock.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import type { PointId } from '../../journal/point.ts';
import type { AdoptedGuest, LocalSource } from '../operations.ts';
import type { GroupStore } from '../store/store.ts';
import type { NotedGuest } from './group-guests.ts';
import { placeOfGuest } from './guest-launch.ts';

/** How long a guest waits for the one who is to follow it, ms: connecting to its monitor, and pairing the first time. */
const adoptMsMax = 5_000;

export interface AdoptionOptions {
  /** Null: nobody follows the guests that run here. */
  readonly localSource: LocalSource | null;
  /** This target, as a source pairs with it. */
  readonly pairing: { readonly name: string; fingerprint(): string; readonly points: AdoptedGuest['points']; token(): Promise<string> };
  readonly clock: Clock;
  readonly log: Logger;
}

export class Adoption {
  readonly #o: AdoptionOptions;

  constructor(options: AdoptionOptions) {
    this.#o = options;
  }

  get isPossible(): boolean { return this.#o.localSource !== null; }

  /**
   * While the guest stands still; `base`: what its disks hold, null: not known. Resolves with who follows it, and whose the group was
   * before; null when nobody does, which does not keep it from running.
   */
  async give(store: GroupStore, guests: readonly NotedGuest[], base: PointId | null): Promise<{ readonly sourceId: string; readonly formerSourceId: string } | null> {
    const { localSource, pairing, log } = this.#o;
    if (localSource === null) return null;
    const { groupId, name, sourceId: before, term, rpoMs, isReclaimed } = store.report();
    const places = await Promise.all(guests.map(async (guest) => ({ name: guest.name, qmpPath: await placeOfGuest(guest.folder) })));
    const adopt = (token: string | null): Promise<void> => localSource.adopt({
      name, groupId, qmpPath: places[0]!.qmpPath, base: base === null ? null : { term: base.term, point: base.point }, term, rpoMs, token,
      ...(guests.length === 1 ? {} : { members: places }),
      // A guest that comes home is protected to where it was protected before.
      ...(isReclaimed ? { target: null, points: null } : { target: { name: pairing.name, fingerprint: pairing.fingerprint() }, points: pairing.points }),
    });
    try {
      const sourceId = await this.#inTime(localSource.sourceId());
      await this.#inTime(adopt(null).catch(async (error: unknown) => {
        if (!isFault(error, 'TARGET_UNPAIRED')) throw error;
        await adopt(await pairing.token());
      }));
      return { sourceId, formerSourceId: before };
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      log.error({ group: name, code: error.code }, `${name} runs here and nobody follows what it writes: ${error.message}`);
      return null;
    }
  }

  /** A source that hangs does not keep a guest down. Should it get there later it finds the guest running, and lets it be. */
  async #inTime<T>(asked: Promise<T>): Promise<T> {
    const over = new AbortController();
    const late = this.#o.clock.delay(adoptMsMax, over.signal).then(() => 'late' as const, () => 'late' as const);
    const answer = await Promise.race([asked.then((value) => ({ value })), late]).finally(() => over.abort(new Error('answered')));
    if (answer !== 'late') return answer.value;
    asked.catch(() => undefined);
    throw new Fault('DAEMON_UNREACHABLE', `the source of this host did not answer within ${adoptMsMax} ms`, { limitMs: adoptMsMax });
  }

  /** Resolves when the group belongs to `formerSourceId` again. */
  async takeBack(store: GroupStore, formerSourceId: string): Promise<void> {
    try {
      await this.#o.localSource?.abandon(store.groupId);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      // Its guest is gone and its group is another's: it can do no harm.
      this.#o.log.warn({ group: store.report().name, code: error.code }, `the source of this host could not be told to let go: ${error.message}`);
    }
    await store.own(formerSourceId);
  }
}
