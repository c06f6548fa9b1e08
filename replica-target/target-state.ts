/** Where a target keeps what it must know after a restart: its groups here, who it is and who may send to it in pairing/. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

export class TargetState {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Folder of the groups (store). */
  get groupsFolder(): string {
    return join(this.#folder, 'groups');
  }

  async prepare(): Promise<void> {
    await mkdir(this.groupsFolder, { recursive: true, mode: 0o700 });
  }
}
