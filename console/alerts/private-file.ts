/** Secrets of the operator's in files of their own: a word or a line, for its owner alone. Read anew each time, so that a changed one takes effect; never shown. */
import { open } from 'node:fs/promises';
import { Fault } from '../../journal/fault.ts';

/** Beyond this it is no secret that somebody typed or drew. */
const secretBytesMax = 4096;

/** Without the line's end. Fault CONFIG_INVALID when it is open to others, empty, too long or cannot be read. */
export async function readPrivateFile(path: string): Promise<string> {
  let text: string;
  try {
    const file = await open(path, 'r');
    try {
      const { mode, size } = await file.stat();
      if ((mode & 0o077) !== 0) throw new Fault('CONFIG_INVALID', `${path} is readable by others (mode ${(mode & 0o777).toString(8)}); it holds a secret and must be 600`, { path });
      if (size > secretBytesMax) throw new Fault('CONFIG_INVALID', `${path} is no secret: it has ${size} bytes`, { path });
      text = (await file.readFile('utf8')).replace(/\r?\n$/, '');
    } finally {
      await file.close();
    }
  } catch (error) {
    throw error instanceof Fault ? error : new Fault('CONFIG_INVALID', `${path} cannot be read: ${(error as Error).message}`, { path }, error);
  }
  if (text === '') throw new Fault('CONFIG_INVALID', `${path} is empty`, { path });
  return text;
}
