/** The smaller dashboard of a source: its guests, how far behind they are, and how far a first sync or resync is. */
import { useState } from 'preact/hooks';
import type { GuestReport, SourceReport } from '../../../daemon/report.ts';
import { formatPoint } from '../../../journal/point.ts';
import { absent, formatBytes, formatRate, formatShare, formatSpan } from '../../render/units.ts';
import { ActDialog, type Act } from '../acts/act-dialog.tsx';
import { pathOf } from '../api.ts';
import { guestHealth } from '../health-plan.ts';
import { agedMs } from '../live.ts';
import { AlarmList } from './alarm-list.tsx';
import { LevelBadge } from './level-badge.tsx';

export function SourcePage({ report }: { readonly report: SourceReport }) {
  const [act, setAct] = useState<Act | null>(null);
  return (
    <>
      <header class="page-head"><h1 tabIndex={-1}>Guests</h1></header>
      <AlarmList />
      {report.targets.map(({ name, address, state, sinceMs, lastFault }) => (
        <p key={name}><span class={`badge ${state === 'up' ? 'good' : 'bad'}`}><i aria-hidden="true" />{name}</span> <span class="quiet">{address}, {state} for {formatSpan(report.atMs + agedMs.value - sinceMs)}{lastFault === null || state === 'up' ? '' : `: ${lastFault.message}`}</span></p>
      ))}
      {report.guests.length === 0 ? <p>No guest is protected here yet: <code>afterimage protect GUEST --qmp SOCKET</code>.</p> : <ul class="cards">{report.guests.map((guest) => <GuestCard key={guest.groupId} guest={guest} atMs={report.atMs} onAct={setAct} />)}</ul>}
      {act !== null && <ActDialog key={act.title} act={act} onClose={() => setAct(null)}><p>{act.title}.</p></ActDialog>}
    </>
  );
}

function GuestCard({ guest, atMs, onAct }: { readonly guest: GuestReport; readonly atMs: number; readonly onAct: (act: Act) => void }) {
  const health = guestHealth(guest, agedMs.value);
  const { pass, clocks, rpo } = guest;
  const aged = (ms: number | null): string => (ms === null ? absent : formatSpan(ms + agedMs.value));
  const done = (text: string) => () => <p>{text}</p>;
  const ask = (verb: string, path: string, told: string, body: unknown = {}): void => onAct({ title: `${verb} ${guest.name}`, verb, path: pathOf('guests', guest.name, path), body, tell: done(told) });
  return (
    <li class={`card ${health.level}`}>
      <div>
        <span class="card-head"><strong>{guest.name}</strong><LevelBadge health={health} /></span>
        <span class="figure"><b>{aged(clocks.newestPointMs)}</b> <small>would be lost; objective {formatSpan(guest.rpoMs)}</small></span>
        {health.reasons[0] !== undefined && <span class={`reason ${health.level}`}>{health.reasons[0]}</span>}
        {pass !== null && <Pass pass={pass} atMs={atMs} />}
        <dl class="facts">
          <div><dt>Newest point</dt><dd>{guest.newestPoint === null ? absent : formatPoint(guest.newestPoint)}</dd></div>
          <div><dt>Captured, received, applied</dt><dd>{aged(clocks.capturedMs)}, {aged(clocks.receivedMs)}, {aged(clocks.appliedMs)} ago</dd></div>
          <div><dt>Exposure</dt><dd>half below {formatSpan(rpo.p50Ms)}, 99 of 100 below {formatSpan(rpo.p99Ms)}</dd></div>
          <div><dt>Not there yet</dt><dd>{formatBytes(guest.behindBytes)}</dd></div>
          {guest.capture !== null && <div><dt>Capture</dt><dd>{guest.capture.capture}; spool {formatBytes(guest.capture.spoolBytes)} of {formatBytes(guest.capture.spoolBudgetBytes)}</dd></div>}
        </dl>
        <div class="acts" role="group" aria-label={`Acts with ${guest.name}`}>
          {guest.phase === 'protected' && <button type="button" class="secondary" onClick={() => ask('Mark', 'marks', 'The target has the point.')}>Take a point now</button>}
          {pass !== null && (pass.isPaused
            ? <button type="button" class="secondary" onClick={() => ask('Resume', 'resume', 'It goes on.')}>Resume</button>
            : <button type="button" class="secondary" onClick={() => ask('Pause', 'pause', 'It stands still until it is resumed.')}>Pause</button>)}
          {guest.phase === 'protected' && pass === null && <button type="button" class="secondary" onClick={() => ask('Resync', 'resync', 'Both sides are compared after the next point.')}>Compare both sides</button>}
        </div>
      </div>
    </li>
  );
}

function Pass({ pass, atMs }: { readonly pass: NonNullable<GuestReport['pass']>; readonly atMs: number }) {
  const { doneBytes, totalBytes, startedAtMs, isPaused, rateBytesPerSecond, sentBytes } = pass;
  const ms = Math.max(1, atMs - startedAtMs);
  const leftMs = doneBytes === 0 || isPaused ? null : (totalBytes - doneBytes) / (doneBytes / ms);
  return (
    <label class="pass">{formatShare(totalBytes === 0 ? 1 : doneBytes / totalBytes)}, {formatBytes(doneBytes)} of {formatBytes(totalBytes)}, {formatBytes(sentBytes)} sent{isPaused ? ', paused' : leftMs === null ? '' : `, about ${formatSpan(leftMs)} left`}{rateBytesPerSecond > 0 ? `, at most ${formatRate(rateBytesPerSecond)}` : ''}
      <progress max={totalBytes} value={doneBytes} />
    </label>
  );
}
