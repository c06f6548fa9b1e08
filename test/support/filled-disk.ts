/** A disk with an ext4 file system and data on it that does not compress, so that bringing it home takes a while. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Resolves to the path of a qcow2 image. */
export async function makeFilledDisk(folder: string, { sizeMiB, filledMiB }: { readonly sizeMiB: number; readonly filledMiB: number }): Promise<string> {
  const files = join(folder, 'files');
  const raw = join(folder, 'filled.raw');
  const path = join(folder, 'filled.qcow2');
  await mkdir(files);
  for (let at = 0; at < filledMiB; at += 16) await writeFile(join(files, `data-${at}`), randomBytes(16 << 20));
  const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` };
  await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', files, raw, `${sizeMiB}M`], { env });
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, path]);
  await rm(raw);
  await rm(files, { recursive: true });
  return path;
}
