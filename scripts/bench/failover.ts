/**
 * From the command to the guest's processors running: a real lab guest is protected and lost, and is failed over again and again, to its newest point
 * and to an older one, each rolled back afterwards. The state machine's durable steps are in it: drain, note, term, overlays, the start of QEMU.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { formatPoint } from '../../journal/point.ts';
import { startLabGuest, type LabGuest } from '../lab/lab-guest.ts';
import type { Benchmark } from './benchmark.ts';
import { startSource, startTarget, untilProtected } from './daemons.ts';
import { ratioOf, spreadOf, type Spread } from './figures.ts';
import { until } from './site.ts';

/** The project's own limits, ms. */
const newestLimitMs = 1000;
const olderLimitMs = 2000;
const groupLimitMs = 15_000;
const groupGuests = 10;
const groupDiskBytes = 32 * 1024 ** 2;
const name = 'web1';
/** Some that lie behind a few applied batches. */
const pointsMin = 12;

export const failover: Benchmark = async (bench) => {
  const { site, say, arguments: { runs, sizeBytes } } = bench;
  const disk = site.path('guest.raw');
  await promisify(execFile)('qemu-img', ['create', '-q', '-f', 'raw', disk, String(sizeBytes)]);
  const target = await startTarget(site);
  const source = await startSource(site, (await target.client.invite()).token);
  const guest = await startLabGuest({ mode: 'counter', churn: 1024, timeLimitMs: 600_000, disks: [{ path: disk, format: 'raw' }], socketFolder: site.folder });
  try {
    await guest.waitForLine(/^AF COUNTER 5 /, 120_000);
    await source.client.protect({ name, qmpPath: guest.qmpPath, rpoMs: 1000 });
    await untilProtected(source, name);
    await until(`${pointsMin} points`, async () => (await target.client.points(name)).length >= pointsMin, { running: target.running, limitMs: 300_000, everyMs: 200 });
  } finally {
    await guest.kill();
    await source.running.end();
  }
  const group = await failGroupOver(bench, target);
  const points = await target.client.points(name);
  const older = formatPoint(points[Math.floor(points.length / 3)]!);
  const taken: Record<'newest' | 'older', number[]> = { newest: [], older: [] };
  for (let round = 0; round <= runs; round++) {
    for (const [what, at] of [['newest', undefined], ['older', older]] as const) {
      const fromMs = performance.now();
      await target.client.failover({ group: name, ...(at === undefined ? {} : { at }) });
      const tookMs = performance.now() - fromMs;
      await target.client.stopFailover(name, true);
      say(`${round === 0 ? 'warm-up' : `round ${round}`}: ${what}: ${tookMs.toFixed(0)} ms`);
      if (round > 0) taken[what].push(tookMs);
    }
  }
  const newest = spreadOf(taken.newest, 0);
  const olderOne = spreadOf(taken.older, 0);
  const within = (spread: Spread, limitMs: number): ReturnType<typeof ratioOf> => ratioOf(spread, spreadOf([limitMs]), true);
  return {
    name: 'failover', unit: 'ms', ours: newest.median, peer: newestLimitMs, ratio: within(newest, newestLimitMs), runs,
    extras: { newest_ms: newest, older_ms: olderOne, older_limit_ms: olderLimitMs, guest_disk_bytes: sizeBytes, points: points.length, group_of_ten_ms: group, group_limit_ms: groupLimitMs },
    rows: [
      { what: 'newest point', unit: 'ms', spread: newest, ratio: within(newest, newestLimitMs) },
      { what: `point ${older} of ${points.length}`, unit: 'ms', spread: olderOne, ratio: within(olderOne, olderLimitMs) },
      { what: `a group of ${groupGuests} guests`, unit: 'ms', spread: group, ratio: within(group, groupLimitMs) },
    ],
    notes: [`from the request on the control socket to its answer, when the guest's processors run; peer: the limits of ${newestLimitMs}, ${olderLimitMs} and ${groupLimitMs} ms that the project sets itself`],
  };
};

/** Guests that are one group, lost together: until the processors of all run. */
async function failGroupOver({ site, say, arguments: { runs } }: Parameters<Benchmark>[0], target: Awaited<ReturnType<typeof startTarget>>): Promise<Spread> {
  const source = await startSource(site, (await target.client.invite()).token);
  const guests: LabGuest[] = [];
  try {
    for (let at = 0; at < groupGuests; at += 1) {
      const disk = site.path(`member${at}.raw`);
      await promisify(execFile)('qemu-img', ['create', '-q', '-f', 'raw', disk, String(groupDiskBytes)]);
      guests.push(await startLabGuest({ mode: 'counter', churn: 16, append: 'af.pace=500', timeLimitMs: 900_000, memoryMiB: 128, disks: [{ path: disk, format: 'raw', iothread: at % 2 === 1 }] }));
    }
    for (const guest of guests) await guest.waitForLine(/^AF COUNTER 2 /, 180_000);
    const members = guests.map(({ qmpPath }, at) => ({ name: `member${at}`, qmpPath }));
    await source.client.protect({ name: 'ten', qmpPath: members[0]!.qmpPath, members, rpoMs: 2000 });
    await untilProtected(source, 'ten');
    await until('points of the group', async () => (await target.client.points('ten')).length >= 3, { running: target.running, limitMs: 300_000, everyMs: 200 });
    const { points } = await target.client.timeline('ten');
    say(`a group of ${groupGuests}: its guests are paused for ${points.map(({ pausedMs }) => pausedMs ?? 0).join(', ')} ms for a point`);
  } finally {
    for (const guest of guests) await guest.kill();
    await source.running.end();
  }
  const taken: number[] = [];
  for (let round = 0; round <= runs; round += 1) {
    const fromMs = performance.now();
    await target.client.failover({ group: 'ten' });
    const tookMs = performance.now() - fromMs;
    await target.client.stopFailover('ten', true);
    say(`${round === 0 ? 'warm-up' : `round ${round}`}: the group: ${tookMs.toFixed(0)} ms`);
    if (round > 0) taken.push(tookMs);
  }
  return spreadOf(taken, 0);
}
