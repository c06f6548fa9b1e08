/**
 * The ways in which a person names a point, and which point of a list is meant. Pure; it reads no clock (the caller says what
 * time it is) and opens nothing.
 *
 * | text | means |
 * | --- | --- |
 * | `newest` | the newest point |
 * | `before-suspicion` | the newest point from before what is suspected began (suspicion/) |
 * | `TERM.POINT` | that point |
 * | `POINT` | that point of the newest term |
 * | `10:42:07`, `10:42` | the newest point not after the last time that it was that late here |
 * | `2026-11-23T10:42:07`, `2026-11-23 10:42` | the newest point not after that local time |
 * | `2026-11-23T10:42:07Z`, `…+02:00` | the newest point not after that instant |
 * | `-15m`, `-2h30m`, `-1d`, `-45s` | the newest point not after that long ago |
 * | `label:TEXT`, or any other text | the newest point with exactly that label |
 *
 * Local times are those of the process that reads them: the command line turns them into instants before it asks the target
 * ({@link pinSelector}); only in the name of an NBD export are they the target's. A local time that a change of the clocks made
 * happen twice or never is refused with the instants that may be meant: which one is for the person to say.
 * Invariant: whatever is chosen by time was cut at or before that time.
 */
import { Fault } from '../../journal/fault.ts';
import { formatPoint } from '../../journal/point.ts';
import type { StoredPoint } from '../store/store.ts';

export type PointSelector =
  | { readonly by: 'newest' }
  | { readonly by: 'before-suspicion' }
  | { readonly by: 'number'; /** Null: the newest one. */ readonly term: number | null; readonly point: number }
  | { readonly by: 'time'; /** Wall clock, ms. */ readonly atMs: number }
  | { readonly by: 'label'; readonly label: string };

/** How far ahead of the clock a time may lie: the clocks of source and target differ a little, a mistyped year by much, ms. */
const aheadMsMax = 5 * 60_000;
const secondMs = 1000;
const minuteMs = 60 * secondMs;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
/** Clocks are changed by at most two hours, in steps of a quarter (Lord Howe Island: half an hour). */
const clockChangeMsMax = 2 * hourMs;
const clockChangeStepMs = 15 * minuteMs;

const number = /^(?:(\d{1,15})\.)?(\d{1,15})$/;
const ago = /^-(?=\d)(?:(\d{1,5})d)?(?:(\d{1,6})h)?(?:(\d{1,8})m)?(?:(\d{1,10})s)?$/;
const timeOfDay = /^(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,3}))?)?$/;
const dateTime = /^(\d{4})-(\d{2})-(\d{2})[T ](\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,3}))?)?(Z|[+-]\d{2}:?\d{2})?$/;
const labelPrefix = 'label:';

/** Fault POINT_UNKNOWN for a time that is none, or more than one. */
export function readSelector(text: string, nowMs: number): PointSelector {
  const trimmed = text.trim();
  if (trimmed === '') throw new Fault('POINT_UNKNOWN', 'no point was named: expected newest, a number, a time, -15m or a label', { selector: text });
  if (trimmed.startsWith(labelPrefix)) return { by: 'label', label: trimmed.slice(labelPrefix.length) };
  if (trimmed === 'newest' || trimmed === 'before-suspicion') return { by: trimmed };
  const numbered = number.exec(trimmed);
  if (numbered !== null) return { by: 'number', term: numbered[1] === undefined ? null : Number(numbered[1]), point: Number(numbered[2]) };
  const before = ago.exec(trimmed);
  if (before !== null) {
    const [days, hours, minutes, seconds] = before.slice(1).map((part) => Number(part ?? 0)) as [number, number, number, number];
    return { by: 'time', atMs: nowMs - days * dayMs - hours * hourMs - minutes * minuteMs - seconds * secondMs };
  }
  const atMs = readTime(trimmed, nowMs);
  if (atMs === null) return { by: 'label', label: trimmed };
  if (atMs > nowMs + aheadMsMax) throw new Fault('POINT_UNKNOWN', `${trimmed} has not been yet: it is ${instant(nowMs)}`, { selector: text, atMs, nowMs });
  return { by: 'time', atMs };
}

