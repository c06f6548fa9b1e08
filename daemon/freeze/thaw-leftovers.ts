/** At the daemon's start: whatever an earlier life may have left frozen is thawed, in the background, however long that takes. */
import type { Logger } from 'pino';
import { answerMsDefault } from '../../qemu/guest-agent.ts';
import { startThaw } from './arm-watchdog.ts';
import type { FrozenNotes } from './frozen-notes.ts';

/** Resolves when a process is at work for each guest with a note. */
export async function thawLeftovers(notes: FrozenNotes, log: Logger): Promise<void> {
  for (const { guest, socketPath, sinceMs } of await notes.list()) {
    log.warn({ guest, socketPath, sinceMs }, 'this guest may have been left frozen: it is being thawed');
    try {
      const watchdog = await startThaw({ socketPath, notePath: notes.path(guest), limitMs: 1, answerMs: answerMsDefault, task: 'thaw' });
      watchdog.onNews((news) => {
        if (news.news === 'thawed') log.info({ guest }, 'the guest is thawed');
        else if (news.news === 'stuck') log.error({ guest }, `the thaw was not answered, and is tried on: ${news.message}`);
      });
    } catch (error) {
      log.error({ guest, err: error }, 'the guest may be frozen, and its thaw could not be begun: thaw it by hand (guest-fsfreeze-thaw)');
    }
  }
}
