/** Whether a group's guest could start at the target, as a page and as a line. Pure. */
import type { StartFinding, StartReport, StartVerdict } from '../../replica-target/failover/start-finding.ts';
import { formatTable, tint, type Look, type Tone } from './look.ts';
import { formatSpan, printable } from './units.ts';

const tones = { fine: 'good', warning: 'working', refused: 'bad' } as const satisfies Record<StartVerdict, Tone>;

export function formatStartReport(look: Look, report: StartReport): string {
  const blocks = [formatTable(look, [{ head: '' }, { head: 'CHECK' }, { head: 'FOUND' }],
    report.findings.map(({ check, verdict, found }) => [tint(look, tones[verdict], verdict), printable(check), printable(found)]))];
  const advice = report.findings.filter((finding) => finding.advice !== '').map(({ check, verdict, advice: what }) => `${tint(look, tones[verdict], verdict.padEnd(7))}  ${printable(check)}: ${printable(what)}`);
  if (advice.length > 0) blocks.push(advice.join('\n'));
  blocks.push(closing(look, report));
  return `${blocks.join('\n\n')}\n`;
}

function closing(look: Look, { group, verdict }: StartReport): string {
  const name = printable(group);
  switch (verdict) {
    case 'fine': return tint(look, 'good', `${name} can start here.`);
    case 'warning': return tint(look, 'working', `${name} can start here; see the warnings.`);
    case 'refused': return tint(look, 'bad', `${name} could not start here as it should. An unplanned failover would be tried all the same.`);
    default: return verdict satisfies never;
  }
}

/** For `status`: the worst there is to say. */
export function formatStartLine(look: Look, atMs: number, report: StartReport): string {
  const { group, verdict, findings } = report;
  const worst = findings.find((finding) => finding.verdict === verdict);
  const age = `looked at ${formatSpan(Math.max(0, atMs - report.atMs))} ago`;
  if (verdict === 'fine' || worst === undefined) return tint(look, 'quiet', `${printable(group)}: can start here, ${age}`);
  const others = findings.filter((finding) => finding.verdict !== 'fine').length - 1;
  const more = others === 0 ? '' : `, and ${others} more`;
  const head = verdict === 'refused' ? 'could not start here' : 'would start here with a difference';
  return `${printable(group)}: ${tint(look, tones[verdict], head)}: ${formatFinding(worst)}${more} (${age}): afterimage doctor --failover ${printable(group)}`;
}

/** Before and after a failover: what is refused, one line each; nothing when nothing is. */
export function formatRefusals(look: Look, report: StartReport | null | undefined): string[] {
  return (report?.findings ?? []).filter(({ verdict }) => verdict === 'refused').map((finding) => `${tint(look, 'bad', 'refused')}  ${formatFinding(finding)}. ${printable(finding.advice)}`);
}

function formatFinding({ check, found }: StartFinding): string {
  return `${printable(check)}: ${printable(found)}`;
}
