/** The facts of an open group: what is believed of it is what its file says, durably. One change after the other. */
import type { Disk } from '../../host/disk.ts';
import { writeFacts, type GroupFacts } from './group-facts.ts';
import type { GroupFolder } from './group-folder.ts';

export class KeptFacts {
  readonly #disk: Disk;
  readonly #folder: GroupFolder;
  #current: GroupFacts;
  #changing: Promise<void> = Promise.resolve();

  constructor(disk: Disk, folder: GroupFolder, current: GroupFacts) {
    this.#disk = disk;
    this.#folder = folder;
    this.#current = current;
  }

  get current(): GroupFacts { return this.#current; }

  /** Durable, and believed, when it resolves. */
  change(change: Partial<GroupFacts>): Promise<void> {
    const changed = this.#changing.then(async () => {
      const facts = { ...this.#current, ...change };
      if (JSON.stringify(facts) === JSON.stringify(this.#current)) return;
      await writeFacts(this.#disk, this.#folder, facts);
      this.#current = facts;
    });
    this.#changing = changed.then(() => undefined, () => undefined);
    return changed;
  }
}
