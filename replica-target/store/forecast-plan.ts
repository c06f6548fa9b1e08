/** When a volume will be full if it goes on as it did: the straight line through what was seen of its free space. Pure. */

export interface SpaceSeen { readonly atMs: number; readonly freeBytes: number }

/** A line through less says nothing, ms. */
const spanMsMin = 10 * 60_000;
/** Further away nobody can see, ms. */
const forecastMsMax = 366 * 86_400_000;

/** From the last of `seen` until only `keptBytes` are free, ms. Null: not known yet, or it does not shrink. */
export function planForecast(seen: readonly SpaceSeen[], keptBytes: number): number | null {
  const [first, last] = [seen[0], seen.at(-1)];
  if (first === undefined || last === undefined || last.atMs - first.atMs < spanMsMin) return null;
  if (last.freeBytes <= keptBytes) return 0;
  const middle = (of: (one: SpaceSeen) => number): number => seen.reduce((sum, one) => sum + of(one), 0) / seen.length;
  const [atMs, freeBytes] = [middle((one) => one.atMs), middle((one) => one.freeBytes)];
  const spread = seen.reduce((sum, one) => sum + (one.atMs - atMs) ** 2, 0);
  const bytesPerMs = seen.reduce((sum, one) => sum + (one.atMs - atMs) * (one.freeBytes - freeBytes), 0) / spread;
  const untilMs = bytesPerMs < 0 ? (keptBytes - last.freeBytes) / bytesPerMs : Infinity;
  return untilMs <= forecastMsMax ? untilMs : null;
}
