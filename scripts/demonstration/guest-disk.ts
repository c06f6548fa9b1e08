/**
 * The demo guest's disk: an image with an ext4 file system that holds files of the kinds that disks hold (text that
 * compresses, data that does not) and free space, so that the first sync has something to move and something to skip.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const mebibyte = 1024 * 1024;

export interface GuestDisk {
  readonly path: string;
  readonly format: 'qcow2' | 'raw';
  readonly sizeBytes: number;
  readonly dataBytes: number;
}

/** Works in `folder`, and leaves nothing there but the image. */
export async function makeGuestDisk(folder: string, format: GuestDisk['format'] = 'qcow2'): Promise<GuestDisk> {
  const sizeBytes = 1024 * mebibyte;
  const files = join(folder, 'files');
  const raw = join(folder, 'guest.raw');
  const path = format === 'raw' ? raw : join(folder, 'guest.qcow2');
  await mkdir(files);
  const text = textOf(4 * mebibyte);
  // Half of it random, half text: a third of the disk is in use.
  const count = 10;
  for (let at = 0; at < count; at++) {
    await writeFile(join(files, `data-${at}.bin`), randomBytes(16 * mebibyte));
    await writeFile(join(files, `text-${at}.log`), Buffer.concat([text, text, text, text]));
  }
  // mke2fs lives in sbin, which is not on everybody's PATH.
  const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` };
  await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', files, raw, String(sizeBytes / 1024)], { env });
  if (format === 'qcow2') {
    await run('qemu-img', ['convert', '-q', '-f', 'raw', '-O', 'qcow2', raw, path]);
    await rm(raw);
  }
  await rm(files, { recursive: true });
  return { path, format, sizeBytes, dataBytes: count * 32 * mebibyte };
}

/** Lines as a server's log has them: alike, never the same. */
function textOf(length: number): Buffer {
  const lines: string[] = [];
  let total = 0;
  for (let number = 0; total < length; number++) {
    const line = `request ${number} from 192.0.2.${(number * 37) % 254} took ${(number * 7919) % 997} ms, status ${number % 17 === 0 ? 404 : 200}\n`;
    lines.push(line);
    total += line.length;
  }
  return Buffer.from(lines.join('')).subarray(0, length);
}
