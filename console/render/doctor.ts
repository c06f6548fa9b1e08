/** What `doctor` found, as a page. Pure. */
import type { DoctorReport, Verdict } from '../doctor/check.ts';
import { formatTable, tint, type Look, type Tone } from './look.ts';
import { printable } from './units.ts';

const tones = { ok: 'good', warn: 'working', fail: 'bad' } as const satisfies Record<Verdict, Tone>;

export function formatDoctor(look: Look, report: DoctorReport): string {
  const blocks = [formatTable(look, [{ head: '' }, { head: 'CHECK' }, { head: 'FOUND' }],
    report.checks.map(({ name, verdict, found }) => [tint(look, tones[verdict], verdict), printable(name), printable(found)]))];
  const advice = report.checks.filter((check) => check.advice !== '').map(({ name, verdict, advice }) => `${tint(look, tones[verdict], verdict.padEnd(4))}  ${printable(name)}: ${printable(advice)}`);
  if (advice.length > 0) blocks.push(advice.join('\n'));
  if (report.install.length > 0) blocks.push(`To install what is missing:\n  apt install ${report.install.join(' ')}`);
  blocks.push(closing(look, report.verdict));
  return `${blocks.join('\n\n')}\n`;
}

function closing(look: Look, verdict: Verdict): string {
  switch (verdict) {
    case 'ok': return tint(look, 'good', 'All is well.');
    case 'warn': return tint(look, 'working', 'It will work; see the warnings.');
    case 'fail': return tint(look, 'bad', 'It will not work yet.');
    default: return verdict satisfies never;
  }
}
