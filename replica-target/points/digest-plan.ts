/**
 * Which digests to make next. Pure. A digest of level 1 covers 16 neighbouring history files, one of level 2 sixteen of those, and
 * so on: whatever the number n of files, a search from any boundary to the newest needs at most 15 of each level on either side.
 * Lower levels come first, older ones before newer ones.
 */
import { isSamePoint, type PointId } from '../../journal/point.ts';

/** Children of one digest. 16: a lookup in 10,000 files asks some 40 sources, and an index entry is written three times. */
export const digestFanout = 16;

export interface DigestPart { readonly from: PointId | null; readonly to: PointId; readonly isCovered: boolean }

/** `levels[0]`: history files; `levels[k]`: digests of level k, all in order. Digests of one level, each of sixteen parts from one of `firsts` on; null when none is to be made. */
export function planDigests(levels: readonly (readonly DigestPart[])[]): { readonly level: number; readonly firsts: readonly number[] } | null {
  for (const [below, parts] of levels.entries()) {
    const firsts: number[] = [];
    let count = 0;
    for (const [index, part] of parts.entries()) {
      if (part.isCovered) { count = 0; continue; }
      const before = parts[index - 1];
      count = count > 0 && before !== undefined && isSamePoint(before.to, part.from) ? count + 1 : 1;
      if (count < digestFanout) continue;
      firsts.push(index - digestFanout + 1);
      count = 0;
    }
    if (firsts.length > 0) return { level: below + 1, firsts };
  }
  return null;
}
