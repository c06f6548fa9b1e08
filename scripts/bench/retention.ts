/**
 * Thinning a day of points, one a second, to hourly ones: all but the newest have left the window at once, which is the most that
 * can be asked. How fast history is read, and the peak of the memory of the process that does it, are stated.
 */
import { mkdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Benchmark } from './benchmark.ts';
import { ratioOf, rounded, spreadOf } from './figures.ts';
import { makePointHistory } from './point-history.ts';
import { told } from './told.ts';

export interface ThinningFacts { readonly groupsFolder: string }

interface HistorySize { readonly files: number; readonly bytes: number }

export interface Thinned {
  readonly seconds: number;
  /** Sizes of the files that were merged, those that came of a merge before included. */
  readonly readBytes: number;
  readonly mergeCount: number;
  /** While thinning; and before it, when the group was opened. */
  readonly peakMib: number;
  readonly openedMib: number;
  readonly before: HistorySize;
  readonly after: HistorySize;
}

/** The project's own limits: bytes of history read in a second, and memory, MiB. */
const speedMin = 200;
const memoryMibMax = 256;
const blockBytes = 4096;
/** What the points are scattered over: as much as they change, at least this much. */
const diskBytesMin = 1024 ** 3;

export const retention: Benchmark = async ({ site, say, arguments: { sizeBytes, pointCount, runs } }) => {
  const pointBytes = Math.max(blockBytes, Math.floor(sizeBytes / pointCount / blockBytes) * blockBytes);
  const speeds: number[] = [];
  const peaks: number[] = [];
  let last: Thinned | null = null;
  for (let round = 1; round <= runs; round++) {
    const groupsFolder = `${site.freshPath('retention')}/groups`;
    await mkdir(dirname(groupsFolder));
    say(`round ${round}: making ${pointCount} points of ${pointBytes / 1024} KiB`);
    await makePointHistory({ groupsFolder, sizeBytes: Math.max(diskBytesMin, sizeBytes), isFilled: false, pointCount: 1, olderCount: pointCount - 1, pointBytes, say });
    last = await told<Thinned>(site, 'thinning-target', { groupsFolder } satisfies ThinningFacts);
    if (last.mergeCount === 0) throw new Error('nothing was thinned');
    speeds.push(last.readBytes / 1e6 / last.seconds);
    peaks.push(last.peakMib);
    say(`round ${round}: ${last.before.files} files to ${last.after.files} in ${last.seconds.toFixed(1)} s, ${speeds.at(-1)!.toFixed(0)} MB/s, ${last.peakMib.toFixed(0)} MiB`);
    await rm(dirname(groupsFolder), { recursive: true });
  }
  const [speed, memory, least] = [spreadOf(speeds, 1), spreadOf(peaks, 1), spreadOf([speedMin])];
  const { before, after, mergeCount, readBytes, seconds, openedMib } = last!;
  return {
    name: 'retention', unit: 'MB/s', ours: speed.median, peer: speedMin, ratio: ratioOf(speed, least, false), runs,
    extras: {
      peak_rss_mib: memory.median, peak_rss_limit_mib: memoryMibMax, peak_rss_mib_at_opening: rounded(openedMib, 0), points: pointCount, point_bytes: pointBytes,
      files_before: before.files, files_after: after.files, history_bytes_before: before.bytes, history_bytes_after: after.bytes, merges: mergeCount, read_bytes: readBytes, seconds: rounded(seconds, 1),
    },
    rows: [{ what: 'history read while thinning', unit: 'MB/s', spread: speed, ratio: ratioOf(speed, least, false) }, { what: 'peak of resident memory', unit: 'MiB', spread: memory }],
    notes: [
      `peer: the least of ${speedMin} MB/s that the project asks of itself; memory: at most ${memoryMibMax} MiB`,
      'read: sizes of the files that were merged; many small files are merged in two passes, and both count in bytes and in time',
      'history made without syncing; merging syncs every file. Its files are in the page cache as far as it holds them',
    ],
  };
};
