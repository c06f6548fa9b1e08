/**
 * Opens the control socket so that nobody but its owner (and root) can ever connect: the socket is born with mode 0600, in a
 * folder in which nobody else can replace it. To one group it may be opened after that, of whom one user is let in (control.ts). A socket that a dead daemon left is removed; one that answers is not.
 */
import { chmod, chown, lstat, mkdir, stat, unlink } from 'node:fs/promises';
import type { Server } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { Fault } from '../journal/fault.ts';

/** `gid`: a group whose members may connect as well. Fault CONTROL_SOCKET. */
export async function listenOnControlSocket(server: Server, path: string, gid: number | null = null): Promise<void> {
  await checkFolder(dirname(path), path);
  await removeStale(path);
  await new Promise<void>((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => reject(refusal(path, error.code === 'EADDRINUSE' ? 'another daemon has just taken it' : error.message, error));
    server.once('error', failed);
    // bind(2) gives the socket its mode from the umask; `listen` on a path binds before it returns, so no other file is made meanwhile.
    const umask = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.off('error', failed);
        resolve();
      });
    } finally {
      process.umask(umask);
    }
  });
  // Says the same as the umask did; kept for file systems that give sockets a mode of their own.
  await chmod(path, 0o600);
  if (gid === null) return;
  try {
    // By whoever may put something else at the path: root, and the daemon itself.
    await chown(path, process.geteuid!(), gid);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
    throw refusal(path, `it cannot be opened to group ${gid}: that takes root, or a daemon whose user is in that group`, error);
  }
  await chmod(path, 0o660);
}

async function checkFolder(folder: string, path: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw refusal(path, `its folder cannot be made: ${(error as Error).message}`, error);
  }
  const { uid, mode } = await stat(folder);
  if (uid !== process.geteuid?.() && uid !== 0) throw refusal(path, `its folder belongs to user ${uid}, who could put another socket there`);
  const isSticky = (mode & 0o1000) !== 0;
  if ((mode & 0o022) !== 0 && !isSticky) throw refusal(path, `others may write to its folder (mode ${(mode & 0o7777).toString(8)}), and could put another socket there`);
}

async function removeStale(path: string): Promise<void> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (found === null) return;
  if (!found.isSocket()) throw refusal(path, 'something that is no socket is there already');
  if (await isAnswered(path)) throw refusal(path, 'another daemon listens there');
  await unlink(path);
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      switch (error.code) {
        case 'ECONNREFUSED': case 'ENOENT': return resolve(false);
        // Its backlog is full: somebody is there.
        case 'EAGAIN': return resolve(true);
        default: return reject(refusal(path, error.message, error));
      }
    });
  });
}

function refusal(path: string, why: string, cause?: unknown): Fault {
  return new Fault('CONTROL_SOCKET', `cannot listen on ${path}: ${why}`, { path }, cause);
}
