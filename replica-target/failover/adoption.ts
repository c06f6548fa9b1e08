/**
 * Gives a guest that was started here to the source role of this host, which then follows what it writes, and takes it back. What was never given is
 * taken back in vain, which is fine. It decides nothing about the failover.
 */
import type { Logger } from 'pino';
import { Fault, isFault } from '../../journal/fault.ts';
import type { PointId } from '../../journal/point.ts';
import type { AdoptedGuest, LocalSource } from '../operations.ts';
import type { GroupStore } from '../store/store.ts';
import { capturePath } from './guest-launch.ts';

export interface AdoptionOptions {
  /** Null: nobody follows the guests that run here. */
  readonly localSource: LocalSource | null;
  /** This target, as a source pairs with it. */
  readonly pairing: { readonly name: string; readonly fingerprint: string; readonly points: AdoptedGuest['points']; token(): Promise<string> };
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
  async give(store: GroupStore, folder: string, base: PointId | null): Promise<{ readonly sourceId: string; readonly formerSourceId: string } | null> {
    const { localSource, pairing, log } = this.#o;
    if (localSource === null) return null;
    const { groupId, name, sourceId: before, term, rpoMs, isReclaimed } = store.report();
    const adopt = (token: string | null): Promise<void> => localSource.adopt({
      name, groupId, qmpPath: capturePath(folder), base: base === null ? null : { term: base.term, point: base.point }, term, rpoMs, token,
      // A guest that comes home is protected to where it was protected before.
      ...(isReclaimed ? { target: null, points: null } : { target: { name: pairing.name, fingerprint: pairing.fingerprint }, points: pairing.points }),
    });
    try {
      const sourceId = await localSource.sourceId();
      await adopt(null).catch(async (error: unknown) => {
        if (!isFault(error, 'TARGET_UNPAIRED')) throw error;
        await adopt(await pairing.token());
      });
      return { sourceId, formerSourceId: before };
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      log.error({ group: name, code: error.code }, `${name} runs here and nobody follows what it writes: ${error.message}`);
      return null;
    }
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
