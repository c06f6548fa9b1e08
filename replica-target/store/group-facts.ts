/**
 * The two small files of a group: `group.json`, what it is and who may write to it, and `mark.json`, how far the replica is.
 * Terms and state live here and nowhere else; the catalog is only an index. Apart, because the mark moves with every batch.
 */
import { z } from 'zod';
import type { Disk } from '../../host/disk.ts';
import { pointKinds, type PointId } from '../../journal/point.ts';
import { cutFacts } from '../../journal/seal.ts';
import { safeName, wireDisk, wireHardware } from '../../journal/wire.ts';
import type { PointFacts } from './catalog.ts';
import { readChecked, replaceChecked } from './checked-json.ts';
import type { GroupFolder } from './group-folder.ts';
import { newer } from './store-fault.ts';

/** What this release writes and the newest that it reads. */
export const groupFormatVersion = 1;

const hex = (bytes: number) => z.string().regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`));
const count = z.number().int().nonnegative();
const pointId = z.object({ term: count, point: count });

const groupFacts = z.object({
  version: z.literal(groupFormatVersion),
  /** Names of features that a reader must know to use the group. None yet. */
  incompatible: z.array(z.string()),
  groupId: hex(16),
  name: safeName,
  sourceId: hex(16),
  /** Sources that the group belonged to in earlier terms. */
  formerSourceIds: z.array(hex(16)).default([]),
  term: count.min(1),
  /** A source below this term is refused even while the group is protected. A failover raises it, unless it is rolled back. */
  fencedBelow: count.min(1),
  state: z.enum(['protected', 'failed-over', 'committed']),
  seed: z.enum(['none', 'partial', 'done']),
  /** The images are a guest's own old disks, in its own place: what they held when the group was made, where that is known. */
  reclaimed: z.object({ point: pointId.nullable() }).nullable().default(null),
  seedDeltaId: hex(8).nullable(),
  /** A sync of the replica failed during the first sync: what its files read as may not be what the disk holds, so that every block counts as different. */
  isSeedDistrusted: z.boolean(),
  rpoMs: count,
  createdAtMs: count,
  disks: z.array(wireDisk),
  hardware: wireHardware,
});
export type GroupFacts = z.infer<typeof groupFacts>;

/** A point, as the small files keep it. */
export const pointFacts = z.object({
  ...pointId.shape, kind: z.enum(pointKinds), cutAtMs: count, arrivedAtMs: count, changedBytes: count, label: z.string().optional(), ...cutFacts.shape,
});

const appliedMark = z.object({
  version: z.literal(groupFormatVersion),
  applied: pointId.nullable(),
  /** Sizes of the replica's images at the mark; a disk that is not listed has none. */
  disks: z.array(z.object({ disk: count, sizeBytes: count })),
  /** Facts of `applied`: history may be given up to its very end, and then they are nowhere else. */
  point: pointFacts.optional(),
});
export interface AppliedMark {
  readonly applied: PointId | null;
  readonly disks: readonly { readonly disk: number; readonly sizeBytes: number }[];
  readonly point?: PointFacts | undefined;
}

export async function readFacts(disk: Disk, folder: GroupFolder): Promise<GroupFacts | null> {
  const facts = await readChecked(disk, folder.facts, groupFacts, groupFormatVersion);
  if (facts !== null && facts.incompatible.length > 0) throw newer(folder.facts, `it needs ${facts.incompatible.join(', ')}`);
  return facts;
}

export function writeFacts(disk: Disk, folder: GroupFolder, facts: GroupFacts): Promise<void> {
  return replaceChecked(disk, folder.facts, facts);
}

export async function readMark(disk: Disk, folder: GroupFolder): Promise<AppliedMark> {
  return await readChecked(disk, folder.mark, appliedMark, groupFormatVersion) ?? { applied: null, disks: [] };
}

export function writeMark(disk: Disk, folder: GroupFolder, mark: AppliedMark): Promise<void> {
  return replaceChecked(disk, folder.mark, { version: groupFormatVersion, ...mark });
}
