/** The acts on a group, as dialogs: each shows what it would do and cost first, and sends one request. */
import { useState } from 'preact/hooks';
import { formatPoint } from '../../../journal/point.ts';
import type { FailoverResult, TestResult } from '../../../replica-target/operations.ts';
import type { RehearsalReport } from '../../../replica-target/failover/rehearsal-report.ts';
import type { Verification } from '../../../replica-target/points/verify.ts';
import { formatBytes, formatInstant, formatSpan } from '../../render/units.ts';
import { pathOf } from '../api.ts';
import { report } from '../live.ts';
import { ActDialog } from './act-dialog.tsx';
import { RunbookView } from './runbook.tsx';

export type ActName = 'failover' | 'planned' | 'failback' | 'test' | 'stop-test' | 'rehearse' | 'commit' | 'roll-back' | 'stop' | 'hold' | 'lock' | 'verify' | 'dismiss';

interface GroupActProps {
  readonly name: ActName;
  readonly group: string;
  /** `TERM.POINT` of the point that was chosen, and when it was cut; null: the newest. */
  readonly point: { readonly id: string; readonly cutAtMs: number } | null;
  readonly onClose: () => void;
}

const newest = 'newest';

export function GroupAct(props: GroupActProps) {
  switch (props.name) {
    case 'failover': return <Failover {...props} />;
    case 'planned': case 'failback': return <Planned {...props} />;
    case 'test': return <Test {...props} />;
    case 'rehearse': return <Rehearse {...props} />;
    case 'hold': return <Keep {...props} />;
    case 'lock': return <Lock {...props} />;
    default: return <Plain {...props} />;
  }
}

/** What the live report says of a failover while its request waits. */
function goingOn(group: string) {
  const now = report.value;
  if (now?.role !== 'target') return null;
  const failover = now.failovers.find((one) => one.group === group);
  const state = now.groups.find((one) => one.name === group)?.state;
  return (
    <ul class="course">
      <li>{group} is {state ?? 'unknown'} here{failover === undefined ? '' : `, in term ${failover.term}`}</li>
      {failover?.guests.map(({ name, isRunning, start }) => <li key={name}>{name}: {isRunning ? start?.state ?? 'runs' : 'not started yet'}</li>)}
      {failover?.isAwaited === true && <li>It stands ready, and waits until its source has let go of it.</li>}
    </ul>
  );
}

function tellFailover(answer: unknown) {
  const { term, point, lostMs, rtoMs, downtimeMs, isComingHome } = answer as FailoverResult;
  return (
    <dl class="facts">
      <div><dt>Booted</dt><dd>point {formatPoint(point)}, in term {term}</dd></div>
      <div><dt>Lost</dt><dd>{lostMs === 0 ? 'nothing' : `at most ${formatSpan(lostMs)}`}</dd></div>
      <div><dt>Processors ran after</dt><dd>{formatSpan(rtoMs)}</dd></div>
      {downtimeMs !== undefined && <div><dt>No guest ran for</dt><dd>{formatSpan(downtimeMs)}</dd></div>}
      {isComingHome && <div><dt>Its data</dt><dd>comes home behind it</dd></div>}
    </dl>
  );
}

function Failover({ group, point, onClose }: GroupActProps) {
  const [after, setAfter] = useState('');
  const at = point?.id ?? newest;
  const afterMs = Number(after) * 60_000;
  const decision = after === '' ? {} : { decision: { act: 'roll-back', afterMs } };
  return (
    <ActDialog onClose={onClose} act={{ title: `Fail over ${group}`, verb: 'Fail over', isGrave: true, typed: group, path: pathOf('groups', group, 'failover'), body: { at, ...decision }, progress: () => goingOn(group), tell: tellFailover }}>
      <p>For a host that is lost. Its guest must not run there any more: from then on the old source is refused.</p>
      <RunbookView group={group} at={at} isPlanned={false} />
      <label>Decided by itself
        <select value={after} onChange={({ currentTarget }) => setAfter(currentTarget.value)}>
          <option value="">not: a person commits or rolls back</option>
          <option value="15">rolled back after 15 min</option>
          <option value="60">rolled back after 1 h</option>
        </select>
      </label>
    </ActDialog>
  );
}

