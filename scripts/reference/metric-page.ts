/** The metrics, as they are declared in the sources: a scrape needs a daemon, and would name the same. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { madeFrom, table } from './pages.ts';

const declared = /\bsheet\.(gauge|counter|histogram)\(\s*'([a-z0-9_]+)',\s*'([^']+)'/g;

/** Null: this release has none. */
export async function metricPage(root: string): Promise<string | null> {
  const folder = join(root, 'console/metrics');
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  const rows = new Map<string, readonly string[]>();
  for (const name of names.filter((one) => one.endsWith('.ts')).sort()) {
    const roles = name.startsWith('source-') ? 'source' : name.startsWith('target-') ? 'target' : 'both';
    for (const [, kind, metric, help] of (await readFile(join(folder, name), 'utf8')).matchAll(declared)) {
      const before = rows.get(metric!);
      rows.set(metric!, [`\`afterimage_${metric}\``, kind!, before === undefined || before[2] === roles ? roles : 'both', help!]);
    }
  }
  if (rows.size === 0) return null;
  return [
    '# Metrics', '', madeFrom('their declarations'), '', 'Prometheus text, where the config names an address (`metrics: { listen: … }`). Units are in the names; times are seconds.', '',
    table(['metric', 'kind', 'role', 'is'], [...rows.values()].sort((a, b) => (a[0]! < b[0]! ? -1 : 1))), '',
  ].join('\n');
}
