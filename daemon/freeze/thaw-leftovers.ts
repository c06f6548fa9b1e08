/**
 * Thaws what a watchdog did not live to thaw, in the background, however long that takes: at the daemon's start, for every note of
 * an earlier life, and when a watchdog of this one died.
 */
import type { Logger } from 'pino';
import { answerMsDefault } from '../../qemu/guest-agent.ts';
import { startThaw } from './arm-watchdog.ts';
import type { FrozenNote, FrozenNotes } from './frozen-notes.ts';

/** A process that ended without the guest being thawed, or could not be started, is followed by another after this, ms. */
const againMs = 10_000;

/** Resolves when a process is at work for each guest with a note. */
export async function thawLeftovers(notes: FrozenNotes, log: Logger): Promise<void> {
  for (const note of await notes.list()) await thawNoted(notes, note, log);
}

export async function thawNoted(notes: FrozenNotes, note: FrozenNote, log: Logger): Promise<void> {
  const { guest, socketPath, sinceMs } = note;
  log.warn({ guest, socketPath, sinceMs }, 'this guest may have been left frozen: it is being thawed');
  try {
    const watchdog = await startThaw({ socketPath, notePath: notes.path(guest), limitMs: 1, answerMs: answerMsDefault, task: 'thaw' });
    watchdog.listen((news) => {
      if (news.news === 'thawed') log.info({ guest }, 'the guest is thawed');
      else if (news.news === 'stuck') log.error({ guest }, `the thaw was not answered, and is tried on: ${news.message}`);
    }, () => again(notes, note, log));
  } catch (error) {
    log.error({ guest, err: error }, 'the guest may be frozen, and its thaw could not be begun: thaw it by hand (guest-fsfreeze-thaw)');
    again(notes, note, log);
  }
}

function again(notes: FrozenNotes, note: FrozenNote, log: Logger): void {
  const look = async (): Promise<void> => {
    if (await notes.has(note.guest)) await thawNoted(notes, note, log);
  };
  // The note outlives this process, should it end meanwhile.
  setTimeout(() => { look().catch((error: unknown) => log.error({ guest: note.guest, err: error }, 'whether the guest is frozen could not be looked up')); }, againMs).unref();
}