function Planned({ name, group, onClose }: GroupActProps) {
  const [onLimit, setOnLimit] = useState<'give-up' | 'stop'>('give-up');
  const [minutes, setMinutes] = useState(2);
  const isHome = name === 'failback';
  return (
    <ActDialog onClose={onClose} act={{ title: isHome ? `Bring ${group} home` : `Move ${group} here`, verb: isHome ? 'Bring home' : 'Move', typed: group, path: pathOf('groups', group, 'failover'), body: { planned: { shutdownMs: minutes * 60_000, onLimit } }, progress: () => goingOn(group), tell: tellFailover }}>
      <p>The guest is shut down where it runs, what is left is sent, and it boots here. Nothing is lost; if anything fails before it runs here, it is started again where it was.</p>
      <RunbookView group={group} at={newest} isPlanned />
      <div class="grid">
        <label>It may take
          <select value={minutes} onChange={({ currentTarget }) => setMinutes(Number(currentTarget.value))}>{[1, 2, 5, 15].map((one) => <option key={one} value={one}>{one} min to shut down</option>)}</select>
        </label>
        <label>Then
          <select value={onLimit} onChange={({ currentTarget }) => setOnLimit(currentTarget.value as 'give-up' | 'stop')}>
            <option value="give-up">give up: it runs on</option>
            <option value="stop">stop it where it stands</option>
          </select>
        </label>
      </div>
    </ActDialog>
  );
}

function Test({ group, point, onClose }: GroupActProps) {
  const [network, setNetwork] = useState('none');
  const [minutes, setMinutes] = useState(60);
  const at = point?.id ?? newest;
  return (
    <ActDialog onClose={onClose} act={{
      title: `Test ${group}`, verb: 'Start the test', path: pathOf('groups', group, 'test'), body: { at, network, limitMs: minutes * 60_000 },
      tell: (answer) => { const { point: booted, rtoMs, endsAtMs } = answer as TestResult; return <p>Point {formatPoint(booted)} runs since {formatSpan(rtoMs)} after it was asked for, until {formatInstant(endsAtMs)} at the latest. Its screen is shown on the group’s page.</p>; },
    }}>
      <p>Boots {point === null ? 'the newest point' : `point ${point.id}, cut ${formatInstant(point.cutAtMs)},`} beside its protection, which goes on. Nothing of it is left when it ends.</p>
      <div class="grid">
        <label>Network
          <select value={network} onChange={({ currentTarget }) => setNetwork(currentTarget.value)}>
            <option value="none">no cable</option>
            <option value="isolated">one that leads nowhere</option>
            <option value="user">behind this host</option>
          </select>
        </label>
        <label>Ends after
          <select value={minutes} onChange={({ currentTarget }) => setMinutes(Number(currentTarget.value))}>{[15, 60, 240, 1440].map((one) => <option key={one} value={one}>{formatSpan(one * 60_000)}</option>)}</select>
        </label>
      </div>
    </ActDialog>
  );
}

function Rehearse({ group, point, onClose }: GroupActProps) {
  return (
    <ActDialog onClose={onClose} act={{
      title: `Rehearse a failover of ${group}`, verb: 'Rehearse', path: pathOf('groups', group, 'rehearse'), body: point === null ? {} : { at: point.id },
      tell: (answer) => { const { isPassed, why, readyMs } = answer as RehearsalReport; return <p class={isPassed ? 'good-text' : 'bad-text'}>{isPassed ? `Passed: ready after ${formatSpan(readyMs)}.` : `Failed: ${why}`}</p>; },
    }}>
      <p>Boots {point === null ? 'the newest point' : `point ${point.id}`} with no way out, waits until every guest is ready as the config says, keeps a report with screen and serial port, and ends it. The point counts as proven when it passed.</p>
    </ActDialog>
  );
}

