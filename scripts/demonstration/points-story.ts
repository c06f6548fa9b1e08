/**
 * The story of going back in time: a running guest is protected, and three of its older points are booted in turn as test
 * failovers, each named in another way, while its protection goes on. What each holds is told by the guest's own counter,
 * and compared with what the original had written when the point was cut. Every figure is measured here.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { tint } from '../../console/render/look.ts';
import { formatBytes, formatSpan } from '../../console/render/units.ts';
import { formatPoint } from '../../journal/point.ts';
import type { TestResult } from '../../replica-target/operations.ts';
import type { StoredPoint } from '../../replica-target/store/store.ts';
import type { LabGuest } from '../lab/lab-guest.ts';
import { counterRange, type PointsFigures, type TestedPoint } from './figures.ts';
import { makeGuestDisk } from './guest-disk.ts';
import type { Screen } from './screen.ts';
import type { Stage } from './stage.ts';
import { bootGuest, consoleLine, name, protect, startDaemons, watch, type StoryOptions } from './story.ts';

export async function playPoints(stage: Stage, screen: Screen, options: StoryOptions): Promise<PointsFigures> {
  screen.title('A running guest is booted from three older points in turn, while its protection goes on');
  const disk = await makeGuestDisk(stage.folder);
  const guest = await bootGuest(stage, screen, options, disk);
  await startDaemons(stage, screen);
  await protect(stage, screen, guest, options);
  await watch(stage, screen, guest, options.watchMs);

  screen.typed(`afterimage points ${name}`);
  const points = await stage.target.points(name);
  const [oldest, newest] = [points[0], points.at(-1)];
  if (oldest === undefined || newest === undefined || points.length < 4) throw new Error(`${points.length} points are too few to choose from`);
  screen.done('points', `${points.length}, from ${formatPoint(oldest)} (${clock(oldest.cutAtMs)}) to ${formatPoint(newest)} (${clock(newest.cutAtMs)})`);

  const exposure = watchExposure(stage);
  const tests: TestedPoint[] = [];
  for (const [at, share] of [0.1, 0.45, 0.8].entries()) {
    const point = points[Math.floor(points.length * share)]!;
    tests.push(await tryPoint(stage, screen, guest, selectorOf(point, at)));
  }
  const maxMs = await exposure.end();
  const pointsNow = await stage.target.points(name);
  const figures: PointsFigures = {
    guest_disk_bytes: disk.sizeBytes,
    points: points.length,
    tests,
    agrees: tests.every(({ agrees }) => agrees),
    points_while_testing: pointsNow.filter(({ term, point }) => term > newest.term || point > newest.point).length,
    rpo_ms: options.rpoMs,
    rpo_ms_max_while_testing: Math.round(maxMs),
    leftovers: (await leftovers(stage)).length,
  };
  tellResult(screen, figures);
  return figures;
}

/** As a person may name it: by time, by number, by age. */
function selectorOf({ term, point, cutAtMs }: StoredPoint, at: number): string {
  switch (at) {
    // Seconds are rounded up: the newest point not after that is meant.
    case 0: return clock(cutAtMs + 999);
    case 1: return `${term}.${point}`;
    default: return `-${Math.max(1, Math.round((Date.now() - cutAtMs) / 1000))}s`;
  }
}

function clock(ms: number): string {
  const date = new Date(ms);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, '0')).join(':');
}

