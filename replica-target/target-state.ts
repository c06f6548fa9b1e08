/** Where a target keeps what it must know after a restart: its groups here, who it is and who may send to it in pairing/. */
import { join } from 'node:path';
import { preparePrivateFolder } from '../host/node/private-folder.ts';

export class TargetState {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Folder of the groups (store). */
  get groupsFolder(): string {
    return join(this.#folder, 'groups');
  }

  /** Fault FOLDER_UNSAFE. */
  async prepare(): Promise<void> {
    for (const folder of [this.#folder, this.groupsFolder]) await preparePrivateFolder(folder);
  }
}
