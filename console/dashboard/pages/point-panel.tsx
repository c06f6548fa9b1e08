/** The point that was picked: what it is, and what can be done with it. */
import { formatPoint } from '../../../journal/point.ts';
import type { RestorePoint } from '../../../replica-target/points/points.ts';
import type { GroupStoreReport } from '../../../replica-target/store/store.ts';
import { formatBytes, formatInstant, formatShare, formatSpan } from '../../render/units.ts';
import type { ActName } from '../acts/group-acts.tsx';
import { daemonMs } from '../live.ts';

const kinds = { crash: 'as if the power had failed', app: 'the guest had frozen its file systems', mark: 'asked for by a person', final: 'the guest had stopped' } as const;

interface PointPanelProps {
  readonly group: GroupStoreReport;
  readonly point: RestorePoint;
  readonly isNewest: boolean;
  readonly canTest: boolean;
  readonly onAct: (name: ActName) => void;
  readonly onNewest: () => void;
}

export function PointPanel({ group, point, isNewest, canTest, onAct, onNewest }: PointPanelProps) {
  const { changes } = point;
  return (
    <article class="point" aria-live="polite">
      <header>
        <h3>Point {formatPoint(point)}{point.label === undefined ? '' : ` “${point.label}”`}</h3>
        <p class="tags">
          <span class="tag">{point.kind}</span>
          {isNewest && <span class="tag good">newest</span>}
          {point.provenAtMs !== undefined && <span class="tag good">proven by a boot</span>}
          {point.lockedUntilMs !== undefined ? <span class="tag">locked</span> : point.isHeld && <span class="tag">held</span>}
          {point.isSuspect === true && <span class="tag bad">suspicious</span>}
        </p>
      </header>
      <dl class="facts">
        <div><dt>Cut</dt><dd>{formatInstant(point.cutAtMs)} <span class="quiet">{formatSpan(Math.max(0, daemonMs.value - point.cutAtMs))} ago; {kinds[point.kind]}</span></dd></div>
        <div><dt>Changed</dt><dd>{formatBytes(point.changedBytes)}{changes?.incompressibleShare == null ? '' : <span class="quiet">; {formatShare(changes.incompressibleShare)} of it does not compress</span>}</dd></div>
        <div><dt>Kept</dt><dd>{point.keptBy === 'all' ? 'as every point of the window' : `as ${point.keptBy} one`}</dd></div>
        {point.frozenMs !== undefined && <div><dt>Guest stood still</dt><dd>{formatSpan(point.frozenMs)}</dd></div>}
      </dl>
      <div class="acts" role="group" aria-label={`Acts with point ${formatPoint(point)}`}>
        {canTest && <button type="button" class="secondary" onClick={() => onAct('test')}>Test this point</button>}
        {group.state === 'protected' && <button type="button" class="secondary" onClick={() => onAct('failover')}>Fail over to it</button>}
        <button type="button" class="secondary" onClick={() => onAct('hold')}>Hold</button>
        {point.lockedUntilMs === undefined && <button type="button" class="secondary" onClick={() => onAct('lock')}>Lock</button>}
        {!isNewest && <button type="button" class="plain" onClick={onNewest}>Back to the newest</button>}
      </div>
    </article>
  );
}
