/**
 * Which very files a guest's QEMU was given by path: kernel, initrd, firmware, by their digests, so that another host can tell
 * whether it has the same. Invariant: what cannot be read is absent; a QEMU in a container of its own names paths of that one.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { pipeline } from 'node:stream/promises';

export interface RecordedFile { readonly path: string; readonly sha256: string }

/** A large initrd has 200 MiB; whatever is larger is no such file. */
const fileBytesMax = 512 * 1024 ** 2;

export async function recordFiles(paths: readonly (string | undefined)[]): Promise<RecordedFile[]> {
  const found = await Promise.all([...new Set(paths)].map(async (path) => {
    if (path === undefined || !isAbsolute(path)) return [];
    try {
      const { size } = await stat(path);
      return size > fileBytesMax ? [] : [{ path, sha256: await fileDigest(path) }];
    } catch (error) {
      if (!(error instanceof Error) || !('code' in error)) throw error;
      return [];
    }
  }));
  return found.flat();
}

const remembered = new Map<string, { readonly stamp: string; readonly sha256: string }>();

/** SHA-256 in hexadecimal; remembered as long as the file is the same to stat(2). */
export async function fileDigest(path: string): Promise<string> {
  const { dev, ino, size, mtimeMs } = await stat(path);
  const stamp = `${dev} ${ino} ${size} ${mtimeMs}`;
  const known = remembered.get(path);
  if (known?.stamp === stamp) return known.sha256;
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  const sha256 = hash.digest('hex');
  remembered.set(path, { stamp, sha256 });
  return sha256;
}