function Keep({ group, point, onClose }: GroupActProps) {
  const [days, setDays] = useState(7);
  const [reason, setReason] = useState('');
  const at = point?.id ?? newest;
  return (
    <ActDialog onClose={onClose} isBlocked={reason.trim() === ''} act={{ title: `Hold point ${at} of ${group}`, verb: 'Hold', path: pathOf('groups', group, 'points', at, 'holds'), body: { reason: reason.trim(), forMs: days * 86_400_000 }, tell: () => <p>The point is kept for {days} days, or until it is released.</p> }}>
      <p>Retention leaves it alone, until it is released.</p>
      <div class="grid">
        <label>For<select value={days} onChange={({ currentTarget }) => setDays(Number(currentTarget.value))}>{[1, 7, 31].map((one) => <option key={one} value={one}>{one} days</option>)}</select></label>
        <label>What for<input value={reason} maxLength={200} onInput={({ currentTarget }) => setReason(currentTarget.value)} /></label>
      </div>
    </ActDialog>
  );
}

function Lock({ group, point, onClose }: GroupActProps) {
  const [days, setDays] = useState(7);
  const [reason, setReason] = useState('');
  const at = point?.id ?? newest;
  return (
    <ActDialog onClose={onClose} isBlocked={reason.trim() === ''} act={{ title: `Lock point ${at} of ${group}`, verb: 'Lock', isGrave: true, typed: group, path: pathOf('groups', group, 'points', at, 'locks'), body: { reason: reason.trim(), forMs: days * 86_400_000 }, tell: () => <p>The point is locked for {days} days.</p> }}>
      <p><strong>Nobody can end a lock before its time</strong>, whatever the clock says; what it needs of space stays taken until then.</p>
      <div class="grid">
        <label>For<select value={days} onChange={({ currentTarget }) => setDays(Number(currentTarget.value))}>{[1, 7, 14, 30, 90].map((one) => <option key={one} value={one}>{one} days</option>)}</select></label>
        <label>What for<input value={reason} maxLength={200} onInput={({ currentTarget }) => setReason(currentTarget.value)} /></label>
      </div>
    </ActDialog>
  );
}

function tellVerification(answer: unknown) {
  const { findings, journalBytes, historyBytes, replicaBytes } = answer as Verification;
  const read = `Read ${formatBytes(journalBytes + historyBytes + replicaBytes)}.`;
  return findings.length === 0 ? <p class="good-text">All that is stored is good. {read}</p> : <p class="bad-text">Damaged in {findings.length} places, the first in {findings[0]!.path}. {read}</p>;
}

const plain = (group: string) => ({
  'stop-test': { act: { title: `End the test of ${group}`, verb: 'End it', path: pathOf('groups', group, 'test', 'stop'), tell: () => <p>Nothing of it is left.</p> }, text: 'Its guest is ended, and what it wrote is thrown away.' },
  commit: { act: { title: `Commit the failover of ${group}`, verb: 'Commit', typed: group, path: pathOf('groups', group, 'commit'), tell: () => <p>Its data comes home behind it; the group’s page shows how far.</p> }, text: 'The failover becomes final: what its guest writes here are points of the group, in the new term. The old source takes it for lost.' },
  'roll-back': { act: { title: `Roll back the failover of ${group}`, verb: 'Roll back', isGrave: true, typed: group, path: pathOf('groups', group, 'failover', 'stop'), body: { isRolledBack: true }, tell: () => <p>The group takes changes from its source again.</p> }, text: 'Its guest here is ended, and all that it wrote here is thrown away. Its old source goes on.' },
  stop: { act: { title: `End the guest of ${group}`, verb: 'End it', isGrave: true, typed: group, path: pathOf('groups', group, 'failover', 'stop'), body: {}, tell: () => <p>The guest was ended; what it wrote is kept.</p> }, text: 'The guest that the failover started is ended as by its power switch. What it wrote is kept.' },
  verify: { act: { title: `Check what is stored of ${group}`, verb: 'Check', path: pathOf('groups', group, 'verify'), body: {}, tell: tellVerification }, text: 'Reads every record, before-image and index that is stored, and compares each block of the replica that lay still with its checksum.' },
  dismiss: { act: { title: `Dismiss the suspicion of ${group}`, verb: 'Dismiss', path: pathOf('groups', group, 'dismiss'), body: {}, tell: () => <p>The points from before are not held for it any more.</p> }, text: 'Somebody has looked, and it was no attack. The marks stay with the points.' },
} as const);

function Plain({ name, group, onClose }: GroupActProps) {
  const { act, text } = plain(group)[name as keyof ReturnType<typeof plain>];
  return <ActDialog onClose={onClose} act={act}><p>{text}</p></ActDialog>;
}
