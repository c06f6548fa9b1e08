/**
 * Which very files a guest's QEMU was given by path: kernel, initrd, firmware, by their digests, so that another host can tell
 * whether it has the same. Invariant: what cannot be read is absent; a QEMU in a container of its own names paths of that one.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { pipeline } from 'node:stream/promises';

export interface RecordedFile { readonly path: string; readonly sha256: string }

/** asm-generic/fcntl.h: O_PATH */
const pathOnly = 0x20_0000;
/** A large initrd has 200 MiB; whatever is larger is no such file. */
const fileBytesMax = 512 * 1024 ** 2;

/** `uid`: the user as whom the guest's QEMU runs, if the daemon trusts it with no more than that user may read. */
export async function recordFiles(paths: readonly (string | undefined)[], uid?: number): Promise<RecordedFile[]> {
  const found = await Promise.all([...new Set(paths)].map(async (path) => {
    if (path === undefined || !isAbsolute(path)) return [];
    try {
      return await withNamedFile(path, uid, async (file, { size }) => (size > fileBytesMax ? [] : [{ path, sha256: await digestOf(path, file) }]));
    } catch (error) {
      if (!(error instanceof Error) || !('code' in error)) throw error;
      return [];
    }
  }));
  return found.flat();
}

/**
 * With a file that a QEMU named, open for reading. Rejects with an error of a `code`: those of open(2); EINVAL, no regular file (a pipe would be waited for, a device may do something); EACCES, `uid` is given
 * and the file is neither that user's nor for all to read. By the open file, so that nothing can be put in its place.
 */
export async function withNamedFile<T>(path: string, uid: number | undefined, act: (file: FileHandle, facts: { readonly size: number }) => Promise<T>): Promise<T> {
  // First the name alone: some devices do something as soon as they are opened.
  const named = await open(path, pathOnly);
  try {
    const facts = await named.stat();
    if (!facts.isFile()) throw Object.assign(new Error('it is no regular file'), { code: 'EINVAL' });
    if (uid !== undefined && facts.uid !== uid && (facts.mode & 0o004) === 0) throw Object.assign(new Error(`user ${uid} may not read it`), { code: 'EACCES' });
    const file = await open(`/proc/self/fd/${named.fd}`, constants.O_RDONLY).catch((error: NodeJS.ErrnoException) => {
      throw Object.assign(new Error(`it cannot be read (${error.code})`), { code: error.code });
    });
    try {
      return await act(file, facts);
    } finally {
      await file.close();
    }
  } finally {
    await named.close();
  }
}

const remembered = new Map<string, { readonly stamp: string; readonly sha256: string }>();

/** SHA-256 in hexadecimal; remembered as long as the file is the same to stat(2). Rejects as {@link withNamedFile} does. */
export function fileDigest(path: string): Promise<string> {
  return withNamedFile(path, undefined, (file) => digestOf(path, file));
}

async function digestOf(path: string, file: FileHandle): Promise<string> {
  const { dev, ino, size, mtimeMs } = await file.stat();
  const stamp = `${dev} ${ino} ${size} ${mtimeMs}`;
  const known = remembered.get(path);
  if (known?.stamp === stamp) return known.sha256;
  const hash = createHash('sha256');
  await pipeline(file.createReadStream({ autoClose: false }), hash);
  const sha256 = hash.digest('hex');
  remembered.set(path, { stamp, sha256 });
  return sha256;
}
