/**
 * A real Prometheus over a real pair: it scrapes source and target, evaluates the alert rules, and its answers are asked for. The
 * guest is a storage daemon. Every metric that rules and dashboard name is in what the two serve.
 */
import { readFile } from 'node:fs/promises';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { makeDisks, startStandIn } from '../capture/support/storage-daemon.ts';
import { startPair, type Daemon } from '../support/daemons.ts';
import { dashboardPath, metricsDeclaredIn, metricsNamedIn, promtool, rulesPath, startPrometheus } from '../support/prometheus.ts';
import { waitFor } from '../support/wait.ts';

/** The port that it got, as its log says. */
async function metricsAddress(daemon: Daemon<unknown>): Promise<string> {
  return waitFor(async () => {
    const line = (await daemon.log()).split('\n').findLast((one) => one.includes('metrics are served at'));
    return line === undefined ? null : `127.0.0.1:${(JSON.parse(line) as { port: number }).port}`;
  }, { limitMs: 20_000, what: 'metrics to be served' });
}

t.test('a pair, scraped', async (t) => {
  const metrics = 'metrics: { listen: { port: 0 } }\n';
  const pair = await startPair(t, { sourceConfig: metrics, targetConfig: metrics });
  const folder = await mkdtemp(join(tmpdir(), 'af-prom-guest-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const guest = await startStandIn(t, makeDisks(folder, [{ sizeBytes: 16 * 1024 ** 2, format: 'raw' }]), folder);
  await pair.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000, storageDaemonDisks: guest.disks.map(({ node }) => node) });
  await pair.newPoint('web1');
  await pair.newPoint('web1');
  const addresses = { 'afterimage-source': await metricsAddress(pair.source), 'afterimage-target': await metricsAddress(pair.target) };

  const scrapes = await Promise.all(Object.values(addresses).map(async (address) => (await fetch(`http://${address}/metrics`)).text()));
  for (const scrape of scrapes) t.doesNotThrow(() => promtool(['check', 'metrics'], scrape));
  t.match(scrapes[0], /^afterimage_rpo_newest_point_seconds\{group="web1",target="bravo"\} [\d.]+$/m);
  t.match(scrapes[0], /^afterimage_rpo_exposure_seconds_count\{group="web1",target="bravo"\} [1-9]/m);
  t.match(scrapes[1], /^afterimage_group_source_connected\{group="web1"\} 1$/m);
  t.match(scrapes[1], /^afterimage_volume_free_bytes [1-9]/m);
  const declared = new Set(scrapes.flatMap((scrape) => [...metricsDeclaredIn(scrape)]));
  t.strictSame(metricsNamedIn(`${await readFile(rulesPath, 'utf8')}${await readFile(dashboardPath, 'utf8')}`).filter((name) => !declared.has(name)), []);

  const prometheus = await startPrometheus(t, addresses);
  interface Vector { readonly result: readonly { readonly metric: Readonly<Record<string, string>>; readonly value: readonly [number, string] }[] }
  const query = (expression: string) => prometheus.ask<Vector>(`query?query=${encodeURIComponent(expression)}`);
  await waitFor(async () => (await query('up == 1')).result.length === 2, { limitMs: 60_000, what: 'both to be scraped', everyMs: 200 });
  const { result } = await query('afterimage_rpo_newest_point_seconds{group="web1"} / afterimage_rpo_objective_seconds');
  t.equal(result.length, 1, 'an age against its objective');

  interface Rules { readonly groups: readonly { readonly rules: readonly { readonly name: string; readonly health: string; readonly lastError?: string }[] }[] }
  const rules = await waitFor(async () => {
    const found = (await prometheus.ask<Rules>('rules')).groups.flatMap((group) => group.rules);
    return found.length > 0 && found.every(({ health }) => health !== 'unknown') ? found : null;
  }, { limitMs: 60_000, what: 'the rules to be evaluated', everyMs: 200 });
  t.strictSame(rules.filter(({ health }) => health !== 'ok').map(({ name, lastError }) => `${name}: ${lastError}`), []);

  // The source dies: the target says so, and Prometheus says so of the source.
  await pair.source.kill();
  await waitFor(async () => (await query('afterimage_group_source_connected{group="web1"} == 0')).result.length === 1, { limitMs: 60_000, what: 'the source to be missed', everyMs: 200 });
  const pending = await waitFor(async () => {
    const { alerts } = await prometheus.ask<{ alerts: { labels: Record<string, string> }[] }>('alerts');
    const names = new Set(alerts.map(({ labels }) => labels['alertname']));
    return names.has('AfterimageDown') && names.has('AfterimageSourceAbsent') ? alerts : null;
  }, { limitMs: 60_000, what: 'the alerts to be pending', everyMs: 200 });
  t.ok(pending.some(({ labels }) => labels['group'] === 'web1'));
});
