/**
 * Until when the lease of each group was held, for the daemon's next process: it must not take its own start for a renewal. Not synced, and bound to the host's boot: guests do not
 * outlive it, and its monotonic clock begins anew.
 */
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { readJson, replaceJson } from '../../host/node/json-file.ts';

const heldNote = z.object({ bootId: z.string(), untilMs: z.number() });

/** random(4): drawn when the kernel starts. */
const bootIdPath = '/proc/sys/kernel/random/boot_id';

export class HeldNotes {
  readonly #folder: string;
  #bootId = '';

  constructor(folder: string) {
    this.#folder = folder;
  }

  async prepare(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    this.#bootId = (await readFile(bootIdPath, 'utf8')).trim();
  }

  /** Of the monotonic clock, ms; null: none since this host was started. */
  async read(group: string): Promise<number | null> {
    const note = await readJson(this.#path(group), heldNote);
    return note?.bootId === this.#bootId ? note.untilMs : null;
  }

  put(group: string, untilMs: number): Promise<void> {
    return replaceJson(this.#path(group), { bootId: this.#bootId, untilMs }, false);
  }

  remove(group: string): Promise<void> {
    return rm(this.#path(group), { force: true });
  }

  #path(group: string): string {
    return join(this.#folder, `${group}.json`);
  }
}
