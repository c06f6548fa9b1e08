/**
 * The names of everything that the capture makes inside a QEMU: nodes, jobs and bitmaps. All begin with `afterimage-`, so that
 * what an earlier life left behind is found by name alone, whichever life it was. Pure.
 *
 * A bitmap that is named by a point means "at least everything that changed since that point": the invariant on which every decision
 * after a crash rests (reconcile-plan.ts). A node's name is never used twice in the life of a QEMU: QEMU reports a broken
 * quorum child at most once a second per name, so a name used again could hide a failure.
 */
import assert from 'node:assert/strict';
import { diskCountMax } from '../../journal/limits.ts';
import type { PointId } from '../../journal/point.ts';

export const ownPrefix = 'afterimage-';

/** QEMU's limit (block.c, `BlockDriverState.node_name[32]`). */
const nodeNameCharsMax = 31;

/**
 * `point`: changes since that point, which the target has acknowledged. `cut`: since a cut that may become that point; its number may be
 * used for another cut if it does not, so it must never outlive its QEMU. `work`: what of those is still to be sent, when parts of the delta are durable. `copy`: what a running round took from `work`. `pass`: changes
 * since a full pass began.
 */
export type BitmapRole =
  | { readonly role: 'point' | 'cut'; readonly point: PointId }
  | { readonly role: 'work' | 'copy'; readonly point: PointId; readonly parts: number }
  | { readonly role: 'pass' };

export type OwnBitmap = BitmapRole & { readonly group: string; readonly disk: number };

/** First 16 of the 32 hex digits: enough to tell groups apart, short enough to read in a list. */
export function shortGroup(groupId: string): string {
  assert(/^[0-9a-f]{32}$/.test(groupId), 'a group id is 32 lower-case hex digits');
  return groupId.slice(0, 16);
}

export function bitmapName(groupId: string, disk: number, role: BitmapRole): string {
  const start = `${ownPrefix}${shortGroup(groupId)}-${disk}`;
  if (role.role === 'pass') return `${start}-pass`;
  const since = `${start}-${role.point.term}-${role.point.point}`;
  if (role.role === 'point') return since;
  return 'parts' in role ? `${since}-${role.role}-${role.parts}` : `${since}-${role.role}`;
}

const bitmapPattern = /^afterimage-([0-9a-f]{16})-(\d{1,3})-(?:(pass)|(\d{1,15})-(\d{1,15})(?:-(cut)|-(work|copy)-(\d{1,9}))?)$/;

/** Undefined: none of this pattern (it may still begin with our prefix: then it is a stranger of ours, to be removed). */
export function parseBitmapName(name: string): OwnBitmap | undefined {
  const found = bitmapPattern.exec(name);
  if (found === null) return undefined;
  const [, group, disk, pass, term, point, cut, part, parts] = found;
  const whose = { group: group!, disk: Number(disk) };
  if (pass !== undefined) return { ...whose, role: 'pass' };
  const since = { term: Number(term), point: Number(point) };
  if (part === undefined) return { ...whose, role: cut === undefined ? 'point' : 'cut', point: since };
  return { ...whose, role: part as 'work' | 'copy', point: since, parts: Number(parts) };
}

const estimatePrefix = `${ownPrefix}estimate-`;

/** Of `afterimage estimate`: changes of the disk since the window began. No point's: whoever reconciles removes it, as does the next estimate. */
export function estimateBitmapName(disk: number, windowMs: number): string {
  return `${estimatePrefix}${disk}-${windowMs}`;
}

export function isEstimateBitmap(name: string): boolean {
  return name.startsWith(estimatePrefix);
}

/** Numbers cycles, across restarts of the daemon too: wall-clock ms in base 36, never the same twice (8 characters until the year 2059). */
export class CycleStamps {
  #last = 0;

  next(nowMs: number): string {
    this.#last = Math.max(Math.floor(nowMs), this.#last + 1);
    return this.#last.toString(36);
  }
}

/** What a node or job is within its cycle; one letter, as node names are short. */
export type NodePart = 'top' | 'quorum' | 'image' | 'bound' | 'file' | 'null' | 'filter' | 'pass' | 'job' | 'probe' | 'shake' | 'shake-file' | LogPartName;
/** Of a write log: the filter in the guest's path, and what it logs to, from above. */
type LogPartName = 'log-filter' | 'log-under' | 'log' | 'log-bound' | 'log-file' | 'log-null';
const partLetters: Readonly<Record<NodePart, string>> = {
  top: 't', quorum: 'q', image: 'i', bound: 'b', file: 's', null: 'z', filter: 'f', pass: 'p', job: 'j', probe: 'x', shake: 'h', 'shake-file': 'k',
  'log-filter': 'w', 'log-under': 'u', log: 'l', 'log-bound': 'm', 'log-file': 'n', 'log-null': 'o',
};

const logNodePattern = /^afterimage-([0-9a-f]{4})-([0-9a-z]+)-(\d{1,3})([wulmno])$/;

/** Undefined: no node of a write log. */
export function parseLogNode(name: string): { readonly stamp: string; readonly disk: number; readonly part: LogPartName } | undefined {
  const found = logNodePattern.exec(name);
  if (found === null) return undefined;
  const part = (Object.keys(partLetters) as NodePart[]).find((one) => partLetters[one] === found[4]) as LogPartName;
  return { stamp: found[2]!, disk: Number(found[3]), part };
}

/** `afterimage-<4 of the group>-<cycle>-<disk><part>`. */
export function nodeName(groupId: string, stamp: string, disk: number, part: NodePart): string {
  assert(disk >= 0 && disk < diskCountMax);
  const name = `${ownPrefix}${shortGroup(groupId).slice(0, 4)}-${stamp}-${disk}${partLetters[part]}`;
  assert(name.length <= nodeNameCharsMax, `node name too long: ${name}`);
  return name;
}
