/** Merges neighbouring history files as retention does. Not a suite. */
import type { Disk } from '../../host/disk.ts';
import { mergeHistory } from '../../replica-target/points/history-merge.ts';
import type { HistoryFile } from '../../replica-target/points/history-set.ts';
import type { FileGroupStore } from '../../replica-target/store/group-store.ts';
import { folder } from '../store/store-rig.ts';

/** False when the run may not be merged (any more). */
export async function realMerge(disk: Disk, store: FileGroupStore, run: readonly HistoryFile[]): Promise<boolean> {
  if (run.length < 2) return false;
  const stay = store.history.leave(run);
  if (stay === null) return false;
  try {
    const { file } = await mergeHistory({ disk, folder, groupId: store.groupId }, run);
    return await store.history.replace(run, file);
  } finally {
    stay();
  }
}
