/**
 * Reading an old point whole through NBD, against reading the plain replica through qemu-nbd: nbdcopy with the same options reads
 * both, in turns. Of the disk, which is full of data, the points since have changed a part in scattered blocks of 4 KiB: those
 * come from the history, one by one.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import { mibOf, type Benchmark } from './benchmark.ts';
import { startPointTarget } from './driven-roles.ts';
import { readIntoCache } from './disk-image.ts';
import { ratioOf, rounded, spreadOf } from './figures.ts';
import { makePointHistory } from './point-history.ts';
import { peakMib } from './process-usage.ts';
import { until } from './site.ts';

const pointBytes = 1024 * 1024;

export const viewRead: Benchmark = async ({ site, say, arguments: { runs, sizeBytes, pointCount } }) => {
  const groupsFolder = `${site.freshPath('view-read')}/groups`;
  await mkdir(dirname(groupsFolder));
  say(`making ${pointCount} points of ${pointBytes / 1024} KiB`);
  const history = await makePointHistory({ groupsFolder, sizeBytes, isFilled: true, pointCount, olderCount: 0, pointBytes, say });
  await readIntoCache(history.replicaPath);
  const target = await startPointTarget(site, groupsFolder);
  const socketPath = site.freshPath('peer');
  const peer = site.spawn('qemu-nbd', ['--persistent', '--shared=0', '--read-only', '--format=raw', '--export-name=disk', `--socket=${socketPath}`, history.replicaPath]);
  await until('qemu-nbd makes its socket', () => existsSync(socketPath), { running: peer });
  const uriOf = (back: number): string => {
    const { term, point } = history.pointBack(back);
    return `nbd+unix:///${history.name}/vda@${term}.${point}?socket=${target.socketPath}`;
  };
  const distances = [...new Set([0, 1, Math.min(10, pointCount), pointCount])];
  const uris = new Map<string, string>([['peer', `nbd+unix:///disk?socket=${socketPath}`], ...distances.map((back): [string, string] => [`${back}_back`, uriOf(back)])]);

  // The newest point is the replica: a view that read nothing, or something else, would be fast as well.
  const [plain, newest] = [site.freshPath('copy'), site.freshPath('copy')];
  await site.run('nbdcopy', [uris.get('peer')!, plain]);
  await site.run('nbdcopy', [uris.get('0_back')!, newest]);
  const hashOf = async (path: string): Promise<string> => createHash('sha256').update(await readFile(path)).digest('hex');
  if (await hashOf(plain) !== await hashOf(newest)) throw new Error('the newest point is not what the replica is');
  await rm(plain);
  await rm(newest);

  const times: Record<string, number[]> = {};
  for (let round = 0; round <= runs; round++) {
    for (const [who, uri] of round % 2 === 0 ? uris : [...uris].reverse()) {
      const fromMs = performance.now();
      await site.run('nbdcopy', [uri, 'null:']);
      const mibPerS = mibOf(sizeBytes) / ((performance.now() - fromMs) / 1000);
      say(`${round === 0 ? 'warm-up' : `round ${round}`}: ${who}: ${Math.round(mibPerS)} MiB/s`);
      if (round > 0) (times[who] ??= []).push(mibPerS);
    }
  }
  const spreads = Object.entries(times).map(([who, taken]) => ({ who, spread: spreadOf(taken) }));
  const plainSpread = spreads.find(({ who }) => who === 'peer')!.spread;
  const furthest = spreads.find(({ who }) => who === `${pointCount}_back`)!.spread;
  return {
    name: 'view-read', unit: 'MiB/s', ours: furthest.median, peer: plainSpread.median, ratio: ratioOf(furthest, plainSpread, false), runs,
    extras: {
      image_bytes: sizeBytes, points: pointCount, changed_share: rounded(1 - Math.exp(-pointCount * pointBytes / sizeBytes), 3),
      ...Object.fromEntries(spreads.map(({ who, spread }) => [`${who}_mib_per_s`, spread])),
      ...Object.fromEntries(spreads.filter(({ who }) => who !== 'peer').map(({ who, spread }) => [`${who}_ratio`, ratioOf(spread, plainSpread, false)])),
      rss_mib_peak: rounded(peakMib(target.running.pid), 0),
    },
    rows: spreads.map(({ who, spread }) => ({ what: who === 'peer' ? 'plain replica, qemu-nbd' : `point ${who.replaceAll('_', ' ')}`, unit: 'MiB/s', spread, ...(who === 'peer' ? {} : { ratio: ratioOf(spread, plainSpread, false) }) })),
    notes: [
      `nbdcopy to null:, the same for both; a disk of ${rounded(mibOf(sizeBytes), 0)} MiB full of data, in the page cache`,
      `ours: the point ${pointCount} back, ${pointBytes / 1024} KiB each in scattered blocks of 4 KiB: such a share of its blocks comes from the history; peer: the newest point, which is a plain file`,
    ],
  };
};
