/** The points of the group that is looked at: all of them once, and then what is new whenever the report says that there is a newer one. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { formatPoint } from '../../journal/point.ts';
import type { RestorePoint } from '../../replica-target/points/points.ts';
import type { GroupStoreReport } from '../../replica-target/store/store.ts';
import { call, messageOf, pathOf } from './api.ts';
import { joinPoints } from './point-series-plan.ts';

/** What a page draws at the most; older ones are had from the command line. */
export const pointsShownMax = 5_000;
/** Between two questions for what is new, ms, however fast points come. */
const askMsMin = 1_500;
/** What changed of known points (held, thinned, proven) is seen so often, ms. */
const wholeMs = 60_000;

interface PageOfPoints { readonly items: readonly RestorePoint[] }

export function useGroupPoints(group: GroupStoreReport): { readonly points: readonly RestorePoint[]; readonly trouble: string | null; readonly again: () => void } {
  const [points, setPoints] = useState<readonly RestorePoint[]>([]);
  const [trouble, setTrouble] = useState<string | null>(null);
  const [turn, setTurn] = useState(0);
  const wholeAt = useRef(0);
  const newest = group.newest === null ? '' : formatPoint(group.newest);
  useEffect(() => {
    let isOver = false;
    const ask = async (): Promise<void> => {
      const isWhole = wholeAt.current === 0 || Date.now() - wholeAt.current > wholeMs;
      try {
        const { items } = await call<PageOfPoints>(`${pathOf('groups', group.groupId, 'points')}?order=newest&limit=${isWhole ? pointsShownMax : 50}`);
        if (isOver) return;
        const anew = [...items].reverse();
        if (isWhole) wholeAt.current = Date.now();
        setPoints((known) => (isWhole ? anew : joinPoints(known, anew, pointsShownMax)));
        setTrouble(null);
      } catch (error) {
        if (!isOver) setTrouble(messageOf(error));
      }
    };
    const timer = setTimeout(() => { void ask(); }, wholeAt.current === 0 ? 0 : askMsMin);
    return () => { isOver = true; clearTimeout(timer); };
  }, [group.groupId, newest, group.pointCount, turn]);
  return { points, trouble, again: () => { wholeAt.current = 0; setTurn((now) => now + 1); } };
}
