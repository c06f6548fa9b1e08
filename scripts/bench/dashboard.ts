/**
 * What the dashboard costs who looks at it: bytes of the first load over TLS as compressed, when it can be used on a processor four times slower, and how it scrolls with
 * 200 groups, and in a group of 1,000 points. Served by the real API; the report and the points behind it are made here, as that many guests do not fit on this machine.
 * Told by Chromium's own trace.
 */
import { pino } from 'pino';
import type { CDPSession, Page } from 'playwright-core';
import { openTargetControl } from '../../console/control.ts';
import { makeCertificate } from '../../journal/identity.ts';
import type { TargetOperations } from '../../replica-target/operations.ts';
import type { RestorePoint } from '../../replica-target/points/points.ts';
import type { TargetReport } from '../../replica-target/report.ts';
import { TargetClient } from '../../console/control-client.ts';
import { openBrowser, openPage, signedIn } from '../browser/open-browser.ts';
import type { Benchmark } from './benchmark.ts';
import { spreadOf } from './figures.ts';

const groupCount = 200;
const pointCount = 1_000;
/** The project's own limits. */
const [bytesMax, interactiveMsMax] = [200 * 1024, 1000];
const slowdown = 4;
/** A frame that took longer than this was seen as a jerk, ms: three of a screen of 60 Hz. */
const jankMs = 50;

export const dashboard: Benchmark = async ({ site, say, arguments: { runs } }) => {
  const { key, cert } = await makeCertificate('bench');
  const socketPath = site.path('dashboard.sock');
  const control = await openTargetControl(socketPath, madeTarget(), pino({ level: 'silent' }), { folder: site.path('api'), listen: { host: '127.0.0.1', port: 0, key, cert } });
  const browser = await openBrowser();
  try {
    const address = signedIn(`https://127.0.0.1:${control.address!.port}`, (await new TargetClient(socketPath).createToken('bench', 'read', null)).token);
    const bytes: number[] = [];
    const interactive: number[] = [];
    const frames: Record<'overview' | 'group', number[]> = { overview: [], group: [] };
    const dropped: Record<'overview' | 'group', number[]> = { overview: [], group: [] };
    for (let round = 1; round <= runs; round += 1) {
      const { page, context } = await openPage(browser, 'desktop');
      const devtools = await context.newCDPSession(page);
      const load = await firstLoad(devtools, address);
      bytes.push(load.bytes / 1024);
      interactive.push(load.interactiveMs);
      for (const [what, go] of [['overview', async () => undefined], ['group', async () => { await page.locator('a[href="#/group/guest-001"]').click(); await page.getByRole('slider', { name: 'Point' }).waitFor(); }]] as const) {
        await go();
        const scrolled = await scroll(page, devtools);
        frames[what].push(scrolled.worstMs);
        dropped[what].push(scrolled.jankCount);
      }
      say(`round ${round}: ${Math.round(load.bytes / 1024)} KiB, usable after ${Math.round(load.interactiveMs)} ms, worst frame ${Math.round(frames.overview.at(-1)!)} ms among the groups and ${Math.round(frames.group.at(-1)!)} ms in one`);
      await context.close();
    }
    const first = spreadOf(interactive, 1);
    return {
      name: 'dashboard', unit: 'ms', ours: first.median, peer: interactiveMsMax, ratio: Math.round(interactiveMsMax / first.median * 1000) / 1000, runs,
      extras: { first_load_kib: spreadOf(bytes, 1).median, limit_kib: bytesMax / 1024, interactive_ms: first.median, groups: groupCount, points: pointCount, worst_frame_ms: spreadOf([...frames.overview, ...frames.group], 1).max, slow_frames: spreadOf([...dropped.overview, ...dropped.group], 1).max },
      rows: [
        { what: 'first load', unit: 'KiB', spread: spreadOf(bytes, 1) }, { what: `usable, processor ${slowdown} times slower`, unit: 'ms', spread: first },
        ...(['overview', 'group'] as const).flatMap((what) => [{ what: `worst frame while scrolling, ${what}`, unit: 'ms', spread: spreadOf(frames[what], 1) }, { what: `frames over ${jankMs} ms, ${what}`, unit: 'frames', spread: spreadOf(dropped[what], 1) }]),
      ],
      notes: [`${groupCount} groups with ${pointCount} points each; the bars are ${bytesMax / 1024} KiB and ${interactiveMsMax} ms; usable: the first group is drawn and nothing occupies the page any more`, 'scrolling is measured without the slowdown, the live report changing once a second'],
    };
  } finally {
    await browser.close();
    await control.close();
  }
};

