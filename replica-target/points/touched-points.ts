/**
 * Which restore points need a damaged place: those whose view reads it. A view takes the oldest before-image since its boundary,
 * so a damaged one is needed only by points from where an older file covers the same bytes no more. Says too many rather than
 * too few where it would take long to know better.
 */
import type { Disk } from '../../host/disk.ts';
import { ExtentSet } from '../../journal/extents.ts';
import { comparePoints, type PointId } from '../../journal/point.ts';
import type { GroupFolder } from '../store/group-folder.ts';
import { HistoryReader } from '../store/history-reader.ts';
import { startOf } from './history-chain-plan.ts';
import type { HistoryFile } from './history-set.ts';

export interface DamagedPlace { readonly disk: number; readonly offset: number; readonly length: number }

/** Points from `from` on, up to and without `before` (null: to the newest). */
export interface PointSpan { readonly from: PointId; readonly before: PointId | null }

export function isInSpan(point: PointId, { from, before }: PointSpan): boolean {
  return comparePoints(point, from) >= 0 && (before === null || comparePoints(point, before) < 0);
}

/** Files looked into for one damaged place; beyond, older points count as touched. */
const filesMax = 256;

/**
 * `files`: the line of history, oldest first. `place` null: everything in it. `index`: of the damaged file; the count for the
 * replica, which is behind all of them.
 */
export async function spanOf(disk: Disk, folder: GroupFolder, files: readonly HistoryFile[], index: number, place: DamagedPlace | null): Promise<PointSpan> {
  const before = files[index]?.to ?? null;
  const oldest = startOf(files[0]?.from ?? null);
  if (place === null) return { from: oldest, before };
  const left = ExtentSet.of([{ start: place.offset, end: place.offset + place.length }]);
  for (let older = index - 1; older >= Math.max(0, index - filesMax); older--) {
    const file = files[older]!;
    const reader = await HistoryReader.open(disk, folder, file.name);
    try {
      for (let run = 0; run < reader.count; run++) {
        const entry = reader.entry(run);
        if (entry.disk === place.disk) left.remove(entry.offset, entry.offset + entry.length);
      }
    } finally {
      await reader.close();
    }
    if (left.count === 0) return { from: file.to, before };
  }
  return { from: oldest, before };
}
