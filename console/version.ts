/** The release, as package.json has it: the nearest one above this file, whether it runs from source or from dist/. */
import { readFileSync } from 'node:fs';

export function readVersion(): string {
  for (const above of ['../package.json', '../../package.json']) {
    try {
      const { name, version } = JSON.parse(readFileSync(new URL(above, import.meta.url), 'utf8')) as { name?: unknown; version?: unknown };
      if (name === 'afterimage' && typeof version === 'string') return version;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return 'unknown';
}
