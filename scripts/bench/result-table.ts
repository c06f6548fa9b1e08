/** A benchmark's result as people read it. Pure. */
import type { BenchResult } from './figures.ts';

export function tableOf({ name, ours, peer, unit, ratio, runs, rows, notes }: BenchResult): string {
  const head = ['', 'median', 'min', 'max', 'unit', 'ratio'];
  const cells = rows.map((row) => [
    row.what, String(row.spread.median), String(row.spread.min), String(row.spread.max), row.unit, row.ratio === undefined ? '' : row.ratio.toFixed(2),
  ]);
  const widths = head.map((title, column) => Math.max(title.length, ...cells.map((row) => row[column]!.length)));
  const line = (row: readonly string[]): string => row.map((cell, column) => (column === 0 || column === 4 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!))).join('  ').trimEnd();
  return [
    `${name}: ours ${ours} ${unit}, peer ${peer} ${unit}, ratio ${ratio.toFixed(2)} (medians of ${runs} runs; above 1 is better for us)`,
    '',
    line(head),
    ...cells.map(line),
    '',
    ...notes.map((note) => `  ${note}`),
    '',
  ].join('\n');
}
