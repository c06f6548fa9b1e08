/** Who is paired with whom, as text. Pure: everything in it comes from the reports. */
import type { SourcePairingsReport, SourceRotationReport } from '../../daemon/pairing/paired-targets.ts';
import type { RotationReport, TargetPairingsReport } from '../../replica-target/pairing/target-pairing.ts';
import { formatTable, tint, type Look } from './look.ts';
import { absent, formatInstant, formatSpan, printable } from './units.ts';

/** Sooner than this, the end of a certificate is something to do about, ms. */
const soonMs = 30 * 86_400_000;

export function formatTargetPairings(look: Look, report: TargetPairingsReport, atMs: number): string {
  const blocks = [formatOwn(look, 'target', report.certificate, atMs)];
  blocks.push(report.sources.length === 0 ? 'no source is paired: `afterimage target invite`' : formatTable(look, [
    { head: 'SOURCE' }, { head: 'STATE' }, { head: 'PAIRED' }, { head: 'LAST USE' }, { head: 'ADDRESS' }, { head: 'VALID UNTIL' }, { head: 'FINGERPRINT' },
  ], report.sources.map(({ name, pairedAtMs, certificates, lastUse, revokedAtMs, hasNotedRenewal }) => [
    printable(name),
    revokedAtMs !== null ? tint(look, 'bad', `revoked ${formatInstant(revokedAtMs)}`) : certificates.length > 1 ? tint(look, 'working', 'changes its certificate') : hasNotedRenewal === false ? tint(look, 'working', 'has not heard of the next one') : tint(look, 'good', 'paired'),
    formatInstant(pairedAtMs),
    lastUse === null ? absent : `${formatSpan(atMs - lastUse.atMs)} ago`,
    lastUse === null ? absent : printable(lastUse.address),
    formatEnd(look, certificates[0]!.expiresAtMs, atMs),
    certificates[0]!.fingerprint,
  ])));
  const notes = report.invitations.map(({ name, expiresAtMs }) => `an invitation${name === null ? '' : ` for ${printable(name)}`} can be used for ${formatSpan(expiresAtMs - atMs)}`);
  if (report.oldSecretCount > 0) notes.push(`${tint(look, 'bad', `${report.oldSecretCount} secrets of an earlier release`)} still let in sources that have a group here and no certificate yet: when all of them are listed above, \`afterimage revoke --old-secrets\`${report.certificate.next === null ? '' : '; the next certificate is not shown before'}`);
  if (notes.length > 0) blocks.push(notes.join('\n'));
  return `${blocks.join('\n\n')}\n`;
}

export function formatSourcePairings(look: Look, report: SourcePairingsReport, atMs: number): string {
  const blocks = [formatOwn(look, 'source', report.certificate, atMs)];
  blocks.push(report.targets.length === 0 ? 'no target is paired: `afterimage target invite` there, then `afterimage pair TOKEN` here' : formatTable(look, [
    { head: 'TARGET' }, { head: 'STATE' }, { head: 'PAIRED' }, { head: 'LAST USE' }, { head: 'ADDRESS' }, { head: 'FINGERPRINT' },
  ], report.targets.map(({ name, address, fingerprint, nextFingerprint, pairedAtMs, lastUseAtMs, revokedAtMs, isBySecret }) => [
    printable(name),
    revokedAtMs !== null ? tint(look, 'bad', `revoked ${formatInstant(revokedAtMs)}`) : isBySecret ? tint(look, 'working', 'by a secret, until it is next connected') : nextFingerprint !== null ? tint(look, 'working', 'changes its certificate') : tint(look, 'good', 'paired'),
    pairedAtMs === null ? absent : formatInstant(pairedAtMs),
    lastUseAtMs === null ? absent : `${formatSpan(atMs - lastUseAtMs)} ago`,
    printable(address),
    fingerprint,
  ])));
  return `${blocks.join('\n\n')}\n`;
}

/** What a rotation has come to. */
export function formatRotation({ fingerprint, next, awaited }: RotationReport | SourceRotationReport, role: 'source' | 'target'): string {
  if (next === null) return `this ${role} shows the certificate ${fingerprint} from now on\n`;
  return `the certificate ${next.fingerprint} comes next. ${awaited.map(printable).join(', ')} must hear of it first; they do as soon as they are connected (\`afterimage pairings\`)\n`;
}

function formatOwn(look: Look, role: string, certificate: RotationReport | SourceRotationReport, atMs: number): string {
  const { fingerprint, expiresAtMs, next, awaited } = certificate;
  const line = `${tint(look, 'strong', role)} with certificate ${fingerprint}, valid until ${formatEnd(look, expiresAtMs, atMs)}`;
  return next === null ? line : `${line}\nnext ${next.fingerprint}, valid until ${formatEnd(look, next.expiresAtMs, atMs)}; not known yet to ${awaited.map(printable).join(', ') || 'nobody that matters'}`;
}

/** Only an authority's certificates end soon enough to matter; a pinned one goes on being taken. */
function formatEnd(look: Look, expiresAtMs: number, atMs: number): string {
  return tint(look, expiresAtMs - atMs < soonMs ? 'bad' : 'quiet', formatInstant(expiresAtMs));
}
