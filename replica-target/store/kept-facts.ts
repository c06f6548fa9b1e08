/**
 * The facts of an open group: what is believed of it is what its file says, durably. One change after the other. A change that
 * failed may have landed all the same: then it is not known what the file says, until it is written again.
 */
import type { Disk } from '../../host/disk.ts';
import { writeFacts, type GroupFacts } from './group-facts.ts';
import type { GroupFolder } from './group-folder.ts';

export class KeptFacts {
  readonly #disk: Disk;
  readonly #folder: GroupFolder;
  #current: GroupFacts;
  #changing: Promise<void> = Promise.resolve();
  #isUnsure = false;

  constructor(disk: Disk, folder: GroupFolder, current: GroupFacts) {
    this.#disk = disk;
    this.#folder = folder;
    this.#current = current;
  }

  get current(): GroupFacts { return this.#current; }
  /** The file may say otherwise than `current`: nothing may be built on it before a `change`, of nothing at least, has gone well. */
  get isUnsure(): boolean { return this.#isUnsure; }

  /** Durable, and believed, when it resolves. */
  change(change: Partial<GroupFacts>): Promise<void> {
    const changed = this.#changing.then(async () => {
      const facts = { ...this.#current, ...change };
      if (!this.#isUnsure && JSON.stringify(facts) === JSON.stringify(this.#current)) return;
      this.#isUnsure = true;
      await writeFacts(this.#disk, this.#folder, facts);
      this.#current = facts;
      this.#isUnsure = false;
    });
    this.#changing = changed.then(() => undefined, () => undefined);
    return changed;
  }
}
