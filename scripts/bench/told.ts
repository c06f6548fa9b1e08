/** What a program of the benchmark's own found out: it is started, works to its end, and says one line of JSON. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Site } from './site.ts';

export async function told<T>(site: Site, script: 'applying-target' | 'thinning-target', facts: object): Promise<T> {
  const running = site.spawn(process.execPath, [join(import.meta.dirname, `${script}.js`), JSON.stringify(facts)], { name: site.freshPath(script).slice(site.folder.length + 1) });
  const { code, signal } = await running.exited;
  if (code !== 0) throw new Error(`${script} ended with ${signal ?? `status ${code}`}: ${running.lastWords()}`);
  return JSON.parse((await readFile(running.logPath, 'utf8')).trim().split('\n').at(-1)!) as T;
}
