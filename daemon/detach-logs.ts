/**
 * What a service manager's stop hook does, also after a SIGKILL: takes the write logs out of every protected guest that can be
 * reached, without a daemon, and has guests go on that were paused for a cut. The dirty bitmaps stay, and the next life goes on from them.
 */
import { isFault } from '../journal/fault.ts';
import { takeDiskInventory, takeStorageDaemonInventory } from '../qemu/guest-disks.ts';
import { connectMonitor } from '../qemu/connect-guest.ts';
import { detachLogs } from './capture/writelog/log-nodes.ts';
import { pausedFolder, PausedNotes } from './joint/paused-notes.ts';
import { SourceState, type ProtectedGuest } from './source-state.ts';

/** Of each step, ms: a hook has to be through within a second or so. */
const stepMsMax = 800;

export interface DetachedGuest {
  readonly name: string;
  /** `gone`: there is no such QEMU now; `failed`: `detail` says why. */
  readonly outcome: 'out' | 'gone' | 'failed';
  readonly detail: string;
}

export async function detachWriteLogs(dataFolder: string): Promise<DetachedGuest[]> {
  const paused = new PausedNotes(pausedFolder(dataFolder));
  await paused.prepare();
  await paused.goOn();
  // The kernel's own logs are nobody's to take out.
  const guests = (await new SourceState(dataFolder).guests()).filter(({ dmLogPath }) => dmLogPath === undefined);
  return Promise.all(guests.flatMap(({ name, qmpPath, storageDaemonDisks, members }) => (members ?? [{ name, qmpPath }]).map((one) => detachGuest({ ...one, storageDaemonDisks }))));
}

async function detachGuest({ name, qmpPath, storageDaemonDisks }: Pick<ProtectedGuest, 'name' | 'qmpPath' | 'storageDaemonDisks'>): Promise<DetachedGuest> {
  try {
    const qmp = await connectMonitor(qmpPath, { connectTimeoutMs: stepMsMax, commandTimeoutMs: stepMsMax });
    try {
      const { disks } = storageDaemonDisks === undefined ? await takeDiskInventory(qmp) : await takeStorageDaemonInventory(qmp, storageDaemonDisks);
      const left = await detachLogs(qmp, disks);
      return left.length === 0 ? { name, outcome: 'out', detail: '' } : { name, outcome: 'failed', detail: `something stands upon ${left.join(', ')}` };
    } finally {
      qmp.close();
    }
  } catch (error) {
    if (!isFault(error)) throw error;
    // Nobody listens, or there is no socket at all; one that another client holds is QEMU's, and alive.
    const isGone = error.code === 'QMP_UNREACHABLE' && ['ECONNREFUSED', 'ENOENT'].includes(String(error.facts['error']));
    return { name, outcome: isGone ? 'gone' : 'failed', detail: error.message };
  }
}
