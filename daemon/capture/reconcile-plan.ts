/**
 * Decides what the bitmaps found in a guest are good for, given what the target holds: which deltas can still be cut, what is
 * to be merged, what is to be removed. Pure: guest-objects.ts finds and removes.
 *
 * It rests on one invariant: a bitmap named by point P holds at least everything that changed since P. So whichever set of our
 * bitmaps bears the name of the point that the target holds is right, whatever the crash; all others only cost. A bitmap that
 * QEMU does not vouch for, or that one disk has and another lacks, is right for nothing.
 */
import { formatPoint, isSamePoint, type PointId } from '../../journal/point.ts';
import type { FoundBitmap } from './guest-objects.ts';
import { bitmapName, ownPrefix, parseBitmapName, shortGroup, type BitmapRole } from './object-names.ts';

/** Of all our bitmaps: that of the target's compare blocks and of QEMU's own copy unit. */
export const bitmapGranularity = 65536;

export interface ReconcileInput {
  readonly groupId: string;
  readonly held: PointId | null;
  /** Parts of the unsealed delta behind `held` that the target holds durably. */
  readonly heldParts: number;
  readonly disks: readonly { readonly disk: number; readonly name: string; readonly trackNode: string }[];
  /** All bitmaps of the guest, ours or not, on whatever node. */
  readonly bitmaps: readonly FoundBitmap[];
}

export interface ReconcilePlan {
  readonly standing: { readonly standing: 'ready' } | { readonly standing: 'resync'; readonly why: string };
  /** Parts that the kept work bitmaps leave out; null: there are none, the next delta is cut by the point's bitmaps. */
  readonly workParts: number | null;
  /** The bitmaps of a cut that turned out to have become the point: each becomes the point's own. First of all. */
  readonly promotions: readonly { readonly disk: number; readonly node: string; readonly from: string; readonly to: string }[];
  /** Before the removals. */
  readonly merges: readonly { readonly node: string; readonly target: string; readonly source: string }[];
  readonly removals: readonly { readonly node: string; readonly name: string }[];
}

export function planReconcile(input: ReconcileInput): ReconcilePlan {
  const own = input.bitmaps.filter(({ name }) => name.startsWith(ownPrefix));
  const removeAllBut = (kept: ReadonlySet<string>): ReconcilePlan['removals'] => own
    .filter(({ node, name }) => !kept.has(`${node}\n${name}`)).map(({ node, name }) => ({ node, name }));
  const resync = (why: string): ReconcilePlan => ({ standing: { standing: 'resync', why }, workParts: null, promotions: [], merges: [], removals: removeAllBut(new Set()) });

  const { held } = input;
  if (held === null) return resync('the target holds nothing to build on');
  const point = findOnAll(input, own, { role: 'point', point: held });
  if ('why' in point) {
    // The target got it, and this daemon's earlier life did not hear of it.
    const cut = findOnAll(input, own, { role: 'cut', point: held });
    if ('why' in cut) return resync(point.why);
    const promotions = input.disks.map(({ disk, trackNode }) => (
      { disk, node: trackNode, from: bitmapName(input.groupId, disk, { role: 'cut', point: held }), to: bitmapName(input.groupId, disk, { role: 'point', point: held }) }));
    // What is promoted is gone by then, under its old name; a stray one of the new name was not good enough to be found.
    const gone = new Set(promotions.map(({ node, from }) => `${node}\n${from}`));
    return { standing: { standing: 'ready' }, workParts: null, promotions, merges: [], removals: removeAllBut(gone) };
  }

  const kept = new Set(point.bitmaps.map(({ node, name }) => `${node}\n${name}`));
  const merges: { node: string; target: string; source: string }[] = [];
  const workParts = newestWork(input, own, held);
  if (workParts !== null) {
    for (const { disk, trackNode } of input.disks) {
      const target = bitmapName(input.groupId, disk, { role: 'work', point: held, parts: workParts });
      const source = bitmapName(input.groupId, disk, { role: 'copy', point: held, parts: workParts });
      kept.add(`${trackNode}\n${target}`);
      if (own.some(({ node, name }) => node === trackNode && name === source)) merges.push({ node: trackNode, target, source });
    }
  }
  return { standing: { standing: 'ready' }, workParts, promotions: [], merges, removals: removeAllBut(kept) };
}

/** The work bitmaps that leave out most of what the target has already, and nothing that it has not. */
function newestWork(input: ReconcileInput, own: readonly FoundBitmap[], held: PointId): number | null {
  const candidates = new Set<number>();
  for (const { name } of own) {
    const parsed = parseBitmapName(name);
    if (parsed?.role === 'work' && isSamePoint(parsed.point, held) && parsed.parts > 0 && parsed.parts <= input.heldParts) candidates.add(parsed.parts);
  }
  for (const parts of [...candidates].sort((a, b) => b - a)) {
    if (!('why' in findOnAll(input, own, { role: 'work', point: held, parts }))) return parts;
  }
  return null;
}

/** The bitmap of this role on every disk, or why that is not to be had. */
function findOnAll(input: ReconcileInput, own: readonly FoundBitmap[], role: BitmapRole): { readonly bitmaps: readonly FoundBitmap[] } | { readonly why: string } {
  const bitmaps: FoundBitmap[] = [];
  for (const { disk, name, trackNode } of input.disks) {
    const wanted = bitmapName(input.groupId, disk, role);
    const found = own.find((bitmap) => bitmap.node === trackNode && bitmap.name === wanted);
    if (found === undefined) return { why: describeMissing(input, own, name, disk) };
    // libvirt puts an empty one of the same name on an overlay that it lays over the disk: it lacks all that came before.
    const twin = own.find((bitmap) => bitmap.node !== trackNode && bitmap.name === wanted);
    if (twin !== undefined) return { why: `the dirty bitmap of disk ${name} is on another image as well (${twin.node}): the disk was overlaid` };
    const flaw = flawOf(found);
    if (flaw !== null) return { why: `the dirty bitmap of disk ${name} ${flaw}` };
    bitmaps.push(found);
  }
  return bitmaps.length === 0 ? { why: 'the guest has no disks' } : { bitmaps };
}

function flawOf({ isInconsistent, isRecording, isBusy, granularity }: FoundBitmap): string | null {
  if (isInconsistent) return 'was not saved when QEMU ended';
  if (!isRecording) return 'has not been recording';
  if (isBusy) return 'is in use by someone else';
  if (granularity !== bitmapGranularity) return `has a granularity of ${granularity}`;
  return null;
}

function describeMissing(input: ReconcileInput, own: readonly FoundBitmap[], diskName: string, disk: number): string {
  const points = own.flatMap(({ name }) => {
    const parsed = parseBitmapName(name);
    return parsed?.role === 'point' && parsed.disk === disk && parsed.group === shortGroup(input.groupId) ? [formatPoint(parsed.point)] : [];
  });
  return points.length === 0
    ? `disk ${diskName} has no dirty bitmap of ours (its QEMU was started anew, or it was overlaid or replaced)`
    : `the dirty bitmap of disk ${diskName} is from point ${points.join(' and ')}, the target holds ${formatPoint(input.held!)}`;
}
