/** Debian's prometheus and promtool, as scripts/prometheus keeps them, and what they say. Not a suite. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Teardown } from './daemons.ts';
import { waitFor } from './wait.ts';

const root = join(import.meta.dirname, '..', '..');
export const rulesPath = join(root, 'scripts', 'grafana', 'afterimage-rules.yaml');
export const rulesTestPath = join(root, 'scripts', 'grafana', 'afterimage-rules.test.yaml');
export const dashboardPath = join(root, 'scripts', 'grafana', 'afterimage-dashboard.json');

let folder: string | null = null;
const program = (name: string): string => join(folder ??= execFileSync(join(root, 'scripts', 'prometheus'), { encoding: 'utf8', timeout: 240_000 }).trim(), name);

/** What it said; throws, with what it said, when it is not content. */
export function promtool(args: readonly string[], input?: string): string {
  return execFileSync(program('promtool'), args, { encoding: 'utf8', timeout: 60_000, ...(input === undefined ? {} : { input }) });
}

/** Every metric of ours, or of a process, that a text (expressions, JSON) names. */
export function metricsNamedIn(text: string): string[] {
  return [...new Set([...text.matchAll(/\b(?:afterimage|process|nodejs)_[a-z0-9_]+/g)].map(([name]) => name))].sort();
}

/** Every family that a scrape declares, with the series of its histograms. */
export function metricsDeclaredIn(scrape: string): Set<string> {
  return new Set([...scrape.matchAll(/^# TYPE (\S+) (\S+)$/gm)].flatMap(([, name, type]) => (type === 'histogram' ? ['', '_bucket', '_sum', '_count'] : ['']).map((end) => `${name}${end}`)));
}

export interface Prometheus { /** Of its HTTP API: what stands under `data`. */ ask<T>(path: string): Promise<T> }

/** Scrapes the targets each second, evaluates the rules each second. Ended with the test. */
export async function startPrometheus(t: Teardown, jobs: Readonly<Record<string, string>>): Promise<Prometheus> {
  const own = await mkdtemp(join(tmpdir(), 'af-prom-'));
  const port = await freePort();
  await writeFile(join(own, 'prometheus.yaml'), JSON.stringify({
    global: { scrape_interval: '1s', evaluation_interval: '1s' }, rule_files: [rulesPath],
    scrape_configs: Object.entries(jobs).map(([job, address]) => ({ job_name: job, static_configs: [{ targets: [address] }] })),
  }));
  const child = spawn(program('prometheus'), [`--config.file=${join(own, 'prometheus.yaml')}`, `--storage.tsdb.path=${join(own, 'data')}`, `--web.listen-address=127.0.0.1:${port}`, '--log.level=warn'], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => { said = `${said}${chunk.toString('utf8')}`.slice(-4000); });
  const limit = setTimeout(() => child.kill('SIGKILL'), 180_000);
  t.teardown(async () => {
    clearTimeout(limit);
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
    await rm(own, { recursive: true, force: true });
  });
  const base = `http://127.0.0.1:${port}`;
  await waitFor(async () => {
    if (child.exitCode !== null) throw new Error(`prometheus ended: ${said}`);
    return fetch(`${base}/-/ready`).then(({ ok }) => ok, () => false);
  }, { limitMs: 60_000, what: 'prometheus to be ready', everyMs: 100 });
  return {
    ask: async <T>(path: string) => {
      const { status, data, error } = await (await fetch(`${base}/api/v1/${path}`, { signal: AbortSignal.timeout(30_000) })).json() as { status: string; data: T; error?: string };
      if (status !== 'success') throw new Error(`${path}: ${error ?? status}`);
      return data;
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
