/** One group: how it stands, its points to look at and pick from, what can be done, and what runs here of it. */
import { useMemo, useState } from 'preact/hooks';
import { formatPoint } from '../../../journal/point.ts';
import type { TargetReport } from '../../../replica-target/report.ts';
import type { GroupStoreReport } from '../../../replica-target/store/store.ts';
import { formatBytes, formatInstant, formatRate, formatShare, formatSpan } from '../../render/units.ts';
import { GroupAct, type ActName } from '../acts/group-acts.tsx';
import { LineChart } from '../charts/line-chart.tsx';
import { TimelineChart } from '../charts/timeline-chart.tsx';
import { useGroupPoints } from '../group-points.ts';
import { fullInMs, groupHealth } from '../health-plan.ts';
import { agedMs, daemonMs } from '../live.ts';
import { pointSeries, recentBytesPerMs } from '../point-series-plan.ts';
import { GuestConsole } from './guest-console.tsx';
import { LevelBadge } from './level-badge.tsx';
import { PointPanel } from './point-panel.tsx';
import { RehearsalPanel } from './rehearsal-panel.tsx';

/** Over which the rate of change is taken for what comes, ms. */
const forecastMs = 3_600_000;

export function GroupPage({ report, name }: { readonly report: TargetReport; readonly name: string }) {
  const group = report.groups.find((one) => one.name === name);
  if (group === undefined) return <><h1 tabIndex={-1}>{name}</h1><p>No group of this name is here.</p><p><a href="#/">All groups</a></p></>;
  return <KnownGroup key={group.groupId} report={report} group={group} />;
}

function KnownGroup({ report, group }: { readonly report: TargetReport; readonly group: GroupStoreReport }) {
  const { points, trouble, again } = useGroupPoints(group);
  const [chosen, setChosen] = useState<string | null>(null);
  const [act, setAct] = useState<{ readonly name: ActName; readonly point: { readonly id: string; readonly cutAtMs: number } | null } | null>(null);
  const health = groupHealth(report, group, agedMs.value);
  const series = useMemo(() => pointSeries(points), [points]);
  const point = chosen === null ? points.at(-1) : points.find((one) => formatPoint(one) === chosen) ?? points.at(-1);
  const failover = report.failovers.find((one) => one.group === group.name);
  const test = report.tests.find((one) => one.group === group.name);
  const open = (act: ActName, at: typeof point | null = null): void => setAct({ name: act, point: at == null ? null : { id: formatPoint(at), cutAtMs: at.cutAtMs } });
  const close = (): void => { setAct(null); again(); };
  return (
    <>
      <nav aria-label="Breadcrumb"><a href="#/">Groups</a></nav>
      <header class="page-head">
        <h1 tabIndex={-1}>{group.name}</h1>
        <LevelBadge health={health} />
      </header>
      {health.reasons.length > 0 && <ul class={`reasons ${health.level}`}>{health.reasons.map((reason) => <li key={reason}>{reason}</li>)}</ul>}
      <Facts report={report} group={group} bytesPerMs={recentBytesPerMs(points, forecastMs)} />
      <ActBar group={group} isTesting={test !== undefined} hasFailover={failover !== undefined} onAct={open} />
      <section aria-labelledby="timeline-title">
        <h2 id="timeline-title">Points</h2>
        {trouble !== null && <p role="alert" class="bad-text">{trouble}</p>}
        <TimelineChart points={points} chosen={chosen} onChoose={(one) => setChosen(formatPoint(one))} atMs={daemonMs.value} />
        {point !== undefined && <PointPanel group={group} point={point} isNewest={point === points.at(-1)} canTest={group.state === 'protected' && test === undefined} onAct={(one) => open(one, point)} onNewest={() => setChosen(null)} />}
      </section>
      {points.length > 1 && (
        <section aria-label="Charts" class="grid">
          <LineChart title="Exposure at each point" atS={series.cutAtS} values={series.exposureS} format={(s) => formatSpan(s * 1000)} objective={group.rpoMs / 1000} />
          <LineChart title="Rate of change" atS={series.cutAtS} values={series.bytesPerSecond} format={formatRate} />
        </section>
      )}
      {(test !== undefined || failover !== undefined) && <GuestConsole group={group} failover={failover} test={test} onAct={open} />}
      <RehearsalPanel report={report} group={group} />
      {act !== null && <GroupAct key={act.name} name={act.name} group={group.name} point={act.point} onClose={close} />}
    </>
  );
}

