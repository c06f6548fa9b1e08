/** All groups at a glance, the worst first. */
import { useEffect, useMemo, useState } from 'preact/hooks';
import type { TargetReport } from '../../../replica-target/report.ts';
import { formatPoint } from '../../../journal/point.ts';
import { absent, formatBytes, formatShare, formatSpan } from '../../render/units.ts';
import { groupHealth, type Health } from '../health-plan.ts';
import { agedMs } from '../live.ts';
import { groupHref } from '../route.ts';
import { AlarmList } from './alarm-list.tsx';
import { LevelBadge } from './level-badge.tsx';

const names = new Intl.Collator();
const order = ['bad', 'warn', 'other', 'good'] as const;
/** Only so many groups need a way to find one. */
const groupsToFilterMin = 8;
/** Groups that are drawn at once: what a screen shows. The others follow, twice as many between two frames. */
const groupsAtOnce = 12;

export function Overview({ report }: { readonly report: TargetReport }) {
  const [wanted, setWanted] = useState('');
  const rows = report.groups.map((group) => ({ group, health: groupHealth(report, group, agedMs.value) }));
  const counts = useMemo(() => order.map((level) => [level, rows.filter(({ health }) => health.level === level).length] as const), [report, agedMs.value]);
  const shown = rows.filter(({ group }) => group.name.toLowerCase().includes(wanted.toLowerCase()))
    .sort((a, b) => order.indexOf(a.health.level) - order.indexOf(b.health.level) || names.compare(a.group.name, b.group.name));
  const drawn = useGrowing(shown.length);
  return (
    <>
      <header class="page-head">
        <h1 tabIndex={-1}>Groups</h1>
        <p class="tally">{counts.filter(([, count]) => count > 0).map(([level, count]) => <span key={level} class={`badge ${level}`}><i aria-hidden="true" />{count} {words[level]}</span>)}</p>
      </header>
      <AlarmList />
      {report.groups.length > groupsToFilterMin && <input type="search" aria-label="Find a group" placeholder="Find a group" value={wanted} onInput={({ currentTarget }) => setWanted(currentTarget.value)} />}
      {report.groups.length === 0
        ? <p>No group is here yet. On the host of a guest: <code>afterimage pair TOKEN</code>, then <code>afterimage protect GUEST --qmp SOCKET</code>.</p>
        : <ul class="cards">{shown.slice(0, drawn).map(({ group, health }) => <GroupCard key={group.groupId} report={report} group={group} health={health} />)}</ul>}
    </>
  );
}

/** Of so many, how many are drawn now: more from frame to frame, so that the page answers while it fills. */
function useGrowing(count: number): number {
  const [drawn, setDrawn] = useState(groupsAtOnce);
  useEffect(() => {
    if (drawn >= count) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const frame = requestAnimationFrame(() => { timer = setTimeout(() => setDrawn(drawn + 2 * groupsAtOnce)); });
    return () => {
      cancelAnimationFrame(frame);
      clearTimeout(timer);
    };
  }, [drawn, count]);
  return drawn;
}

const words = { good: 'protected', warn: 'to look at', bad: 'in trouble', other: 'run here' } as const;

function GroupCard({ report, group, health }: { readonly report: TargetReport; readonly group: TargetReport['groups'][number]; readonly health: Health }) {
  const ageMs = group.newest === null ? null : Math.max(0, report.atMs + agedMs.value - group.newest.cutAtMs);
  const rehearsal = report.rehearsals?.find((one) => one.group === group.name);
  const source = report.sources.find(({ sourceId }) => sourceId === group.sourceId);
  const isProtected = group.state === 'protected';
  return (
    <li class={`card ${health.level}`}>
      <a href={groupHref(group.name)}>
        <span class="card-head"><strong>{group.name}</strong><LevelBadge health={health} /></span>
        <span class="figure">{isProtected ? <><b>{formatSpan(ageMs)}</b> <small>would be lost; objective {formatSpan(group.rpoMs)}</small></> : <small>in term {group.term}, from point {group.newest === null ? absent : formatPoint(group.newest)}</small>}</span>
        {health.reasons[0] !== undefined && <span class={`reason ${health.level}`}>{health.reasons[0]}{health.reasons.length > 1 ? ` and ${health.reasons.length - 1} more` : ''}</span>}
        <span class="card-foot">
          <span>{group.pointCount} points{group.retention === null || group.retention.windowHadMs < 60_000 ? '' : `, every one of ${formatSpan(group.retention.windowHadMs)}`}</span>
          <span>{formatBytes(group.replicaBytes + group.journalBytes + group.historyBytes)}{group.retention?.limitBytes == null ? '' : `, history ${formatShare(group.retention.usedBytes / group.retention.limitBytes)} of its space`}</span>
          <span>{rehearsal === undefined ? 'never rehearsed' : rehearsal.isPassed ? `proven ${formatSpan(report.atMs - rehearsal.startedAtMs)} ago` : 'rehearsal failed'}</span>
          <span>{source === undefined ? 'source away' : `from ${source.name}`}</span>
        </span>
      </a>
    </li>
  );
}