async function tryPoint(stage: Stage, screen: Screen, guest: LabGuest, selector: string): Promise<TestedPoint> {
  screen.typed(`afterimage test-failover ${name} --at ${selector}`);
  screen.live('test', 'asked for');
  const begin = performance.now();
  const result = JSON.parse(await stage.afterimage(['test-failover', name, '--at', selector, '--json', '--config', stage.configPath('target')])) as TestResult;
  const { point } = result;
  screen.live('test', `QEMU runs from point ${formatPoint(point)}, cut ${clock(point.cutAtMs)}, ${formatSpan(result.ageMs)} before`);
  const found = Number((await consoleLine(result.logPath, /^AF COUNTER-FOUND (\d+) \d+$/m))[1]);
  const rtoMs = Math.round(performance.now() - begin);
  const { least, most } = counterRange(guest.serial, point.cutAtMs);
  const agrees = found >= least && found <= most;
  screen.done('test', `point ${formatPoint(point)}, cut ${clock(point.cutAtMs)}: up in ${tint(screen.look, 'good', formatSpan(rtoMs))}, ${formatSpan(result.ageMs)} back in time`);
  const verdict = agrees ? tint(screen.look, 'good', 'agrees') : tint(screen.look, 'bad', 'does not agree');
  screen.done('counter', `found ${found}; when the point was cut the guest had written ${least} to ${Number.isFinite(most) ? most : 'now'}: ${verdict}`);
  const checked = await consoleLine(result.logPath, /^AF FSCK \w+ (clean|broken.*)$/m);
  const counting = await consoleLine(result.logPath, new RegExp(`^AF COUNTER ${found + 5} \\d+$`, 'm'));
  const { guests } = await stage.source.report();
  const exposureMs = guests.find((one) => one.name === name)?.clocks.newestPointMs ?? null;
  screen.done('', `its file system ${checked[1]}, it counts on (${counting[0].split(' ')[2]}); the original is protected meanwhile: a loss now costs ${formatSpan(exposureMs)}`);
  screen.typed(`afterimage test-failover ${name} --stop`);
  screen.done('test', (await stage.afterimage(['test-failover', name, '--stop', '--config', stage.configPath('target')])).trim());
  return {
    point: formatPoint(point), point_time: new Date(point.cutAtMs).toISOString(), age_ms: result.ageMs,
    counter_least: least, counter_most: Number.isFinite(most) ? most : found, counter_found: found, agrees, fsck_clean: checked[1] === 'clean', rto_ms: rtoMs,
  };
}

/** Looks again and again at what a loss would cost, until it is ended; resolves to the most. */
function watchExposure(stage: Stage): { end(): Promise<number> } {
  let isEnded = false;
  let maxMs = 0;
  const watching = (async () => {
    while (!isEnded) {
      const { guests } = await stage.source.report();
      maxMs = Math.max(maxMs, guests.find((one) => one.name === name)?.clocks.newestPointMs ?? 0);
      await new Promise((resolve) => { setTimeout(resolve, 100); });
    }
  })();
  // Whoever waits for the end hears of it.
  watching.catch(() => undefined);
  return {
    async end() {
      isEnded = true;
      await watching;
      return maxMs;
    },
  };
}

/** Notes, overlays, sockets, holds and processes of tests. */
async function leftovers(stage: Stage): Promise<string[]> {
  const overlays = join(stage.folder, 'overlays');
  const notes = join(stage.folder, 'target', 'tests');
  const left = [...await readdir(overlays), ...await readdir(notes)];
  const { tests, groups } = await stage.target.report();
  left.push(...tests.map(({ group }) => `test of ${group}`));
  for (const { groupId } of groups) left.push(...await heldFor(join(stage.folder, 'target', 'groups', groupId, 'holds.json')));
  for (const pid of (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry))) {
    if ((await readOrEmpty(`/proc/${pid}/cmdline`)).includes(overlays)) left.push(`process ${pid}`);
  }
  return left;
}

async function heldFor(path: string): Promise<string[]> {
  return (await readOrEmpty(path)).match(/"reason"/g) ?? [];
}

async function readOrEmpty(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
    throw error;
  }
}

function tellResult(screen: Screen, figures: PointsFigures): void {
  screen.title('What it showed');
  for (const { point, age_ms, counter_found, agrees, rto_ms } of figures.tests) {
    screen.done(point, `${formatSpan(age_ms).padStart(6)} back, counter ${counter_found} ${agrees ? tint(screen.look, 'good', 'agrees') : tint(screen.look, 'bad', 'does not agree')}, up in ${formatSpan(rto_ms)}`);
  }
  screen.done('meanwhile', `${figures.points_while_testing} new points; a loss would have cost ${formatSpan(figures.rpo_ms_max_while_testing)} at most`);
  screen.done('disk', `${formatBytes(figures.guest_disk_bytes)}, none of it copied`);
  screen.done('left over', figures.leftovers === 0 ? tint(screen.look, 'good', 'nothing') : tint(screen.look, 'bad', String(figures.leftovers)));
}
