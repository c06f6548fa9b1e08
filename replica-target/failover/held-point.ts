/** Letting go of a point that was held for a guest, also when what died had taken the hold and not noted its id. */
import type { GroupPoints } from '../points/points.ts';

export interface NotedHold {
  /** Unique among all holds. */
  readonly holdReason: string;
  readonly holdId: string | null;
}

/** Durable when it resolves; a hold that is not there any more is fine, and so is a group (null) that was forgotten with its holds. */
export async function releaseHold(points: GroupPoints | null, { holdReason, holdId }: NotedHold): Promise<void> {
  if (points === null) return;
  const ids = new Set(points.holds().filter(({ reason }) => reason === holdReason).map((hold) => hold.holdId));
  if (holdId !== null) ids.add(holdId);
  for (const id of ids) await points.release(id);
}
