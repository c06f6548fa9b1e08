/**
 * Small JSON files over the Disk seam, with a checksum inside, replaced whole: written aside, synced, renamed, folder synced.
 * A crash leaves the old content or the new, never a mixture, and a bit that flipped on the disk is noticed.
 */
import { dirname } from 'node:path';
import { xxh64 } from '@node-rs/xxhash';
import type { z } from 'zod';
import type { Disk } from '../../host/disk.ts';
import { corrupt, errorCode, newer } from './store-fault.ts';

/** Of these files none is larger: a group's hardware with its firmware variables is 2 MiB at most. */
const fileBytesMax = 8 * 1024 * 1024;
const shape = /^\{"checksum":"([0-9a-f]{16})","body":(.*)\}\n$/s;

/** Null when there is no such file. Faults: STORE_CORRUPT, STORE_NEWER (a `version` above `version`). */
export async function readChecked<T>(disk: Disk, path: string, schema: z.ZodType<T>, version: number): Promise<T | null> {
  const bytes = await readWhole(disk, path);
  if (bytes === null) return null;
  const found = shape.exec(bytes.toString('utf8'));
  if (found === null) throw corrupt(path, 0, 'is not of the shape that was written');
  const body = found[2]!;
  if (checksum(body) !== found[1]) throw corrupt(path, 0, 'fails its checksum');
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (error) {
    // The checksum says that these bytes were written, not by whom.
    if (!(error instanceof SyntaxError)) throw error;
    throw corrupt(path, 0, 'is no JSON');
  }
  if (typeof value === 'object' && value !== null && 'version' in value && typeof value.version === 'number' && value.version > version) {
    throw newer(path, `version ${value.version}, this one reads up to ${version}`);
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw corrupt(path, 0, `does not hold what this release writes: ${parsed.error.issues[0]?.path.join('.') ?? ''} ${parsed.error.issues[0]?.message ?? ''}`);
  return parsed.data;
}

/** Durable when it resolves. When it rejects, the old content or the new is there. */
export async function replaceChecked(disk: Disk, path: string, value: unknown): Promise<void> {
  const body = JSON.stringify(value);
  const aside = `${path}.new`;
  await removeIfThere(disk, aside);
  const file = await disk.open(aside, 'create');
  try {
    await file.write(Buffer.from(`{"checksum":"${checksum(body)}","body":${body}}\n`), 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(aside, path);
  await disk.syncFolder(dirname(path));
}

export async function removeIfThere(disk: Disk, path: string): Promise<void> {
  try {
    await disk.remove(path);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
}

function checksum(body: string): string {
  return xxh64(Buffer.from(body)).toString(16).padStart(16, '0');
}

async function readWhole(disk: Disk, path: string): Promise<Buffer | null> {
  let file;
  try {
    file = await disk.open(path, 'read');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return null;
    throw error;
  }
  try {
    const sizeBytes = await file.sizeBytes();
    if (sizeBytes > fileBytesMax) throw corrupt(path, 0, `is ${sizeBytes} bytes long`);
    const bytes = Buffer.alloc(sizeBytes);
    return bytes.subarray(0, await file.read(bytes, 0, sizeBytes, 0));
  } finally {
    await file.close();
  }
}