/** The same point, named so that it means the same at another time and in another zone. Fault POINT_UNKNOWN as {@link readSelector}. */
export function pinSelector(text: string, nowMs: number): string {
  const selector = readSelector(text, nowMs);
  return selector.by === 'time' ? instant(selector.atMs) : text.trim();
}

/** `points`: newest last. Fault POINT_UNKNOWN, which says what can be had. */
export function selectPoint<P extends StoredPoint>(points: readonly P[], selector: PointSelector, group: string): P {
  const found = find(points, selector);
  if (found !== undefined) return found;
  const [oldest, newest] = [points[0], points.at(-1)];
  if (oldest === undefined || newest === undefined) throw new Fault('POINT_UNKNOWN', `${group} has no point yet`, { group, pointCount: 0 });
  throw new Fault('POINT_UNKNOWN', `${group} has ${lacking(selector, newest)}; ${offered(points, oldest, newest)}`, {
    group, pointCount: points.length, oldest: told(oldest), newest: told(newest), labels: labelsOf(points).slice(-labelsTold),
  });
}

/** {@link readSelector} and {@link selectPoint} in one. */
export function choosePoint<P extends StoredPoint>(points: readonly P[], text: string, nowMs: number, group: string): P {
  return selectPoint(points, readSelector(text, nowMs), group);
}

/** Whether the name means the same point for as long as that point can be had. A label may be given to a newer point. */
export function isFixed(selector: PointSelector): boolean {
  return selector.by === 'number' && selector.term !== null;
}

function find<P extends StoredPoint>(points: readonly P[], selector: PointSelector): P | undefined {
  switch (selector.by) {
    case 'newest': return points.at(-1);
    case 'before-suspicion': {
      const suspect = points.findIndex(isSuspect);
      return suspect < 1 ? undefined : points[suspect - 1];
    }
    case 'number': {
      const term = selector.term ?? points.at(-1)?.term;
      return points.find((point) => point.term === term && point.point === selector.point);
    }
    case 'time': return points.findLast(({ cutAtMs }) => cutAtMs <= selector.atMs);
    case 'label': return points.findLast(({ label }) => label === selector.label);
    default: return selector satisfies never;
  }
}

function isSuspect(point: StoredPoint & { readonly isSuspect?: true }): boolean {
  return point.isSuspect === true;
}

function lacking(selector: PointSelector, newest: StoredPoint): string {
  switch (selector.by) {
    case 'newest': return 'no point';
    case 'before-suspicion': return 'nothing that is suspected, or no point from before it';
    case 'number': return `no point ${formatPoint({ term: selector.term ?? newest.term, point: selector.point })}, or has it no longer`;
    case 'time': return `no point from ${instant(selector.atMs)} or before`;
    case 'label': return `no point labelled ${JSON.stringify(selector.label)}`;
    default: return selector satisfies never;
  }
}

/** As many labels as fit a line or two. */
const labelsTold = 5;

function offered(points: readonly StoredPoint[], oldest: StoredPoint, newest: StoredPoint): string {
  if (points.length === 1) return `there is ${formatPoint(newest)}, cut ${instant(newest.cutAtMs)}`;
  const labels = labelsOf(points).slice(-labelsTold).map((label) => JSON.stringify(label));
  return `there are ${points.length}, from ${formatPoint(oldest)} (cut ${instant(oldest.cutAtMs)}) to ${formatPoint(newest)} (cut ${instant(newest.cutAtMs)})${labels.length === 0 ? '' : `, labelled among others ${labels.join(', ')}`}`;
}

function labelsOf(points: readonly StoredPoint[]): string[] {
  return [...new Set(points.flatMap(({ label }) => (label === undefined || label === '' ? [] : [label])))];
}

function told({ term, point, cutAtMs }: StoredPoint): { readonly point: string; readonly cutAtMs: number } {
  return { point: formatPoint({ term, point }), cutAtMs };
}

