/** What runs here of a group: the screen and the end of the serial port of each guest, taken anew every few seconds while somebody looks. */
import { useEffect, useState } from 'preact/hooks';
import { formatPoint } from '../../../journal/point.ts';
import type { ShownGuest } from '../../../replica-target/failover/guest-look.ts';
import type { FailedOverGuest, TestGuest } from '../../../replica-target/report.ts';
import type { GroupStoreReport } from '../../../replica-target/store/store.ts';
import { formatBytes, formatShare, formatSpan } from '../../render/units.ts';
import type { ActName } from '../acts/group-acts.tsx';
import { pathOf } from '../api.ts';
import { useFetched } from '../fetched.ts';
import { daemonMs } from '../live.ts';

const lookMs = 4_000;
/** To those who may only read. */
export const lookTakes = 'To look at screens and serial ports takes a token that may operate: they are the guest’s, as its disks are.';

interface GuestConsoleProps {
  readonly group: GroupStoreReport;
  readonly failover: FailedOverGuest | undefined;
  readonly test: TestGuest | undefined;
  readonly onAct: (name: ActName) => void;
}

export function GuestConsole({ group, failover, test, onAct }: GuestConsoleProps) {
  const [turn, setTurn] = useState(0);
  const { value, trouble, isRefused } = useFetched<{ readonly items: readonly ShownGuest[] }>(pathOf('groups', group.groupId, 'console'), turn);
  useEffect(() => {
    if (isRefused) return undefined;
    const timer = setInterval(() => { if (!document.hidden) setTurn((now) => now + 1); }, lookMs);
    return () => clearInterval(timer);
  }, [isRefused]);
  const what = test ?? failover!;
  return (
    <section aria-labelledby="console-title">
      <h2 id="console-title">{test === undefined ? 'Runs here' : 'Under test'}</h2>
      <p>{test === undefined ? 'Booted from' : 'A test of'} point {formatPoint(what.point)}, {what.isRunning ? 'running' : 'not running'} for {formatSpan(Math.max(0, daemonMs.value - what.startedAtMs))}.
        {test !== undefined && <> It ends in {formatSpan(Math.max(0, test.endsAtMs - daemonMs.value))}, or when it has written {formatBytes(test.budgetBytes)} ({formatBytes(test.usedBytes)} so far). <button type="button" class="plain" onClick={() => onAct('stop-test')}>End it now</button></>}
        {failover?.isAwaited === true && ' It stands ready, and waits until its source has let go of it.'}
        {failover?.decision != null && ` It is ${failover.decision.act === 'commit' ? 'committed' : 'rolled back'} in ${formatSpan(Math.max(0, failover.decision.atMs - daemonMs.value))}.`}
      </p>
      {failover?.home != null && failover.home.state !== 'home' && (
        <label>Its data comes home: {formatShare(failover.home.totalBytes === 0 ? 1 : failover.home.doneBytes / failover.home.totalBytes)}
          <progress max={failover.home.totalBytes} value={failover.home.doneBytes} />
        </label>
      )}
      {trouble !== null && value === null && <p class="quiet">{isRefused ? lookTakes : trouble}</p>}
      <div class="grid">{(value?.items ?? []).map((guest) => <Shown key={guest.name} guest={guest} />)}</div>
    </section>
  );
}

/** What a guest shows is the guest's: an image and text, never markup. */
export function Shown({ guest: { name, screenPng, screenWhy, serial } }: { readonly guest: ShownGuest }) {
  return (
    <figure class="console">
      <figcaption>{name}</figcaption>
      {screenPng === null ? <p class="quiet">No screen: {screenWhy}</p> : <img src={`data:image/png;base64,${screenPng}`} alt={`The screen of ${name}`} />}
      <pre tabIndex={0} aria-label={`The end of what ${name} says on its serial port`}>{serial === '' ? 'nothing on its serial port' : serial}</pre>
    </figure>
  );
}
