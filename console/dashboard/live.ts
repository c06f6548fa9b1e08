/**
 * The report as it is now: over a WebSocket, whenever it has changed. When the connection is lost it says since when, goes on
 * trying, and never shows old data as new: whoever draws an age adds {@link agedMs}.
 */
import { computed, signal } from '@preact/signals';
import type { SourceReport } from '../../daemon/report.ts';
import type { TargetReport } from '../../replica-target/report.ts';
import { call } from './api.ts';
import { token } from './session.ts';

export type Report = SourceReport | TargetReport;

/** Between two tries, ms. */
const retryMs = [500, 1000, 2000, 5000] as const;
/** Nothing may have changed, but the daemon says so every few seconds by its pings; a browser shows those to nobody. */
const aliveMs = 20_000;

export const report = signal<Report | null>(null);
export const isConnected = signal(false);
/** Why there is no connection, for people. */
export const trouble = signal('');
/** Ticks once a second, so that ages grow. */
export const nowMs = signal(Date.now());
const heardMs = signal(Date.now());

setInterval(() => { nowMs.value = Date.now(); }, 1000);

/** How old the report is, ms: by this browser's clock alone, as that of the daemon's host may differ. */
export const agedMs = computed(() => (report.value === null ? 0 : Math.max(0, nowMs.value - heardMs.value)));
/** The daemon's wall clock now, ms. */
export const daemonMs = computed(() => (report.value === null ? nowMs.value : report.value.atMs + agedMs.value));

let started = false;

export function follow(): void {
  if (started) return;
  started = true;
  void keepFollowing();
}

async function keepFollowing(): Promise<void> {
  for (let failed = 0; ; failed += 1) {
    if (token.value === null) await new Promise<void>((resolve) => { const stop = token.subscribe((now) => { if (now !== null) { queueMicrotask(() => stop()); resolve(); } }); });
    try {
      if (await followOnce()) failed = -1;
    } catch (error) {
      trouble.value = error instanceof Error ? error.message : String(error);
    }
    isConnected.value = false;
    await new Promise((resolve) => setTimeout(resolve, retryMs[Math.min(Math.max(failed, 0), retryMs.length - 1)]));
  }
}

/** Resolves when the connection has ended, with whether it ever brought a report. */
async function followOnce(): Promise<boolean> {
  const { ticket } = await call<{ readonly ticket: string }>('/v1/tickets', { method: 'POST' });
  const socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/v1/live?ticket=${encodeURIComponent(ticket)}`);
  let hasHeard = false;
  // A report that stays the same is not sent again: whether the daemon is there is asked for where nothing came for long.
  const asking = setInterval(() => {
    if (Date.now() - heardMs.value < aliveMs) return;
    call<Report>('/v1/report').then((now) => { heardMs.value = Date.now(); report.value = now; }, () => socket.close());
  }, aliveMs / 4);
  return new Promise((resolve) => {
    socket.onmessage = ({ data }) => {
      hasHeard = true;
      heardMs.value = Date.now();
      report.value = JSON.parse(data as string) as Report;
      isConnected.value = true;
      trouble.value = '';
    };
    socket.onclose = () => {
      clearInterval(asking);
      if (trouble.value === '') trouble.value = 'the connection was lost';
      resolve(hasHeard);
    };
  });
}
