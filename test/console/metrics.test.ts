/** Metrics from fixed reports: what is there, in a form that promtool takes; bounds; what a scrape of many groups costs; that dashboard and rules name nothing else. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import t from 'tap';
import { renderMetrics, reportMetrics } from '../../console/metrics/render-metrics.ts';
import { isLoopback } from '../../console/loopback.ts';
import { serveMetrics } from '../../console/metrics/metrics-server.ts';
import { Exposure } from '../../daemon/supervisor/exposure.ts';
import type { SourceReport } from '../../daemon/report.ts';
import { planForecast } from '../../replica-target/store/forecast-plan.ts';
import type { TargetReport } from '../../replica-target/report.ts';
import { dashboardPath, metricsDeclaredIn, metricsNamedIn, promtool, rulesPath, rulesTestPath } from '../support/prometheus.ts';
import { atMs, group, protectedGuest, sourceUp, startChecked, targetUp } from './fixed-reports.ts';

const exposure = (() => {
  const kept = new Exposure();
  for (const ms of [90, 5000, 5001, 7_000_000]) kept.add(ms);
  return kept.histogram();
})();

const source: SourceReport = {
  ...sourceUp, guests: [{ ...protectedGuest, exposure, waiting: { unacknowledgedPoints: 1, unappliedPoints: 2 }, lease: { state: 'held', why: '', isStopped: false } }, ...sourceUp.guests.slice(1)],
  alarms: [{ code: 'RANSOM_SUSPECTED', group: 'web', message: 'entropy rose', sinceMs: atMs }],
};
const target: TargetReport = {
  ...targetUp, volume: { freeBytes: 100, keptBytes: 50, fullInMs: 7_200_000 }, certificateExpiresAtMs: atMs + 1000, startChecks: [startChecked],
  checks: [{ group: 'web', lastAtMs: null, findingCount: 0, findings: [], underWay: null }],
};

t.test('a source', async (t) => {
  const text = await reportMetrics(source);
  const has = (line: string): void => { t.ok(text.split('\n').includes(line), line); };
  has('afterimage_build_info{role="source",version="0.1.0"} 1');
  has('afterimage_rpo_objective_seconds{group="web",target="bravo"} 5');
  has('afterimage_rpo_captured_seconds{group="web",target="bravo"} 0.9');
  has('afterimage_rpo_received_seconds{group="web",target="bravo"} 3.1');
  has('afterimage_rpo_applied_seconds{group="web",target="bravo"} 8.1');
  t.notMatch(text, /rpo_received_seconds\{group="mail"/, 'what is not known has no sample');
  has('afterimage_rpo_exposure_seconds_bucket{group="web",target="bravo",le="0.1"} 1');
  has('afterimage_rpo_exposure_seconds_bucket{group="web",target="bravo",le="5"} 2');
  has('afterimage_rpo_exposure_seconds_bucket{group="web",target="bravo",le="3600"} 3');
  has('afterimage_rpo_exposure_seconds_bucket{group="web",target="bravo",le="+Inf"} 4');
  has('afterimage_rpo_exposure_seconds_count{group="web",target="bravo"} 4');
  has('afterimage_guest_phase{group="mail",target="bravo",phase="first-sync"} 1');
  has('afterimage_guest_phase{group="mail",target="bravo",phase="protected"} 0');
  has('afterimage_full_pass_done_bytes{group="mail",target="bravo"} 2147483648');
  has('afterimage_disk_size_bytes{group="mail",target="bravo",disk="0",device="/machine/peripheral-anon/device[0]"} 8589934592');
  has('afterimage_alarm{code="RANSOM_SUSPECTED",group="web"} 1');
  has('afterimage_lease_held{group="web",target="bravo"} 1');
  has('afterimage_link_up{target="bravo"} 1');
});

t.test('a target', async (t) => {
  const text = await reportMetrics(target);
  const has = (line: string): void => { t.ok(text.split('\n').includes(line), line); };
  has('afterimage_group_held{group="full",code="STORE_FULL"} 1');
  has('afterimage_group_source_connected{group="web"} 1');
  has('afterimage_refusals_total{code="WIRE_SECRET"} 3');
  has('afterimage_volume_full_forecast_seconds 7200');
  has('afterimage_last_check_timestamp_seconds{group="web"} 0');
  has('afterimage_start_check_verdict{group="web",verdict="refused"} 1');
  has(`afterimage_certificate_expiry_timestamp_seconds{certificate="target"} ${atMs / 1000 + 1}`);
});

t.test('what comes from elsewhere is escaped, and bounded', async (t) => {
  const name = 'a"b\\c\nafterimage_evil 1\n';
  const text = await reportMetrics({ ...source, guests: [{ ...protectedGuest, disks: [{ disk: 0, name: `${name}${'x'.repeat(1000)}`, sizeBytes: 1 }] }] });
  t.notMatch(text, /^afterimage_evil/m);
  const line = text.split('\n').find((one) => one.startsWith('afterimage_disk_size_bytes{'))!;
  t.match(line, /device="a\\"b\\\\c\\nafterimage_evil 1\\nx+…"/);
  t.ok(line.length < 300);
  promtool(['check', 'metrics'], text);
  const many = await reportMetrics({ ...target, groups: Array.from({ length: 1500 }, (_, at) => ({ ...group, name: `g${at}` })) });
  t.match(many, /^afterimage_groups 1500$/m);
  t.match(many, /^afterimage_groups_left_out 500$/m);
  t.equal(many.match(/^afterimage_points\{/gm)?.length, 1000);
});

t.test('promtool takes all of it; rules and dashboard name nothing that is not there', async (t) => {
  const texts = [await renderMetrics(source), await renderMetrics(target)];
  for (const text of texts) t.doesNotThrow(() => promtool(['check', 'metrics'], text));
  t.match(promtool(['check', 'rules', '--lint=all', '--lint-fatal', rulesPath]), /SUCCESS/);
  t.match(promtool(['test', 'rules', rulesTestPath]), /SUCCESS/);
  const declared = new Set(texts.flatMap((text) => [...metricsDeclaredIn(text)]));
  const dashboard = await readFile(dashboardPath, 'utf8');
  for (const [what, text] of [['rules', await readFile(rulesPath, 'utf8')], ['tests of rules', await readFile(rulesTestPath, 'utf8')], ['dashboard', dashboard]] as const) {
    const named = metricsNamedIn(text);
    t.ok(named.length > 10, what);
    t.strictSame(named.filter((name) => !declared.has(name)), [], what);
  }
  const { panels } = JSON.parse(dashboard) as { panels: { id: number; type: string; gridPos: { x: number; w: number }; targets?: { expr: string }[] }[] };
  t.equal(new Set(panels.map(({ id }) => id)).size, panels.length, 'ids of panels');
  t.ok(panels.every(({ gridPos: { x, w } }) => x + w <= 24));
  // A recording rule each, so that promtool reads every expression, with what Grafana puts in it put in.
  const expressions = panels.flatMap(({ targets }) => targets ?? []).map(({ expr }) => expr.replaceAll('$__rate_interval', '5m').replaceAll('$group', '.*'));
  t.ok(expressions.length > 40);
  const folder = await mkdtemp(join(tmpdir(), 'af-rules-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const asRules = join(folder, 'dashboard.yaml');
  await writeFile(asRules, JSON.stringify({ groups: [{ name: 'dashboard', rules: expressions.map((expr, at) => ({ record: `panel:${at}`, expr })) }] }));
  t.match(promtool(['check', 'rules', asRules]), /SUCCESS/);
});

t.test('what a scrape of 50 groups costs', async (t) => {
  const guests = Array.from({ length: 50 }, (_, at) => ({ ...protectedGuest, name: `g${at}`, exposure }));
  const groups = Array.from({ length: 50 }, (_, at) => ({ ...group, name: `g${at}` }));
  for (const report of [{ ...source, guests }, { ...target, groups }]) {
    let text = '';
    const costs: number[] = [];
    for (let turn = 0; turn < 20; turn++) {
      const { user, system } = process.cpuUsage();
      text = await renderMetrics(report);
      const { user: userAfter, system: systemAfter } = process.cpuUsage();
      costs.push((userAfter + systemAfter - user - system) / 1000);
    }
    const median = costs.sort((a, b) => a - b)[10]!;
    t.comment(`${report.role}: ${text.match(/^[^#\n]/gm)?.length} series, ${Math.round(text.length / 1024)} KiB, ${median.toFixed(1)} ms of processor time`);
    // Some ms; far more would be something that grows with the square of what there is.
    t.ok(median < 200, `${median} ms`);
  }
});

t.test('over HTTP', async (t) => {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => { lines.push(line); } });
  const server = await serveMetrics({ host: '127.0.0.1', port: 0 }, () => source, log);
  const base = `http://127.0.0.1:${server.address.port}`;
  const found = await fetch(`${base}/metrics`);
  t.equal(found.status, 200);
  t.match(found.headers.get('content-type'), /^text\/plain; version=0\.0\.4/);
  t.match(await found.text(), /^afterimage_link_up\{target="bravo"\} 1$/m);
  t.equal((await fetch(`${base}/`)).status, 404);
  t.equal((await fetch(`${base}/metrics`, { method: 'POST', body: 'x' })).status, 405);
  await t.rejects(serveMetrics({ host: '127.0.0.1', port: server.address.port }, () => source, log), { code: 'EADDRINUSE' });
  await server.close();
  t.notOk(lines.some((line) => line.includes('in the clear')));
  t.same(['127.0.0.1', '::1', 'localhost', '0.0.0.0', '::', '192.0.2.1'].map(isLoopback), [true, true, true, false, false, false]);
});

t.test('forecast of a volume', (t) => {
  const minute = 60_000;
  const seen = (bytesPerMinute: number, count: number) => Array.from({ length: count }, (_, at) => ({ atMs: at * minute, freeBytes: 10_000 - bytesPerMinute * at }));
  t.equal(planForecast([], 0), null);
  t.equal(planForecast(seen(10, 5), 0), null, 'too soon');
  t.equal(planForecast(seen(-10, 60), 0), null, 'it empties');
  t.equal(planForecast(seen(0, 60), 0), null);
  t.equal(Math.round(planForecast(seen(10, 61), 400)! / minute), 900);
  t.equal(planForecast(seen(10, 61), 9_500), 0, 'there already');
  t.end();
});
