/** One figure over time, and a line that it should stay below. */
import { useMemo } from 'preact/hooks';
import uPlot, { type AlignedData, type Options } from 'uplot';
import { figureAxis, quietCursor, timeAxis } from './axes.ts';
import { colour, isDark } from './palette.ts';
import { Plot } from './plot.tsx';

interface LineProps {
  readonly title: string;
  readonly atS: readonly number[];
  readonly values: readonly (number | null)[];
  readonly format: (value: number) => string;
  /** Drawn across. */
  readonly objective?: number;
}

export function LineChart({ title, atS, values, format, objective }: LineProps) {
  const data = useMemo<AlignedData>(() => [[...atS], [...values], ...(objective === undefined ? [] : [atS.map(() => objective)])], [atS, values, objective]);
  const options = useMemo<Omit<Options, 'width' | 'height'>>(() => ({
    legend: { show: false }, cursor: quietCursor, padding: [8, 8, 0, 0],
    scales: { x: { time: true }, y: { range: (_plot: uPlot, _min: number, max: number): [number, number] => [0, max * 1.1 || 1] } },
    axes: [timeAxis(), figureAxis(format)],
    series: [{}, { label: title, stroke: colour('accent'), width: 1.5, fill: colour('accent-soft'), spanGaps: false, points: { show: false } },
      ...(objective === undefined ? [] : [{ label: 'objective', stroke: colour('warn'), width: 1, dash: [4, 4], points: { show: false } }])],
  }), [title, objective === undefined, isDark.value]);
  const last = [...values].reverse().find((value) => value !== null) ?? null;
  return (
    <figure class="line">
      <figcaption><strong>{title}</strong> <span class="quiet">{last === null ? '' : `now ${format(last)}`}{objective === undefined ? '' : `, objective ${format(objective)}`}</span></figcaption>
      <Plot options={options} data={data} heightPx={120} label={`${title}${last === null ? '' : `: now ${format(last)}`}`} />
    </figure>
  );
}
