/** Waits until a file that another process writes matches a pattern, and returns the match. */
import { readFile } from 'node:fs/promises';
import { waitFor } from './wait.ts';

export function watchFile(path: string, pattern: RegExp, limitMs: number): Promise<RegExpMatchArray> {
  return waitFor(async () => {
    const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => { if (error.code === 'ENOENT') return ''; throw error; });
    return text.replaceAll('\r', '').match(pattern);
  }, { limitMs, what: `${path} to match ${pattern}` });
}
