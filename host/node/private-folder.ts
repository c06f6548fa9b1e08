/**
 * The folders in which a role keeps its state: nobody but its own user (and root) may put anything there. Who could would plant a link where
 * a file of ours is to be written, or another's file in place of ours. What the folder shows to others is not its matter: files
 * are 0600 each.
 */
import { chmod, lstat, mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Fault } from '../../journal/fault.ts';

/** Made with exactly `mode` where it is not there, and so are folders on the way. Fault FOLDER_UNSAFE: it is another user's, or others may write to it. */
export async function preparePrivateFolder(path: string, mode = 0o700): Promise<void> {
  await make(path, mode);
  const refuse = (why: string): Fault => new Fault('FOLDER_UNSAFE', `${path} cannot be used: ${why}`, { path });
  // A link is fine where its owner is one who may choose the place: the data folder is often one to a large volume.
  const name = await lstat(path);
  const folder = await stat(path);
  if (!folder.isDirectory()) throw refuse('it is no folder');
  for (const { uid } of [name, folder]) if (!isTrusted(uid)) throw refuse(`it belongs to user ${uid}, who could put other files there`);
  if ((folder.mode & 0o022) !== 0) throw refuse(`others may write to it (mode ${(folder.mode & 0o7777).toString(8)})`);
}

/** What is there already keeps the mode that somebody gave it. */
async function make(path: string, mode: number): Promise<void> {
  try {
    await mkdir(path, { mode });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    if (code !== 'ENOENT' || dirname(path) === path) throw error;
    await make(dirname(path), mode);
    return make(path, mode);
  }
  // A service's umask takes from what mkdir(2) is asked for.
  await chmod(path, mode);
}

function isTrusted(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.();
}
