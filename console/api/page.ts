/**
 * Pages of a list that grows at one end and is pruned anywhere: a cursor names the last item that was given, not a place in the
 * list, so that nothing is given twice or left out because something came or went meanwhile. Pure.
 */
import { z } from 'zod';
import { Fault } from '../../journal/fault.ts';
import { comparePoints, type PointId } from '../../journal/point.ts';

export const pageItemsDefault = 100;
export const pageItemsMax = 10_000;

export const pageQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(pageItemsMax).optional().meta({ description: `how many at most; ${pageItemsDefault} when left out` }),
  cursor: z.string().min(1).max(200).optional().meta({ description: '`next` of the page before' }),
  order: z.enum(['newest', 'oldest']).optional().meta({ description: 'which come first; the newest when left out' }),
});
export type PageQuery = z.output<typeof pageQuery>;

export interface Page<T> {
  readonly items: readonly T[];
  /** For the following page; null: there is none now. */
  readonly next: string | null;
}

/** `all`: oldest first. Fault REQUEST_INVALID for a cursor that is none of ours. */
export function pageOfPoints<T extends PointId>(all: readonly T[], { limit = pageItemsDefault, cursor, order = 'newest' }: PageQuery): Page<T> {
  const ordered = order === 'oldest' ? all : [...all].reverse();
  const after = cursor === undefined ? null : readPointCursor(cursor);
  const rest = after === null ? ordered : ordered.filter((one) => (order === 'oldest' ? comparePoints(one, after) > 0 : comparePoints(one, after) < 0));
  const items = rest.slice(0, limit);
  const last = items.at(-1);
  return { items, next: last === undefined || rest.length <= limit ? null : pointCursor(last) };
}

function pointCursor({ term, point }: PointId): string {
  return Buffer.from(`p1:${term}.${point}`).toString('base64url');
}

function readPointCursor(cursor: string): PointId {
  const found = /^p1:(\d{1,10})\.(\d{1,16})$/.exec(Buffer.from(cursor, 'base64url').toString('latin1'));
  if (found === null) throw new Fault('REQUEST_INVALID', 'cursor: none that this daemon gave out', { cursor });
  return { term: Number(found[1]), point: Number(found[2]) };
}

export function pageResponse<T extends z.ZodType>(item: T) {
  return z.looseObject({ items: z.array(item), next: z.string().nullable() });
}
