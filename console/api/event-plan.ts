/**
 * What happened between two reports, as events: the API's stream tells them, and nothing else knows how. Pure. An event names what
 * it is about and how it stands now, so that whoever missed one is set right by the next.
 */
import type { SourceReport } from '../../daemon/report.ts';
import { formatPoint, isSamePoint } from '../../journal/point.ts';
import type { TargetReport } from '../../replica-target/report.ts';

export type ApiReport = SourceReport | TargetReport;

export interface ApiEvent {
  readonly type: 'group' | 'phase' | 'point' | 'alarm' | 'failover' | 'test' | 'rehearsal' | 'link' | 'check';
  /** Wall clock of the report in which it was seen, ms. */
  readonly atMs: number;
  /** The guest or group; of a link, the peer. */
  readonly name: string;
  readonly facts: Readonly<Record<string, unknown>>;
}

/** In the order of the report. `before` null: nothing is known of before, and nothing has happened. */
export function eventsBetween(before: ApiReport | null, after: ApiReport): readonly ApiEvent[] {
  if (before === null) return [];
  if (before.role === 'source' && after.role === 'source') return sourceEvents(before, after);
  if (before.role === 'target' && after.role === 'target') return targetEvents(before, after);
  return [];
}

type Found = Omit<ApiEvent, 'atMs'>;

function sourceEvents(before: SourceReport, after: SourceReport): readonly ApiEvent[] {
  const guests = pairs(before.guests, after.guests, ({ groupId }) => groupId).flatMap(([was, is]): Found[] => {
    if (is === null) return [{ type: 'group', name: was.name, facts: { groupId: was.groupId, isHere: false } }];
    const name = is.name;
    return [
      ...(was === null ? [{ type: 'group' as const, name, facts: { groupId: is.groupId, isHere: true } }] : []),
      ...(was?.phase !== is.phase ? [{ type: 'phase' as const, name, facts: { phase: is.phase, before: was?.phase ?? null, detail: is.detail } }] : []),
      ...(is.newestPoint !== null && !isSamePoint(was?.newestPoint ?? null, is.newestPoint) ? [{ type: 'point' as const, name, facts: { point: formatPoint(is.newestPoint), cutAtMs: is.newestPoint.cutAtMs } }] : []),
      ...(is.lastFault !== null && (was?.lastFault?.atMs !== is.lastFault.atMs || was.lastFault.code !== is.lastFault.code) ? [{ type: 'alarm' as const, name, facts: { isRaised: true, ...is.lastFault } }] : []),
    ];
  });
  const links = pairs(before.targets, after.targets, ({ name }) => name).flatMap(([was, is]): Found[] => (
    is === null || was?.state === is.state ? [] : [{ type: 'link', name: is.name, facts: { state: is.state, before: was?.state ?? null, lastFault: is.lastFault } }]
  ));
  return [...guests, ...links].map((event) => ({ ...event, atMs: after.atMs }));
}

function targetEvents(before: TargetReport, after: TargetReport): readonly ApiEvent[] {
  const groups = pairs(before.groups, after.groups, ({ groupId }) => groupId).flatMap(([was, is]): Found[] => {
    if (is === null) return [{ type: 'group', name: was.name, facts: { groupId: was.groupId, isHere: false } }];
    const { name } = is;
    const isRaised = is.held !== null;
    return [
      ...(was === null ? [{ type: 'group' as const, name, facts: { groupId: is.groupId, isHere: true } }] : []),
      ...(was !== null && was.state !== is.state ? [{ type: 'failover' as const, name, facts: { state: is.state, before: was.state, term: is.term } }] : []),
      ...(is.newest !== null && !isSamePoint(was?.newest ?? null, is.newest) ? [{ type: 'point' as const, name, facts: { point: formatPoint(is.newest), kind: is.newest.kind, cutAtMs: is.newest.cutAtMs, changedBytes: is.newest.changedBytes } }] : []),
      ...((was?.held?.code ?? null) !== (is.held?.code ?? null) ? [{ type: 'alarm' as const, name, facts: isRaised ? { isRaised, ...is.held } : { isRaised, code: was?.held?.code } }] : []),
    ];
  });
  const failovers = pairs(before.failovers, after.failovers, ({ group }) => group).flatMap(([was, is]): Found[] => {
    if (is === null) return [{ type: 'failover', name: was.group, facts: { isHere: false } }];
    const stands = { isHere: true, term: is.term, isRunning: is.isRunning, isAwaited: is.isAwaited, isCommitting: is.isCommitting, home: is.home?.state ?? null };
    const stood = was === null ? null : { isHere: true, term: was.term, isRunning: was.isRunning, isAwaited: was.isAwaited, isCommitting: was.isCommitting, home: was.home?.state ?? null };
    return JSON.stringify(stands) === JSON.stringify(stood) ? [] : [{ type: 'failover', name: is.group, facts: stands }];
  });
  const tests = pairs(before.tests, after.tests, ({ group }) => group).flatMap(([was, is]): Found[] => {
    if (is === null) return [{ type: 'test', name: was.group, facts: { isUnderWay: false, why: after.endedTests.find(({ group }) => group === was.group)?.why ?? null } }];
    return was?.isRunning === is.isRunning && was.startedAtMs === is.startedAtMs ? [] : [{ type: 'test', name: is.group, facts: { isUnderWay: true, isRunning: is.isRunning, point: formatPoint(is.point), endsAtMs: is.endsAtMs } }];
  });
  const rehearsals = pairs(before.rehearsals ?? [], after.rehearsals ?? [], ({ group }) => group).flatMap(([was, is]): Found[] => (
    is === null || was?.endedAtMs === is.endedAtMs ? [] : [{ type: 'rehearsal', name: is.group, facts: { isPassed: is.isPassed, why: is.why, point: formatPoint(is.point), rtoMs: is.rtoMs } }]
  ));
  const checks = pairs(before.checks ?? [], after.checks ?? [], ({ group }) => group).flatMap(([was, is]): Found[] => (
    is === null || was?.lastAtMs === is.lastAtMs || is.lastAtMs === null ? [] : [{ type: 'check', name: is.group, facts: { findingCount: is.findingCount, lastAtMs: is.lastAtMs } }]
  ));
  const links = pairs(before.sources, after.sources, ({ sourceId, sinceMs }) => `${sourceId} ${sinceMs}`).flatMap(([was, is]): Found[] => (
    was !== null && is !== null ? [] : [{ type: 'link', name: (is ?? was!).name, facts: { sourceId: (is ?? was!).sourceId, state: is === null ? 'down' : 'up' } }]
  ));
  return [...groups, ...failovers, ...tests, ...rehearsals, ...checks, ...links].map((event) => ({ ...event, atMs: after.atMs }));
}

/** What was and what is, of all that were or are. */
function pairs<T>(before: readonly T[], after: readonly T[], keyOf: (one: T) => string): readonly (readonly [T | null, T] | readonly [T, null])[] {
  const were = new Map(before.map((one) => [keyOf(one), one]));
  const are = new Set(after.map(keyOf));
  return [
    ...before.filter((one) => !are.has(keyOf(one))).map((one) => [one, null] as const),
    ...after.map((one) => [were.get(keyOf(one)) ?? null, one] as const),
  ];
}
