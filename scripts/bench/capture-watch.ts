/**
 * Looks at the source's report every 50 ms while a load runs. Two promises: the guest was captured in the way that is being
 * measured at every look (else it throws: a figure of another capture is none), and a source that answers late hides nothing:
 * for the looks that were missed meanwhile the newest point is taken to be the one known before, growing older.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { SourceClient } from '../../console/control-client.ts';
import type { GuestReport } from '../../daemon/report.ts';
import type { BenchCapture } from './arguments.ts';
import type { Daemon } from './daemons.ts';
import { until } from './site.ts';

const lookMs = 50;
/** The pace at which each is measured: the shortest that its bar is about, ms. */
export const rpoMsOf: Readonly<Record<BenchCapture, number>> = { writelog: 500, cbt: 1000 };

export interface CaptureSeen {
  /** Age of the newest point that the target holds durably, at each look, ms: by the source's own monotonic clock. */
  readonly agesMs: readonly number[];
  /** The same, from the point's time of cut and this process's clock. */
  readonly cutAgesMs: readonly number[];
  readonly before: GuestReport;
  readonly after: GuestReport;
}

export async function guestOf(source: Daemon<SourceClient>, name: string): Promise<GuestReport> {
  const guest = (await source.client.report()).guests.find((one) => one.name === name);
  if (guest === undefined) throw new Error(`the source does not know ${name}`);
  return guest;
}

/** Resolves when the guest is protected, and captured so. */
export async function untilCaptured(source: Daemon<SourceClient>, name: string, capture: BenchCapture): Promise<void> {
  let last: GuestReport | undefined;
  const isSo = until(`${name} is captured by ${capture}`, async () => {
    last = await guestOf(source, name);
    // A log is read from the second point on.
    return last.phase === 'protected' && last.capture?.capture === capture && (capture === 'cbt' || last.capture.logCuts > 0);
  }, { running: source.running, limitMs: 300_000, everyMs: lookMs });
  await isSo.catch((error: unknown) => { throw new Error(`${told(last)}: ${String(error)}`, { cause: error }); });
}

export async function watchCapture<T>(source: Daemon<SourceClient>, name: string, capture: BenchCapture, load: () => Promise<T>): Promise<CaptureSeen & { readonly loaded: T }> {
  const before = await guestOf(source, name);
  let after = before;
  const ages: { own: number[]; byCut: number[] } = { own: [], byCut: [] };
  let isOver = false;
  const look = async (): Promise<void> => {
    let seen: { atMs: number; own: number; byCut: number } | null = null;
    for (let dueMs = performance.now(); !isOver; dueMs += lookMs) {
      const guest = await guestOf(source, name);
      const nowMs = performance.now();
      demand(guest, capture);
      if (guest.clocks.newestPointMs === null || guest.newestPoint === null) throw new Error(`${name} has no point`);
      for (; seen !== null && dueMs + lookMs < nowMs; dueMs += lookMs) {
        ages.own.push(seen.own + dueMs - seen.atMs);
        ages.byCut.push(seen.byCut + dueMs - seen.atMs);
      }
      seen = { atMs: nowMs, own: guest.clocks.newestPointMs, byCut: Date.now() - guest.newestPoint.cutAtMs };
      ages.own.push(seen.own);
      ages.byCut.push(seen.byCut);
      after = guest;
      await delay(Math.max(0, dueMs + lookMs - nowMs));
    }
  };
  const looking = look();
  // Waited for below; a load that fails says so first.
  looking.catch(() => undefined);
  const failed = looking.then(() => new Promise<never>(() => undefined));
  const loaded = await Promise.race([load(), failed]).finally(() => { isOver = true; });
  await looking;
  after = await guestOf(source, name);
  demand(after, capture);
  if (capture === 'writelog' && (after.capture?.logCuts ?? 0) <= (before.capture?.logCuts ?? 0)) throw new Error(`no point was read from a log: ${told(after)}`);
  return { loaded, before, after, agesMs: ages.own, cutAgesMs: ages.byCut };
}

function demand(guest: GuestReport, capture: BenchCapture): void {
  if (guest.capture?.capture !== capture) throw new Error(`not captured by ${capture}: ${told(guest)}`);
}

function told(guest: GuestReport | undefined): string {
  return guest === undefined ? 'no guest' : JSON.stringify({ phase: guest.phase, detail: guest.detail, capture: guest.capture, lastFault: guest.lastFault });
}
