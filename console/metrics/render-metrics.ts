/**
 * A role's report as Prometheus metrics: `renderMetrics(report)` is pure but for the figures of the process itself, which prom-client
 * takes. Invariant: how many series there are is bounded, whatever comes to a role: so many groups, alarms and codes, and no more.
 */
import { collectDefaultMetrics, Registry } from 'prom-client';
import type { SourceReport } from '../../daemon/report.ts';
import type { TargetReport } from '../../replica-target/report.ts';
import { MetricSheet, seconds } from './metric-sheet.ts';
import { addSourceMetrics } from './source-metrics.ts';
import { addTargetMetrics } from './target-metrics.ts';

/** More groups than one role is made for; of further ones there are no samples, and a metric says how many they are. */
const groupsMax = 1000;
const alarmsMax = 1000;

/** Of Prometheus' text format. */
export const metricsContentType = Registry.PROMETHEUS_CONTENT_TYPE;

/** In Prometheus' text format, version 0.0.4. */
export async function renderMetrics(report: SourceReport | TargetReport): Promise<string> {
  return `${await reportMetrics(report)}\n${await processMetrics()}`;
}

/** Without the process's own. Pure. */
export function reportMetrics(report: SourceReport | TargetReport): Promise<string> {
  const sheet = new MetricSheet();
  sheet.gauge('build_info', 'Release and role, as labels.')({ role: report.role, version: report.version }, 1);
  sheet.gauge('report_timestamp_seconds', 'The host’s clock when this was made.')({}, seconds(report.atMs));
  let count: number;
  if (report.role === 'source') {
    const guests = [...report.guests, ...report.relays];
    count = guests.length;
    addSourceMetrics(sheet, report, guests.slice(0, groupsMax));
  } else {
    count = report.groups.length;
    addTargetMetrics(sheet, report, report.groups.slice(0, groupsMax));
  }
  sheet.gauge('groups', 'Groups that the role knows.')({}, count);
  sheet.gauge('groups_left_out', 'Groups of which there are no samples, for there are too many.')({}, Math.max(0, count - groupsMax));
  const alarm = sheet.gauge('alarm', '1 while the alarm lasts, by code and group.');
  const alarms = new Map((report.alarms ?? []).map((one) => [`${one.code} ${one.group ?? ''}`, one]));
  for (const { code, group } of [...alarms.values()].slice(0, alarmsMax)) alarm({ code, group: group ?? '' }, 1);
  return sheet.text();
}

/** Gauges that prom-client calls totals; each comes by type, too. */
const misnamed = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];
let ofProcess: Registry | null = null;

/** From the first call on: before it nobody measures. */
function processMetrics(): Promise<string> {
  if (ofProcess === null) {
    ofProcess = new Registry();
    collectDefaultMetrics({ register: ofProcess });
    for (const name of misnamed) ofProcess.removeSingleMetric(name);
  }
  return ofProcess.metrics();
}
