/** Axes and a cursor that all charts of a page share: time below, figures with their units at the left. */
import type { Axis, Options } from 'uplot';
import { colour } from './palette.ts';

export function timeAxis(): Axis {
  return { stroke: colour('quiet'), grid: { stroke: colour('line'), width: 1 }, ticks: { show: false }, font: '11px system-ui', values: [
    [3600 * 24 * 28, '{YYYY}-{MM}', null, null, null, null, null, null, 1], [3600 * 24, '{MM}-{DD}', null, null, null, null, null, null, 1],
    [60, '{HH}:{mm}', '\n{MM}-{DD}', null, '\n{MM}-{DD}', null, null, null, 1], [1, '{HH}:{mm}:{ss}', null, null, null, null, null, null, 1],
  ] };
}

export function figureAxis(format: (value: number) => string): Axis {
  return { stroke: colour('quiet'), grid: { stroke: colour('line'), width: 1 }, ticks: { show: false }, font: '11px system-ui', size: 64, values: (_plot, splits) => splits.map((value) => format(value)) };
}

export const quietCursor: NonNullable<Options['cursor']> = { drag: { x: true, y: false }, points: { size: 6 }, y: false };