/** Null: no time. */
function readTime(text: string, nowMs: number): number | null {
  const daily = timeOfDay.exec(text);
  if (daily !== null) {
    const [hour, minute, second, ms] = clockOf(daily.slice(1));
    const now = new Date(nowMs);
    for (const daysBack of [0, 1]) {
      const atMs = localTime(text, now.getFullYear(), now.getMonth(), now.getDate() - daysBack, hour, minute, second, ms);
      if (atMs <= nowMs) return atMs;
    }
    return null;
  }
  const dated = dateTime.exec(text);
  if (dated === null) return null;
  const [year, month, day] = dated.slice(1, 4).map(Number) as [number, number, number];
  const [hour, minute, second, ms] = clockOf(dated.slice(4, 8));
  const zone = dated[8];
  if (zone === undefined) return localTime(text, year, month - 1, day, hour, minute, second, ms);
  const utcMs = Date.UTC(year, month - 1, day, hour, minute, second, ms);
  const back = new Date(utcMs);
  if (back.getUTCFullYear() !== year || back.getUTCMonth() !== month - 1 || back.getUTCDate() !== day || back.getUTCHours() !== hour || back.getUTCMinutes() !== minute || back.getUTCSeconds() !== second) throw noTime(text);
  return utcMs - zoneMs(zone);
}

/** Hour, minute, second, ms; what is left out is zero. */
function clockOf([hour, minute, second, fraction]: readonly (string | undefined)[]): [number, number, number, number] {
  return [Number(hour), Number(minute), Number(second ?? 0), Number((fraction ?? '').padEnd(3, '0'))];
}

function zoneMs(zone: string): number {
  if (zone === 'Z') return 0;
  const minutes = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(-2));
  return (zone.startsWith('-') ? -minutes : minutes) * minuteMs;
}

/** Day and month may be out of their range as far as {@link Date} takes them. Refuses what the clocks here showed twice, or never. */
function localTime(text: string, year: number, month: number, day: number, hour: number, minute: number, second: number, ms: number): number {
  // Of the day alone first: `day` may be the zeroth of a month, meaning the last of the one before.
  const date = new Date(year, month, day, 12);
  if (hour > 23 || minute > 59 || second > 59 || (day > 0 && (date.getMonth() !== month || date.getFullYear() !== year))) throw noTime(text);
  const isShownAt = (atMs: number): boolean => {
    const at = new Date(atMs);
    return at.getDate() === date.getDate() && at.getMonth() === date.getMonth() && at.getHours() === hour && at.getMinutes() === minute && at.getSeconds() === second;
  };
  const guessMs = new Date(date.getFullYear(), date.getMonth(), date.getDate(), hour, minute, second, ms).getTime();
  const shownMs: number[] = [];
  for (let shiftMs = -clockChangeMsMax; shiftMs <= clockChangeMsMax; shiftMs += clockChangeStepMs) {
    if (isShownAt(guessMs + shiftMs)) shownMs.push(guessMs + shiftMs);
  }
  if (shownMs.length === 1) return shownMs[0]!;
  const facts = { selector: text, instants: shownMs.map(instant) };
  if (shownMs.length === 0) throw new Fault('POINT_UNKNOWN', `the clocks here were put forward over ${text}: it never was; name an instant with its zone, such as ${instant(guessMs)}`, facts);
  throw new Fault('POINT_UNKNOWN', `the clocks here showed ${text} twice: name ${shownMs.map(instant).join(' or ')}`, facts);
}

function noTime(text: string): Fault {
  return new Fault('POINT_UNKNOWN', `${text} is no time of any day`, { selector: text });
}

function instant(ms: number): string {
  const text = new Date(ms).toISOString();
  return text.endsWith('.000Z') ? `${text.slice(0, -5)}Z` : text;
}

/** Null: the newest, whichever that is when it is needed. Faults: POINT_UNKNOWN, REQUEST_INVALID. */
export async function chooseUnlessNewest<T extends StoredPoint>(list: () => Promise<readonly T[]>, text: string, nowMs: number, group: string): Promise<T | null> {
  const selector = readSelector(text, nowMs);
  return selector.by === 'newest' ? null : selectPoint(await list(), selector, group);
}
