/**
 * Durable notes, one per guest, that it may be frozen by us: there before the freeze is sent, gone once the guest is known to be
 * thawed (the watchdog removes it, which outlives the daemon). A daemon that starts finds what was left and has it thawed.
 */
import { access, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { readJsonFolder, replaceJson } from '../../host/node/json-file.ts';
import { safeName } from '../../journal/wire.ts';

const frozenNote = z.object({ guest: safeName, socketPath: z.string().min(1), sinceMs: z.number() });
export type FrozenNote = z.infer<typeof frozenNote>;

export class FrozenNotes {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async prepare(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
  }

  path(guest: string): string {
    return join(this.#folder, `${guest}.json`);
  }

  /** Synced: it survives a power cut. */
  put(note: FrozenNote): Promise<void> {
    return replaceJson(this.path(note.guest), note);
  }

  has(guest: string): Promise<boolean> {
    return access(this.path(guest)).then(() => true, (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false;
      throw error;
    });
  }

  list(): Promise<FrozenNote[]> {
    return readJsonFolder(this.#folder, frozenNote);
  }
}
