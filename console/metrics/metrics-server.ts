/**
 * Serves a role's metrics at `/metrics`, plain HTTP, read-only. Whoever reaches the address may read them: names of groups, ages and
 * sizes, no content. So it is off unless the config names an address. Scrapes are answered one after the other, from one report each.
 */
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import type { SourceReport } from '../../daemon/report.ts';
import type { TargetReport } from '../../replica-target/report.ts';
import { isLoopback } from '../loopback.ts';
import { metricsContentType, renderMetrics } from './render-metrics.ts';

export interface MetricsOptions { readonly host: string; /** 0: any free one, which the log names. */ readonly port: number }
export interface MetricsServer { readonly address: { readonly host: string; readonly port: number }; close(): Promise<void> }

/** Who scrapes sends a few hundred bytes and waits. */
const requestMsMax = 10_000;
const connectionsMax = 32;

/** Rejects with the system's error when the address cannot be listened on. */
export async function serveMetrics({ host, port }: MetricsOptions, report: () => SourceReport | TargetReport, log: Logger): Promise<MetricsServer> {
  let turn: Promise<unknown> = Promise.resolve();
  const server = createServer({ maxHeaderSize: 8 * 1024, headersTimeout: requestMsMax, requestTimeout: requestMsMax, connectionsCheckingInterval: 1_000 }, (request, response) => {
    request.resume();
    const path = (request.url ?? '').split('?')[0];
    if (path !== '/metrics') return answer(response, 404, 'metrics are at /metrics\n');
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(response, 405, 'metrics are read with GET\n', { allow: 'GET, HEAD' });
    // A bug in making them is one of the daemon's, and ends it like any other.
    turn = turn.then(async () => {
      if (!response.destroyed) answer(response, 200, await renderMetrics(report()), { 'content-type': metricsContentType });
    });
  });
  server.maxConnections = connectionsMax;
  server.keepAliveTimeout = 2 * requestMsMax;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => { server.off('error', reject); resolve(); });
  });
  server.on('error', (error) => log.error({ err: error }, 'the socket that serves metrics failed'));
  const address = { host: (server.address() as AddressInfo).address, port: (server.address() as AddressInfo).port };
  log.info(address, 'metrics are served at /metrics');
  if (!isLoopback(address.host)) log.warn(address, 'metrics are served in the clear to whoever reaches this address: let a firewall choose who does, or name 127.0.0.1');
  return {
    address,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
      await turn;
    },
  };
}

function answer(response: ServerResponse, status: number, text: string, headers: Readonly<Record<string, string>> = {}): void {
  response.on('error', () => undefined);
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'x-content-type-options': 'nosniff', ...headers });
  response.end(text);
}
