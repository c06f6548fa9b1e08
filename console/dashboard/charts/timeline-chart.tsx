/**
 * A group's points in time: one bar each, as high as what changed, coloured by what it is; one can be chosen with the mouse, or with the
 * slider beneath by touch and keyboard, which says to a screen reader what is chosen. Dragging looks closer; a double click looks at all.
 */
import { useMemo } from 'preact/hooks';
import uPlot, { type AlignedData, type Options } from 'uplot';
import { formatPoint } from '../../../journal/point.ts';
import type { RestorePoint } from '../../../replica-target/points/points.ts';
import { formatBytes, formatInstant, formatSpan } from '../../render/units.ts';
import { describePoint } from '../point-series-plan.ts';
import { figureAxis, quietCursor, timeAxis } from './axes.ts';
import { colour, isDark } from './palette.ts';
import { Plot } from './plot.tsx';

interface TimelineProps {
  readonly points: readonly RestorePoint[];
  /** `TERM.POINT`; null: the newest. */
  readonly chosen: string | null;
  readonly onChoose: (point: RestorePoint) => void;
  /** The daemon's wall clock. */
  readonly atMs: number;
}

const traits = ['crash', 'app', 'mark', 'final', 'suspicious'] as const;
type Trait = (typeof traits)[number];
const names: Readonly<Record<Trait, string>> = { crash: 'crash-consistent', app: 'application-consistent', mark: 'marked', final: 'final', suspicious: 'suspicious' };

function traitOf(point: RestorePoint): Trait {
  return point.isSuspect === true ? 'suspicious' : point.kind;
}

export function TimelineChart({ points, chosen, onChoose, atMs }: TimelineProps) {
  const data = useMemo<AlignedData>(() => [
    points.map(({ cutAtMs }) => cutAtMs / 1000),
    // A point without a change is there all the same.
    ...traits.map((trait) => points.map((point) => (traitOf(point) === trait ? Math.max(point.changedBytes, 1) : null))),
  ], [points]);
  const shown = useMemo(() => new Set(points.map(traitOf)), [points]);
  const shownKey = [...shown].join();
  const options = useMemo<Omit<Options, 'width' | 'height'>>(() => ({
    legend: { show: false }, cursor: quietCursor, padding: [8, 8, 0, 0],
    scales: { x: { time: true }, y: { range: (_plot, _min, max) => [0, max * 1.05 || 1] } },
    axes: [timeAxis(), figureAxis(formatBytes)],
    series: [{}, ...traits.map((trait) => ({ label: names[trait], stroke: colour(`kind-${trait}`), fill: colour(`kind-${trait}`), paths: uPlot.paths.bars!({ size: [0.9, 24, 2] }), points: { show: false } }))],
  }), [isDark.value, shownKey]);
  const at = chosen === null ? points.length - 1 : points.findIndex((point) => formatPoint(point) === chosen);
  const point = points[at];
  const choose = (index: number): void => { const picked = points[index]; if (picked !== undefined) onChoose(picked); };
  const onReady = (plot: uPlot): void => {
    plot.over.addEventListener('click', () => { const { idx } = plot.cursor; if (idx != null) choose(idx); });
  };
  if (points.length === 0) return <p class="quiet">There are no points yet.</p>;
  return (
    <figure class="timeline">
      <Plot options={options} data={data} heightPx={140} label={`${points.length} points; what changed at each`} onReady={onReady} />
      <label>
        <span class="visually-hidden">Point</span>
        <input type="range" min={0} max={points.length - 1} step={1} value={at} aria-valuetext={point === undefined ? 'none' : describePoint(point, atMs, formatSpan)}
          onInput={({ currentTarget }) => choose(Number(currentTarget.value))} />
      </label>
      <figcaption>
        <span class="legend">{traits.filter((trait) => shown.has(trait)).map((trait) => <span key={trait}><i class={`swatch kind-${trait}`} />{names[trait]}</span>)}</span>
        <span class="quiet">{formatInstant(points[0]!.cutAtMs)} – {formatInstant(points.at(-1)!.cutAtMs)}</span>
      </figcaption>
    </figure>
  );
}
