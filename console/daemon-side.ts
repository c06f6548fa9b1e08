/** What a daemon does beside its role, from the role's report and nothing else: serves metrics, tells of what is wrong. Neither ever keeps a role from working: an address that is taken is tried again. */
import { join } from 'node:path';
import type { AlertTestResult } from './alerts/alert-options.ts';
import type { Logger } from 'pino';
import type { SourceReport } from '../daemon/report.ts';
import { nodeClock } from '../host/node/clock.ts';
import { nodeRandom } from '../host/node/random.ts';
import type { TargetReport } from '../replica-target/report.ts';
import type { Config } from './config/config.ts';
import type { MetricsOptions, MetricsServer } from './metrics/metrics-server.ts';

export interface DaemonSide { testAlerts(): Promise<readonly AlertTestResult[]>; close(): Promise<void> }

const retryMs = 30_000;

export async function openDaemonSide(config: Config, report: () => SourceReport | TargetReport, log: Logger, version: string): Promise<DaemonSide> {
  const metrics = config.metrics === null ? null : await openMetrics(config.metrics, report, log);
  const alerts = config.alerts === null ? null : await openAlerts(config, config.alerts, report, log, version);
  return {
    testAlerts: () => alerts?.test() ?? Promise.resolve([]),
    async close() {
      await metrics?.close();
      await alerts?.close();
    },
  };
}

/** Their code, and the libraries behind it, are loaded where they are wanted. */
async function openAlerts({ options: { name, dataFolder }, role }: Config, options: NonNullable<Config['alerts']>, report: () => SourceReport | TargetReport, log: Logger, version: string) {
  const { AlertWatch } = await import('./alerts/alert-watch.ts');
  return AlertWatch.open({ options, from: { role, name, version }, report, statePath: join(dataFolder, 'alerts.json'), clock: nodeClock, random: nodeRandom, log });
}

async function openMetrics(options: MetricsOptions, report: () => SourceReport | TargetReport, log: Logger): Promise<{ close(): Promise<void> }> {
  const { serveMetrics } = await import('./metrics/metrics-server.ts');
  const stop = new AbortController();
  let server: MetricsServer | null = null;
  const open = async (): Promise<boolean> => {
    try {
      server = await serveMetrics(options, report, log);
      return true;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error)) throw error;
      log.error({ err: error, ...options }, `metrics cannot be served, which is tried again: ${error.message}`);
      return false;
    }
  };
  const opening = await open() ? Promise.resolve() : (async () => {
    do await nodeClock.delay(retryMs, stop.signal).catch(() => undefined);
    while (!stop.signal.aborted && !(await open()));
  })();
  return {
    async close() {
      stop.abort(new Error('metrics are served no more'));
      await opening;
      await server?.close();
    },
  };
}
