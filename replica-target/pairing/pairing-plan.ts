/**
 * Who may be paired, and what is then known, decided from what is known before. Pure: no file, no clock. The shape is that of
 * `pairings.json`. Invariants: an invitation pairs one source; a source that is known, by a certificate or by groups that it has here, is
 * never taken over by another certificate, unless a person named it in the invitation.
 */
import { z } from 'zod';
import { Fault } from '../../journal/fault.ts';
import { safeName } from '../../journal/wire.ts';
import type { PairingClaim, ShownCertificate } from '../ingest/peers.ts';

const hex = (bytes: number) => z.string().regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`));
const certificate = z.object({ fingerprint: hex(32), expiresAtMs: z.number(), sinceMs: z.number() });

export const pairingsShape = z.object({
  /** Secrets of releases that had no certificates of sources: good for those that were paired by them, until they have shown one. */
  pairings: z.array(z.object({ secretHex: hex(32), issuedAtMs: z.number(), isUsed: z.boolean().optional() })).default([]),
  invitations: z.array(z.object({
    secretHex: hex(32),
    /** The one source that it is for. */
    name: safeName.optional(),
    madeAtMs: z.number(),
    expiresAtMs: z.number(),
    used: z.object({ sourceId: hex(16), atMs: z.number() }).optional(),
  })).default([]),
  sources: z.array(z.object({
    sourceId: hex(16),
    name: safeName,
    pairedAtMs: z.number(),
    revokedAtMs: z.number().optional(),
    /** The one in use, and the one that was announced after it. */
    certificates: z.array(certificate).min(1),
    /** Of the target's, the last one whose announcement the source has noted. */
    notedFingerprint: hex(32).optional(),
  })).default([]),
});
export type Pairings = z.infer<typeof pairingsShape>;
export type SourceRecord = Pairings['sources'][number];

/** How long a spent invitation is remembered, so that its token is refused by name, ms. */
const rememberedMs = 86_400_000;
/** Each costs two HMACs at every handshake of a stranger. */
export const invitationsMax = 64;

/** Without what is too old to say anything about. */
export function forgetSpent(pairings: Pairings, nowMs: number): Pairings {
  const invitations = pairings.invitations.filter(({ used, expiresAtMs }) => Math.max(used?.atMs ?? 0, expiresAtMs) + rememberedMs > nowMs);
  return { ...pairings, invitations };
}

/**
 * `hasGroups`: a group here belongs to that source. `source`: as it is known from now on; null, one of an earlier release, which has no certificate to be known by.
 * Faults: PAIRING_USED, PAIRING_FOREIGN, WIRE_SECRET.
 */
export function planPairing(pairings: Pairings, secretHex: string, claim: PairingClaim, hasGroups: boolean, nowMs: number): { readonly next: Pairings; readonly source: SourceRecord | null } {
  const { sourceId, sourceName, certificate } = claim;
  const known = pairings.sources.find((one) => one.sourceId === sourceId);
  const isSameCertificate = known?.certificates.some(({ fingerprint }) => fingerprint === certificate?.fingerprint) ?? false;
  if (certificate !== null) refuseTaken(pairings, sourceId, certificate.fingerprint);
  const old = pairings.pairings.find((one) => one.secretHex === secretHex);
  if (old !== undefined) {
    if (known !== undefined && (!isSameCertificate || known.revokedAtMs !== undefined)) throw foreign(`the source ${known.name} is known by another certificate, or its pairing was revoked: a secret of an earlier release does not change that`);
    // Several sources may have been paired by one secret: those that are here already are all let in.
    if (known === undefined && old.isUsed === true && !hasGroups) throw new Fault('PAIRING_USED', 'the token has paired a source already');
    if (certificate === null) return { next: pairings, source: null };
    return withSource({ ...pairings, pairings: pairings.pairings.map((one) => (one === old ? { ...one, isUsed: true } : one)) }, known, claim, certificate, nowMs);
  }
  if (certificate === null) throw new Fault('WIRE_SECRET', 'a source that shows no certificate cannot be paired');
  const invitation = pairings.invitations.find((one) => one.secretHex === secretHex);
  if (invitation === undefined) throw new Fault('WIRE_SECRET', 'there is no such invitation');
  if (invitation.used !== undefined) throw new Fault('PAIRING_USED', 'the invitation has paired a source already');
  if (invitation.name !== undefined && invitation.name !== sourceName) throw foreign(`the invitation is for ${invitation.name}, and this is ${sourceName}`);
  const isMeant = invitation.name !== undefined && (known === undefined || known.name === invitation.name);
  if (!isMeant && known !== undefined && !isSameCertificate) throw foreign(`the source ${known.name} is paired with another certificate`);
  if (!isMeant && known?.revokedAtMs !== undefined) throw foreign(`the pairing of ${known.name} was revoked`);
  if (!isMeant && known === undefined && hasGroups) throw foreign(`there are groups of the source ${sourceName} here, which it was paired for in another way`);
  const used = { sourceId, atMs: nowMs };
  return withSource({ ...pairings, invitations: pairings.invitations.map((one) => (one === invitation ? { ...one, used } : one)) }, known, claim, certificate, nowMs);
}

function withSource(pairings: Pairings, known: SourceRecord | undefined, { sourceId, sourceName }: PairingClaim, certificate: ShownCertificate, nowMs: number): { readonly next: Pairings; readonly source: SourceRecord } {
  const isSame = known !== undefined && known.revokedAtMs === undefined && known.certificates.some(({ fingerprint }) => fingerprint === certificate.fingerprint);
  const source: SourceRecord = {
    sourceId, name: sourceName, pairedAtMs: isSame ? known.pairedAtMs : nowMs,
    certificates: isSame ? known.certificates : [{ ...certificate, sinceMs: nowMs }],
  };
  return { next: { ...pairings, sources: [...pairings.sources.filter((one) => one.sourceId !== sourceId), source] }, source };
}

/** The certificate beside the one in use, in the place of one that was announced before. Faults: PAIRING_FOREIGN, PAIRING_REVOKED. */
export function planRenewal(pairings: Pairings, sourceId: string, next: ShownCertificate, nowMs: number): Pairings {
  refuseTaken(pairings, sourceId, next.fingerprint);
  return changed(pairings, sourceId, (source) => {
    const [inUse] = source.certificates;
    if (source.certificates.some(({ fingerprint }) => fingerprint === next.fingerprint)) return source;
    return { ...source, certificates: [inUse!, { ...next, sinceMs: nowMs }] };
  });
}

/** The certificate was seen in use: those before it are dropped. */
export function planUse(pairings: Pairings, sourceId: string, fingerprint: string): Pairings {
  return changed(pairings, sourceId, (source) => {
    const at = source.certificates.findIndex((one) => one.fingerprint === fingerprint);
    return at <= 0 ? source : { ...source, certificates: source.certificates.slice(at) };
  });
}

/** As the source asked for; the last one stays. */
export function planRetirement(pairings: Pairings, sourceId: string, fingerprint: string): Pairings {
  return changed(pairings, sourceId, (source) => {
    const certificates = source.certificates.filter((one) => one.fingerprint !== fingerprint);
    return certificates.length === 0 ? source : { ...source, certificates };
  });
}

/** Fault PAIRING_REVOKED. */
export function changed(pairings: Pairings, sourceId: string, change: (source: SourceRecord) => SourceRecord): Pairings {
  const known = pairings.sources.find((one) => one.sourceId === sourceId);
  if (known === undefined || known.revokedAtMs !== undefined) throw new Fault('PAIRING_REVOKED', `the pairing of ${known?.name ?? sourceId} was revoked`);
  const after = change(known);
  return after === known ? pairings : { ...pairings, sources: pairings.sources.map((one) => (one === known ? after : one)) };
}

/** The one source that is meant by its name, its id, or the beginning of its certificate's fingerprint. Fault PAIRING_UNKNOWN. */
export function chooseRecord(pairings: Pairings, which: string): SourceRecord {
  const named = pairings.sources.filter(({ name, sourceId }) => name === which || sourceId === which);
  const live = named.filter(({ revokedAtMs }) => revokedAtMs === undefined);
  const shown = /^[0-9a-f]{8,64}$/.test(which) ? pairings.sources.filter(({ certificates }) => certificates.some(({ fingerprint }) => fingerprint.startsWith(which))) : [];
  const found = live.length > 0 ? live : named.length > 0 ? named : shown;
  if (found.length === 1) return found[0]!;
  throw new Fault('PAIRING_UNKNOWN', found.length === 0 ? `no source ${which} is paired here` : `${found.length} sources are called ${which}: ${found.map(({ sourceId }) => sourceId).join(', ')}`, { which });
}

function refuseTaken(pairings: Pairings, sourceId: string, shown: string): void {
  const holder = pairings.sources.find((one) => one.sourceId !== sourceId && one.certificates.some(({ fingerprint }) => fingerprint === shown));
  if (holder !== undefined) throw foreign('the certificate is another source’s');
}

function foreign(message: string): Fault {
  return new Fault('PAIRING_FOREIGN', message);
}
