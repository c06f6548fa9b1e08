/** What it takes to protect a guest, as text. Pure. */
import type { Estimate } from '../estimate/estimate-plan.ts';
import { formatTable, tint, type Look } from './look.ts';
import { formatBytes, formatRate, formatSpan, printable } from './units.ts';

export function formatEstimate(look: Look, what: string, estimate: Estimate): string {
  const { forMs, sizeBytes, written, windows, capture, rpo, spoolBytes, firstSyncMs, space } = estimate;
  const table = formatTable(
    look, [{ head: 'EVERY' }, { head: 'SEEN', align: 'right' }, { head: 'MEDIAN', align: 'right' }, { head: '95 %', align: 'right' }, { head: 'LARGEST', align: 'right' }, { head: 'RATE', align: 'right' }],
    windows.map(({ windowMs, cycles, medianBytes, p95Bytes, maxBytes, bytesPerSecond }) => [formatSpan(windowMs), String(cycles), formatBytes(medianBytes), formatBytes(p95Bytes), formatBytes(maxBytes), formatRate(bytesPerSecond)]),
  );
  const line = (head: string, text: string): string => `${head.padEnd(12)}${text}`;
  return [
    `${tint(look, 'strong', printable(what))}, ${formatBytes(sizeBytes)} of disks, for ${formatSpan(forMs)}. Bytes are uncompressed; what compresses takes less.`,
    '', table, '',
    ...(written === null ? [] : [line('written', `${formatRate(written.bytesPerSecond)} in ${Math.round(written.operationsPerSecond)} writes a second, ${formatBytes(written.meanBytes)} each`)]),
    line('capture', `${capture.capture}: ${capture.why}`),
    line('link', `${formatRate(rpo.leastBytesPerSecond)} at least, ${formatRate(rpo.wantedBytesPerSecond)} so that 95 of 100 deltas are away before the next is cut`),
    line('RPO', rpo.expectedMs === null
      ? tint(look, 'bad', `a link of ${formatRate(rpo.linkBytesPerSecond)} cannot keep up with a point every ${formatSpan(rpo.rpoMs)}`)
      : `with a point every ${formatSpan(rpo.rpoMs)} over ${formatRate(rpo.linkBytesPerSecond)}, a loss costs ${formatSpan(rpo.expectedMs)} in 95 of 100 cases, and what a cut itself takes`),
    line('first sync', `${formatSpan(firstSyncMs)} over that link, if every byte had to go; zeroes and holes do not`),
    line('spool', `${formatBytes(spoolBytes)} for the largest delta that was seen`),
    line('journal', `${formatBytes(space.bytesPerHour)} an hour, ${formatBytes(space.bytesPerDay)} a day`),
    line('space', `replica ${formatBytes(space.replicaBytes)} at most; journal and history ${formatBytes(space.windowBytes)} for every point of ${formatSpan(space.windowMs)}`),
    line('', `before that, if no block were written twice: hourly points ${formatBytes(space.older.hourly)}, daily ${formatBytes(space.older.daily)}, weekly ${formatBytes(space.older.weekly)}, monthly ${formatBytes(space.older.monthly)}`),
    line('', 'a budget (`retention: { budget: … }`) bounds journal and history; what lies before the window then goes first'),
    ...(space.budgetBytes !== null && space.windowBytes > space.budgetBytes ? [tint(look, 'bad', line('', `the budget of ${formatBytes(space.budgetBytes)} is too small for the window: the target would take nothing more`))] : []),
  ].join('\n') + '\n';
}
