/** Checks of the folders that a config names: who may enter them, what file system they are on, whether it has room. */
import { constants } from 'node:fs';
import { access, open, readdir, readFile, realpath, rm, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fallocate, fallocateModes } from '../../host/node/libc.ts';
import { formatBytes } from '../render/units.ts';
import { fail, ok, warn, type Check, type Finding } from './check.ts';
import { fileSystemOf, mountTypeOf, type FileSystem } from './file-systems.ts';

/** Enough to see whether space is really taken and given back. */
const trialBytes = 1024 * 1024;
const blockBytes = 512;

/** The folder itself, or the nearest one above it that is there already. */
export async function nearest(folder: string): Promise<string> {
  for (let at = folder; ; at = dirname(at)) {
    try {
      if ((await stat(at)).isDirectory()) return at;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if ((code !== 'ENOENT' && code !== 'ENOTDIR') || at === dirname(at)) throw error;
    }
  }
}

/** `isPrivate`: secrets are kept in it. */
export function permissionCheck(what: string, folder: string, isPrivate: boolean): Check {
  return {
    name: `${what} permissions`,
    run: async () => {
      const there = await nearest(folder);
      try {
        await access(there, constants.R_OK | constants.W_OK | constants.X_OK);
      } catch (error) {
        return fail(`this user may not write to ${there} (${(error as NodeJS.ErrnoException).code})`, `Run as the daemon’s user, or: chown it to that user.`);
      }
      if (there !== folder) return ok(`${folder} will be made`);
      const { mode } = await stat(folder);
      const shown = (mode & 0o7777).toString(8);
      // Passed through (0711) is how a source's has to be: QEMUs of other users open their images in the spool by name.
      if (isPrivate && (mode & 0o066) !== 0) return fail(`${folder} has mode ${shown}: others may look into it`, `chmod go-rw ${folder}`);
      return (mode & 0o002) !== 0 && (mode & 0o1000) === 0 ? fail(`${folder} has mode ${shown}: everybody may replace what is in it`, `chmod o-w ${folder}`) : ok(`${folder}, mode ${shown}`);
    },
  };
}

/** Keys, secrets and pairings: files that nobody else may read. */
export function secretFilesCheck(dataFolder: string): Check {
  return {
    name: 'key files',
    run: async () => {
      const files = (await Promise.all(['', 'targets', 'pairings', 'tls'].map((folder) => filesIn(join(dataFolder, folder))))).flat()
        .filter((path) => /\.(json|key|pem|crt)$/.test(path));
      if (files.length === 0) return ok('none yet: made at the first start');
      const modes = await Promise.all(files.map(async (path) => ({ path, mode: (await stat(path)).mode })));
      const open = modes.filter(({ mode }) => (mode & 0o077) !== 0).map(({ path }) => path);
      return open.length === 0 ? ok(`${files.length}, all private`) : fail(`others may read ${open.join(', ')}`, `chmod 600 ${open.join(' ')}, and pair anew: the secrets may be known`);
    },
  };
}

async function filesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isFile()).map((entry) => join(folder, entry.name));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw error;
  }
}

/** `hangsGuests`: QEMU itself writes there, so that a file system that hangs would hang guests with it. */
export function fileSystemCheck(what: string, folder: string, hangsGuests: boolean): Check {
  return {
    name: `${what} file system`,
    run: async () => {
      const there = await realpath(await nearest(folder));
      const { type } = await statfs(there);
      return judgeFileSystem(fileSystemOf(type, mountTypeOf(await readFile('/proc/self/mountinfo', 'utf8'), there)), hangsGuests);
    },
  };
}

export function judgeFileSystem({ name, kind }: FileSystem, hangsGuests: boolean): Finding {
  switch (kind) {
    case 'local': return ok(`${name}, local`);
    case 'memory': return warn(`${name}: kept in memory`, hangsGuests ? 'Delta images then take the host’s memory; give it a local disk.' : 'All is gone with a restart of this host; give it a disk.');
    case 'network': return hangsGuests
      ? fail(`${name}: behind a network`, 'A network file system that hangs would hang the guests with it: name a folder on a local disk.')
      : warn(`${name}: behind a network`, 'What is acknowledged is only as durable as that server; a local disk is better.');
    case 'unknown': return warn(`${name}: not known whether it is local`, 'Make sure that it is a local disk.');
    default: return kind satisfies never;
  }
}

export function fallocateCheck(what: string, folder: string): Check {
  return {
    name: `${what} preallocation`,
    run: async () => {
      const path = join(await nearest(folder), `.afterimage-doctor-${process.pid}-${Math.random().toString(36).slice(2)}`);
      let file;
      try {
        file = await open(path, 'wx', 0o600);
      } catch (error) {
        return fail(`a file cannot be made there (${(error as NodeJS.ErrnoException).code})`, 'See the permissions above.');
      }
      try {
        return await tryFallocate(file);
      } finally {
        await file.close();
        await rm(path, { force: true });
      }
    },
  };
}

async function tryFallocate(file: Awaited<ReturnType<typeof open>>): Promise<Finding> {
  const refused = await refusalOf(fallocate(file.fd, fallocateModes.extend, 0, trialBytes));
  if (refused !== null) return fail(`fallocate is refused (${refused})`, 'Space cannot be set aside there: use ext4, xfs or btrfs.');
  const takenBytes = (await file.stat()).blocks * blockBytes;
  if (takenBytes < trialBytes) return warn(`fallocate sets aside ${formatBytes(takenBytes)} of ${formatBytes(trialBytes)}`, 'Space is not really reserved there: keep more free.');
  await file.write(Buffer.alloc(trialBytes, 1), 0, trialBytes, 0);
  const notPunched = await refusalOf(fallocate(file.fd, fallocateModes.keepSizePunchHole, 0, trialBytes));
  return notPunched === null ? ok('space can be set aside and given back') : warn(`holes cannot be punched (${notPunched})`, 'What guests discard will take space there: use ext4, xfs or btrfs.');
}

async function refusalOf(call: Promise<void>): Promise<string | null> {
  try {
    await call;
    return null;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

/** `budgetBytes`: what may be taken in all, what is there already included; null when there is no such bound. */
export function spaceCheck(what: string, folder: string, keepFreeBytes: number, budgetBytes: number | null): Check {
  return {
    name: `${what} space`,
    run: async () => {
      const { bavail, bsize } = await statfs(await nearest(folder));
      const freeBytes = bavail * bsize;
      const found = `${formatBytes(freeBytes)} free, ${formatBytes(keepFreeBytes)} to be kept free`;
      if (freeBytes <= keepFreeBytes) return fail(found, `Nothing can be taken there: free or add space, or lower \`keepFree\`.`);
      if (budgetBytes === null) return ok(found);
      const usedBytes = await usedIn(folder);
      const wantedBytes = keepFreeBytes + Math.max(0, budgetBytes - usedBytes);
      const withBudget = `${found}, budget ${formatBytes(budgetBytes)}`;
      return freeBytes < wantedBytes ? warn(withBudget, 'The whole budget does not fit: large deltas will go in rounds. Add space, or lower the budget.') : ok(withBudget);
    },
  };
}

async function usedIn(folder: string): Promise<number> {
  let entries;
  try {
    entries = await readdir(folder, { recursive: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw error;
  }
  const sizes = await Promise.all(entries.map(async (entry) => (await stat(join(folder, entry)).catch(gone))?.blocks ?? 0));
  return sizes.reduce((sum, blocks) => sum + blocks * blockBytes, 0);
}

/** A delta image may go while we look. */
function gone(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT') return null;
  throw error;
}
