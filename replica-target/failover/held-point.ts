/** A point that is held for a guest that was booted from it, and letting go of it, also when what died had taken the hold and not noted its id. */
import { randomBytes } from 'node:crypto';
import { pointExportName } from '../points/nbd-exports.ts';
import type { GroupPoints, RestorePoint } from '../points/points.ts';
import type { GroupStore } from '../store/store.ts';
import type { FailoverNote, NotedView } from './failover-note.ts';

export interface NotedHold {
  /** Unique among all holds. */
  readonly holdReason: string;
  readonly holdId: string | null;
}

/** Noted first, then held: whatever dies in between, the hold is found by its reason. `note`: durable when it resolves. */
export async function holdPoint(store: GroupStore, failover: FailoverNote, chosen: RestorePoint, note: (failover: FailoverNote) => Promise<void>): Promise<FailoverNote> {
  const points = store.restorePoints;
  const view = await points.open(chosen);
  const { disks } = view;
  await view.release();
  const holdReason = `failover of ${failover.group} (${randomBytes(4).toString('hex')})`;
  const noting: NotedView = {
    holdReason, holdId: null, isHome: false,
    disks: disks.map((disk) => ({ ...disk, exportName: pointExportName(store.groupId, disks, disk, chosen) })),
  };
  await note({ ...failover, view: noting });
  const { holdId } = await points.hold(chosen, holdReason, null);
  const held = { ...failover, point: { term: chosen.term, point: chosen.point }, view: { ...noting, holdId } };
  await note(held);
  return held;
}

/** Durable when it resolves; a hold that is not there any more is fine, and so is a group (null) that was forgotten with its holds. */
export async function releaseHold(points: GroupPoints | null, { holdReason, holdId }: NotedHold): Promise<void> {
  if (points === null) return;
  const ids = new Set(points.holds().filter(({ reason }) => reason === holdReason).map((hold) => hold.holdId));
  if (holdId !== null) ids.add(holdId);
  for (const id of ids) await points.release(id);
}