function Facts({ report, group, bytesPerMs }: { readonly report: TargetReport; readonly group: GroupStoreReport; readonly bytesPerMs: number }) {
  const source = report.sources.find(({ sourceId }) => sourceId === group.sourceId);
  const { retention } = group;
  const fullMs = fullInMs(group, bytesPerMs);
  const checked = report.checks?.find((one) => one.group === group.name);
  const sizeBytes = group.disks.reduce((sum, { sizeBytes: bytes }) => sum + bytes, 0);
  const behind = group.newest === null || group.applied === null ? null : group.newest.term === group.applied.term ? group.newest.point - group.applied.point : null;
  return (
    <dl class="facts wide">
      <div><dt>A loss now would cost</dt><dd><b>{group.newest === null ? 'everything' : group.state === 'protected' ? formatSpan(Math.max(0, report.atMs + agedMs.value - group.newest.cutAtMs)) : 'nothing: it runs here'}</b> <span class="quiet">objective {formatSpan(group.rpoMs)}</span></dd></div>
      <div><dt>Source</dt><dd>{source === undefined ? 'away' : `${source.name}, connected for ${formatSpan(report.atMs - source.sinceMs)}`}</dd></div>
      <div><dt>Disks</dt><dd>{group.disks.length}, {formatBytes(sizeBytes)}; the replica takes {formatBytes(group.replicaBytes)}</dd></div>
      <div><dt>Applied</dt><dd>{group.applied === null ? 'nothing yet' : behind === 0 ? 'all of it' : behind === null ? `up to ${formatPoint(group.applied)}` : `${behind} points to go`}</dd></div>
      <div><dt>History</dt><dd>{retention === null ? formatBytes(group.historyBytes) : <>{formatSpan(retention.windowHadMs)} of {formatSpan(retention.windowMs)} with every point{group.oldest === null ? '' : <span class="quiet">, oldest {formatInstant(group.oldest.cutAtMs)}</span>}</>}</dd></div>
      <div><dt>Space</dt><dd>{formatBytes(retention?.usedBytes ?? group.journalBytes + group.historyBytes)}{retention?.limitBytes == null ? '' : ` of ${formatBytes(retention.limitBytes)} (${formatShare(retention.usedBytes / retention.limitBytes)})`}{fullMs === null ? '' : <span class="quiet">, used up in {formatSpan(fullMs)} at this rate if nothing were thinned</span>}</dd></div>
      <div><dt>Stored data</dt><dd>{checked === undefined || checked.lastAtMs === null ? 'not checked yet' : checked.findingCount === 0 ? `sound, checked ${formatSpan(report.atMs - checked.lastAtMs)} ago` : `damaged in ${checked.findingCount} places`}</dd></div>
    </dl>
  );
}

function ActBar({ group, isTesting, hasFailover, onAct }: { readonly group: GroupStoreReport; readonly isTesting: boolean; readonly hasFailover: boolean; readonly onAct: (name: ActName) => void }) {
  const isProtected = group.state === 'protected';
  const hasPoints = group.newest !== null;
  const button = (name: ActName, text: string, style = 'secondary') => <button key={name} type="button" class={style} onClick={() => onAct(name)}>{text}</button>;
  return (
    <div role="group" aria-label="Acts" class="acts">
      {isProtected && hasPoints && !isTesting && button('rehearse', 'Rehearse')}
      {isProtected && hasPoints && !isTesting && button('test', 'Test failover')}
      {isTesting && button('stop-test', 'End the test')}
      {isProtected && hasPoints && (group.isReclaimed ? button('failback', 'Bring home', '') : button('planned', 'Planned failover'))}
      {isProtected && hasPoints && button('failover', 'Fail over', 'grave')}
      {group.state === 'failed-over' && hasFailover && button('commit', 'Commit', '')}
      {group.state === 'failed-over' && hasFailover && button('roll-back', 'Roll back', 'grave')}
      {group.state === 'failed-over' && hasFailover && button('stop', 'End its guest')}
      {button('verify', 'Check stored data')}
      {group.suspicion?.active != null && button('dismiss', 'Dismiss the suspicion')}
    </div>
  );
}
