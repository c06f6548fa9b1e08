/**
 * Small private JSON files, replaced whole: written aside, synced, renamed, folder synced, so that a crash leaves the old or
 * the new. They may hold secrets: made 0600, and refused when others can read them. Not for what a simulation must see.
 */
import { constants } from 'node:fs';
import { open, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { Fault } from '../../journal/fault.ts';

/** All `.json` files of a folder, in order of their names. */
export async function readJsonFolder<T>(folder: string, schema: z.ZodType<T>): Promise<T[]> {
  const found: T[] = [];
  for (const name of (await readdir(folder)).sort()) {
    if (!name.endsWith('.json')) continue;
    const value = await readJson(join(folder, name), schema);
    if (value !== null) found.push(value);
  }
  return found;
}

/** Null when there is no such file. Fault CONFIG_INVALID when it is of another shape, or open to others. */
export async function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T | null> {
  let text: string;
  try {
    text = await readPrivate(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return null;
    // open(2), O_NOFOLLOW.
    if (code === 'ELOOP') throw new Fault('CONFIG_INVALID', `${path} is a symbolic link, and must be the file itself`, { path }, error);
    throw error;
  }
  const parsed = schema.safeParse(parseJson(text));
  if (!parsed.success) throw new Fault('CONFIG_INVALID', `${path} does not hold what this release wrote there: ${z.prettifyError(parsed.error)}`, { path });
  return parsed.data;
}

/** What is looked at is what is read: one descriptor. */
async function readPrivate(path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const { mode, uid } = await file.stat();
    if ((mode & 0o077) !== 0) throw new Fault('CONFIG_INVALID', `${path} is readable by others (mode ${(mode & 0o777).toString(8)}); it must be 600`, { path });
    if (uid !== 0 && uid !== process.geteuid?.()) throw new Fault('CONFIG_INVALID', `${path} belongs to user ${uid}, and was not written by this daemon`, { path });
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

/** Undefined: it is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** With `isDurable` false, a power cut may bring back the older content. */
export async function replaceJson(path: string, value: unknown, isDurable = true): Promise<void> {
  const aside = `${path}.new`;
  // Never through what lies there: a file of another mode would keep it, and a link would lead elsewhere.
  await rm(aside, { force: true });
  const file = await open(aside, 'wx', 0o600);
  try {
    await file.writeFile(`${JSON.stringify(value, null, 2)}\n`);
    if (isDurable) await file.sync();
  } finally {
    await file.close();
  }
  await rename(aside, path);
  if (isDurable) await syncFolder(dirname(path));
}

export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