/** From an empty cache, until the groups are drawn and the page's thread has been free for once. */
async function firstLoad(devtools: CDPSession, address: string): Promise<{ readonly bytes: number; readonly interactiveMs: number }> {
  await devtools.send('Network.enable');
  await devtools.send('Network.setCacheDisabled', { cacheDisabled: true });
  await devtools.send('Emulation.setCPUThrottlingRate', { rate: slowdown });
  let bytes = 0;
  devtools.on('Network.loadingFinished', ({ encodedDataLength }) => { bytes += encodedDataLength; });
  // The page tells by itself, in its own time from its navigation on: a driver that looks for elements in it would run there as well, four times slower.
  await devtools.send('Page.enable');
  await devtools.send('Runtime.enable');
  await devtools.send('Runtime.addBinding', { name: 'tellUsable' });
  await devtools.send('Page.addScriptToEvaluateOnNewDocument', { source: `new MutationObserver((_, watch) => {
    if (document.querySelector('.card') === null) return;
    watch.disconnect();
    requestAnimationFrame(() => setTimeout(() => tellUsable(String(performance.now())), 0));
  }).observe(document, { childList: true, subtree: true })` });
  const told = new Promise<number>((resolve) => devtools.once('Runtime.bindingCalled', ({ payload }) => resolve(Number(payload))));
  await devtools.send('Page.navigate', { url: address });
  const interactiveMs = await told;
  await devtools.send('Emulation.setCPUThrottlingRate', { rate: 1 });
  return { bytes, interactiveMs };
}

/** Down and up again as by a wheel, for some seconds. */
async function scroll(page: Page, devtools: CDPSession): Promise<{ readonly worstMs: number; readonly jankCount: number }> {
  const events: { name: string; dur?: number }[] = [];
  const collect = ({ value }: { value: unknown[] }): void => { events.push(...value as { name: string; dur?: number }[]); };
  devtools.on('Tracing.dataCollected', collect);
  await devtools.send('Tracing.start', { traceConfig: { includedCategories: ['devtools.timeline', 'disabled-by-default-devtools.timeline'] } });
  for (const yDistance of [-6000, 6000]) await devtools.send('Input.synthesizeScrollGesture', { x: 400, y: 500, yDistance, speed: 3000, gestureSourceType: 'mouse' });
  const done = new Promise<void>((resolve) => devtools.once('Tracing.tracingComplete', () => resolve()));
  await devtools.send('Tracing.end');
  await done;
  devtools.off('Tracing.dataCollected', collect);
  const tasks = events.filter(({ name }) => name === 'RunTask').map(({ dur = 0 }) => dur / 1000);
  return { worstMs: Math.max(0, ...tasks), jankCount: tasks.filter((ms) => ms > jankMs).length };
}

/** What a target with so many groups would say; points come in while it is looked at. */
function madeTarget(): TargetOperations {
  const points = (): RestorePoint[] => {
    const nowMs = Date.now();
    return Array.from({ length: pointCount }, (_, at) => ({
      term: 1, point: at + 1, kind: at % 60 === 0 ? 'app' as const : 'crash' as const, cutAtMs: nowMs - (pointCount - at) * 5000, arrivedAtMs: nowMs - (pointCount - at) * 5000 + 400, changedBytes: (at * 7919) % 20_000_000,
      isApplied: true, isHeld: false, keptBy: 'all' as const,
    }));
  };
  const report = (): TargetReport => {
    const atMs = Date.now();
    const [newest, oldest] = [points().at(-1)!, points()[0]!];
    const groups = Array.from({ length: groupCount }, (_, at): TargetReport['groups'][number] => ({
      groupId: at.toString(16).padStart(32, '0'), name: `guest-${String(at + 1).padStart(3, '0')}`, sourceId: 'aa'.repeat(16), state: 'protected', term: 1, rpoMs: 5000, seed: 'done', isReclaimed: false, formerSourceIds: [],
      disks: [{ disk: 0, name: 'drive0', sizeBytes: 20 * 1024 ** 3, replicaPath: '/srv/0.raw', isAtApplied: true }],
      newest: { ...newest, cutAtMs: atMs - 1000 - at * 10 }, applied: { term: 1, point: pointCount }, pointCount, oldest, journalBytes: 64 * 1024 ** 2, historyBytes: 10 * 1024 ** 2 + at, replicaBytes: 7 * 1024 ** 3,
      retention: { windowMs: 4 * 3_600_000, windowHadMs: 4 * 3_600_000, hourly: 24, daily: 7, weekly: 4, monthly: 12, budgetBytes: null, usedBytes: 74 * 1024 ** 2, limitBytes: 1024 ** 3, space: 'ample' }, held: null,
    }));
    return {
      role: 'target', version: 'bench', atMs, address: '127.0.0.1:7228', fingerprint: 'ab'.repeat(32), memoryRssBytes: 0, groups, failovers: [], tests: [], endedTests: [], refusals: {},
      sources: [{ sourceId: 'aa'.repeat(16), name: 'alpha', address: '127.0.0.1:1', sinceMs: atMs - 3_600_000, receivedBytes: atMs }],
      nbd: { socketPath: '/run/points.sock', address: null, clients: {}, viewCount: 0, readBytes: 0, failedRequests: 0 },
    };
  };
  const timeline = async (group: string) => ({ group, groupId: '', atMs: Date.now(), ranges: [], points: points(), holds: [] });
  return { report, timeline } as unknown as TargetOperations;
}
