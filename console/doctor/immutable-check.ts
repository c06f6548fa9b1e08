/**
 * Whether files of locked points can be made immutable in the target's data folder: it takes a file system that has the attribute, and CAP_LINUX_IMMUTABLE. The latter counts for the
 * daemon where it runs, for the user of this command where it does not.
 */
import { open, readFile, rm } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { capabilities, peerOfSocket, setImmutable } from '../../host/node/libc.ts';
import { fail, ok, warn, type Check, type Finding } from './check.ts';
import { nearest } from './folder-checks.ts';

/** What setting the attribute came to here: done, refused for want of the capability, or not known to the file system. */
export type ImmutableTrial = 'set' | 'refused' | 'unknown';

/** `isDaemonAble`: whether the daemon has the capability; null: it does not run, or is not to be looked at. Pure. */
export function judgeImmutable(trial: ImmutableTrial, isDaemonAble: boolean | null): Finding {
  const rest = 'Without it they are kept by the target alone';
  if (trial === 'unknown') return warn('this file system has no immutable attribute', `${rest}: put the data folder on ext4, xfs or btrfs.`);
  if (isDaemonAble ?? trial === 'set') return ok(isDaemonAble === null ? 'files can be made immutable, by this user; the daemon does not run' : 'the daemon can make files immutable');
  return warn(`${isDaemonAble === null ? 'this user' : 'the daemon'} lacks CAP_LINUX_IMMUTABLE`, `${rest}: give the unit AmbientCapabilities=CAP_LINUX_IMMUTABLE and the same in CapabilityBoundingSet, as the package’s has it.`);
}

export function immutableCheck(dataFolder: string, controlPath: string): Check {
  return {
    name: 'locked points',
    run: async () => {
      const trial = await tryImmutable(await nearest(dataFolder));
      return typeof trial === 'string' ? judgeImmutable(trial, await isDaemonAble(controlPath)) : fail(`a file cannot be made there (${trial.code})`, 'See the permissions above.');
    },
  };
}

async function tryImmutable(folder: string): Promise<ImmutableTrial | { readonly code: string | undefined }> {
  const path = join(folder, `.afterimage-doctor-${process.pid}-${Math.random().toString(36).slice(2)}`);
  let file;
  try {
    file = await open(path, 'wx', 0o600);
  } catch (error) {
    return { code: (error as NodeJS.ErrnoException).code };
  }
  try {
    setImmutable(file.fd, true);
    setImmutable(file.fd, false);
    return 'set';
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EPERM') return 'refused';
    if (code === 'ENOTTY' || code === 'EOPNOTSUPP' || code === 'EINVAL') return 'unknown';
    throw error;
  } finally {
    await file.close();
    await rm(path, { force: true });
  }
}

/** Of the process that listens on the control socket; null: none does, or this user may not know. */
async function isDaemonAble(controlPath: string): Promise<boolean | null> {
  const pid = await listenerOf(controlPath);
  if (pid === null) return null;
  try {
    return isAble(await readFile(`/proc/${pid}/status`, 'utf8'));
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

/** `status`: as proc(5) has it. */
export function isAble(status: string): boolean {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  return (effective >> BigInt(capabilities.linuxImmutable) & 1n) === 1n;
}

function listenerOf(path: string): Promise<number | null> {
  return new Promise((resolve) => {
    const socket: Socket = createConnection({ path });
    socket.once('error', () => resolve(null));
    socket.once('connect', () => {
      const pid = peerOfSocket(socket)?.pid ?? 0;
      socket.destroy();
      // 0: it listens in another PID namespace.
      resolve(pid === 0 ? null : pid);
    });
  });
}
