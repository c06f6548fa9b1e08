/**
 * Notes, one per group, of guests that may be paused for a cut: there before the first is, gone when all go on. Not synced: what they are for is a daemon that died, and guests
 * do not outlive their host's power. Whoever finds one when no daemon is at work has those guests go on.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { readJson, readJsonFolder, replaceJson } from '../../host/node/json-file.ts';
import { isFault } from '../../journal/fault.ts';
import { safeName } from '../../journal/wire.ts';
import { runState } from '../../qemu/guest-power.ts';
import { connectMonitor } from '../../qemu/connect-guest.ts';

const pausedNote = z.object({ group: safeName, guests: z.array(z.object({ name: safeName, qmpPath: z.string().min(1) })) });
export type PausedNote = z.infer<typeof pausedNote>;
export type PausedGuest = PausedNote['guests'][number];

/** For QEMU's answers, ms: one that is asked by another daemon already says nothing. */
const answerMsMax = 1000;

/** Where a source keeps them. */
export function pausedFolder(dataFolder: string): string {
  return join(dataFolder, 'paused');
}

export class PausedNotes {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  async prepare(): Promise<void> {
    await mkdir(this.folder, { recursive: true, mode: 0o700 });
  }

  put(note: PausedNote): Promise<void> {
    return replaceJson(this.#path(note.group), note, false);
  }

  async of(group: string): Promise<readonly PausedGuest[]> {
    return (await readJson(this.#path(group), pausedNote))?.guests ?? [];
  }

  remove(group: string): Promise<void> {
    return rm(this.#path(group), { force: true });
  }

  /** Has every guest that is noted go on. Resolves with the names of those that did not answer; their note stays. */
  async goOn(): Promise<string[]> {
    const silent: string[] = [];
    for (const { group, guests } of await this.#all()) {
      const left = (await Promise.all(guests.map(continueGuest))).flatMap((isDone, at) => (isDone ? [] : [guests[at]!.name]));
      silent.push(...left);
      if (left.length === 0) await this.remove(group);
    }
    return silent;
  }

  /** A source that is gone with its folder left no guest paused. */
  async #all(): Promise<PausedNote[]> {
    try {
      return await readJsonFolder(this.folder, pausedNote);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  }

  #path(group: string): string {
    return join(this.folder, `${group}.json`);
  }
}

/** Whether it goes on, or is gone. */
async function continueGuest({ qmpPath }: PausedGuest): Promise<boolean> {
  try {
    const qmp = await connectMonitor(qmpPath, { connectTimeoutMs: answerMsMax, commandTimeoutMs: answerMsMax });
    try {
      if ((await runState(qmp)).status === 'paused') await qmp.execute('cont');
      return true;
    } finally {
      qmp.close();
    }
  } catch (error) {
    if (!isFault(error)) throw error;
    return error.code === 'QMP_UNREACHABLE' && ['ECONNREFUSED', 'ENOENT'].includes(String(error.facts['error']));
  }
}
