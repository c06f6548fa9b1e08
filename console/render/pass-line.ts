/**
 * Progress of a first sync or a resync in one line: bar, share, bytes, rate, time left. Pure. The rate is that of the last
 * reports where there are some (a watch), else the average since the pass began.
 */
import progress from 'cli-progress';
import type { GuestReport } from '../../daemon/report.ts';
import { tint, type Look } from './look.ts';
import { formatBytes, formatRate, formatShare, formatSpan } from './units.ts';

type Pass = NonNullable<GuestReport['pass']>;

/** What was done at an earlier report of the same pass. */
export interface PassSample { readonly atMs: number; readonly doneBytes: number }

/** Below this a rate says nothing, ms. */
const spanMsMin = 500;
const barSize = 24;

export function formatPass(look: Look, pass: Pass, atMs: number, earlier: PassSample | null = null): string {
  const share = pass.totalBytes > 0 ? Math.min(1, pass.doneBytes / pass.totalBytes) : 0;
  const bar = progress.Format.BarFormat(share, {
    barsize: barSize, barGlue: '',
    barCompleteString: progress.Presets.shades_classic.barCompleteChar!.repeat(barSize),
    barIncompleteString: progress.Presets.shades_classic.barIncompleteChar!.repeat(barSize),
  });
  const parts = [`${tint(look, pass.isPaused ? 'quiet' : 'working', bar)} ${formatShare(share)}`, `${formatBytes(pass.doneBytes)} of ${formatBytes(pass.totalBytes)}`];
  const rate = passRate(pass, atMs, earlier);
  if (pass.isPaused) parts.push('paused');
  else if (rate !== null) {
    parts.push(`${formatRate(rate)}${pass.rateBytesPerSecond > 0 ? ` (limit ${formatRate(pass.rateBytesPerSecond)})` : ''}`);
    if (rate > 0 && pass.totalBytes > 0) parts.push(`${formatSpan((Math.max(0, pass.totalBytes - pass.doneBytes) / rate) * 1000)} left`);
  }
  parts.push(`${formatBytes(pass.sentBytes)} sent`);
  return parts.join(', ');
}

/** Bytes per second, or null when there is nothing to tell it from yet. */
export function passRate(pass: Pass, atMs: number, earlier: PassSample | null): number | null {
  const isOfThisPass = earlier !== null && earlier.atMs >= pass.startedAtMs && earlier.doneBytes <= pass.doneBytes;
  const from = isOfThisPass ? earlier : { atMs: pass.startedAtMs, doneBytes: 0 };
  const spanMs = atMs - from.atMs;
  return spanMs < spanMsMin ? null : ((pass.doneBytes - from.doneBytes) / spanMs) * 1000;
}
