/**
 * The sources that a target takes, and the invitations by which it takes more: what pairing-plan.ts decides, kept in
 * `pairings.json` of the data folder and read back at the start. Invariant: what is answered is what is durable; a change that
 * could not be written is none.
 */
import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import type { Clock } from '../../host/clock.ts';
import { readJson, replaceJson } from '../../host/node/json-file.ts';
import type { Random } from '../../host/random.ts';
import { Fault, isFault } from '../../journal/fault.ts';
import { secretBytes } from '../../journal/identity.ts';
import type { PairedSource, PairingClaim, PairingKey, Peers, ShownCertificate } from '../ingest/peers.ts';
import { changed, chooseRecord, forgetSpent, invitationsMax, pairingsShape, planPairing, planRenewal, planRetirement, planUse, type Pairings, type SourceRecord } from './pairing-plan.ts';

/** Long enough to carry a word from one terminal to another. */
export const invitationMsDefault = 15 * 60_000;

/** How often a source that connects again and again has its last use written down, ms. */
const usePaceMs = 60_000;

const usesShape = z.record(z.string(), z.object({ atMs: z.number(), address: z.string() }));
type Uses = z.infer<typeof usesShape>;

/** A paired source, for people. */
export interface PairingReport {
  readonly sourceId: string;
  readonly name: string;
  readonly pairedAtMs: number;
  /** The one in use first; a second one was announced and not seen yet. */
  readonly certificates: readonly { readonly fingerprint: string; readonly expiresAtMs: number; readonly sinceMs: number }[];
  readonly lastUse: { readonly atMs: number; readonly address: string } | null;
  readonly revokedAtMs: number | null;
  /** Null where the target is not about to show another certificate. */
  readonly hasNotedRenewal: boolean | null;
}

export interface PairingsReport {
  readonly sources: readonly PairingReport[];
  /** Those that can still be used. */
  readonly invitations: readonly { readonly name: string | null; readonly madeAtMs: number; readonly expiresAtMs: number }[];
  /** Secrets of earlier releases that still let a source in which has a group here and no certificate yet. */
  readonly oldSecretCount: number;
}

export interface SourcePairingsOptions {
  /** Absolute; the target's data folder. */
  readonly folder: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Whether a group here belongs to that source. */
  readonly hasGroups: (sourceId: string) => boolean;
  /** PEM of certificates, one of which must have issued every source's. Null: they stand for themselves. */
  readonly ca: string | null;
}

export class SourcePairings implements Peers {
  readonly #o: SourcePairingsOptions;
  #pairings: Pairings;
  #uses: Uses;
  /** When an invitation that this process knows of ends by the monotonic clock: a wall clock that is set back lengthens none. */
  readonly #untilMs = new Map<string, number>();
  #changing: Promise<unknown> = Promise.resolve();
  readonly #authorities: readonly X509Certificate[];

  private constructor(options: SourcePairingsOptions, pairings: Pairings, uses: Uses) {
    this.#o = options;
    this.#pairings = pairings;
    this.#uses = uses;
    this.#authorities = options.ca === null ? [] : certificatesOf(options.ca);
    for (const { secretHex, madeAtMs, expiresAtMs } of pairings.invitations) this.#bound(secretHex, Math.min(expiresAtMs - options.clock.nowMs(), expiresAtMs - madeAtMs));
  }

  /** Fault CONFIG_INVALID: a file is open to others, or of another shape. */
  static async open(options: SourcePairingsOptions): Promise<SourcePairings> {
    const pairings = await readJson(join(options.folder, 'pairings.json'), pairingsShape);
    return new SourcePairings(options, pairings ?? pairingsShape.parse({}), await readUses(options.folder));
  }

  /** A secret for one pairing. Fault REQUEST_INVALID: there are too many that wait. */
  async invite(forMs: number, name: string | null): Promise<{ readonly secret: Buffer; readonly expiresAtMs: number }> {
    const secret = this.#o.random.bytes(secretBytes);
    const secretHex = secret.toString('hex');
    const madeAtMs = this.#o.clock.nowMs();
    const invitation = { secretHex, madeAtMs, expiresAtMs: madeAtMs + forMs, ...(name === null ? {} : { name }) };
    await this.#change((pairings) => {
      const { invitations, ...others } = forgetSpent(pairings, madeAtMs);
      // Those that are spent are only remembered, and go first.
      const waiting = invitations.filter((one) => this.#stateOf(one) === 'open');
      if (waiting.length >= invitationsMax) throw new Fault('REQUEST_INVALID', `${waiting.length} invitations wait to be used: let some expire`);
      const spent = invitations.filter((one) => this.#stateOf(one) !== 'open').slice(waiting.length - invitationsMax + 1);
      return { ...others, invitations: [...spent, ...waiting, invitation] };
    });
    this.#bound(secretHex, forMs);
    return { secret, expiresAtMs: invitation.expiresAtMs };
  }

  refusal(shown: ShownCertificate | null): ReturnType<Peers['refusal']> {
    if (shown === null) return this.hasOldSecrets ? null : { code: 'WIRE_SECRET', message: 'a peer without a certificate' };
    const holder = this.#holder(shown.fingerprint);
    const isInvited = this.#pairings.invitations.some((one) => one.name !== undefined && one.name === holder?.name && this.#stateOf(one) === 'open');
    if (holder?.revokedAtMs !== undefined && !isInvited) return { code: 'PAIRING_REVOKED', message: `the pairing of ${holder.name} was revoked` };
    if (holder !== undefined || this.#pairings.pairings.length > 0) return null;
    const isRemembered = forgetSpent(this.#pairings, this.#o.clock.nowMs()).invitations.length > 0;
    return isRemembered ? null : { code: 'WIRE_SECRET', message: 'a peer with a certificate that is not paired, and no invitation is open' };
  }

  sourceOf(shown: ShownCertificate | null): PairedSource | null {
    const holder = shown === null ? undefined : this.#holder(shown.fingerprint);
    return holder === undefined || holder.revokedAtMs !== undefined ? null : { sourceId: holder.sourceId, name: holder.name };
  }

  keys(): readonly PairingKey[] {
    return [
      ...this.#pairings.invitations.map((one) => ({ secret: Buffer.from(one.secretHex, 'hex'), state: this.#stateOf(one) })),
      ...this.#pairings.pairings.map(({ secretHex }) => ({ secret: Buffer.from(secretHex, 'hex'), state: 'old' as const })),
    ];
  }

  async pair({ secret }: PairingKey, claim: PairingClaim): Promise<PairedSource> {
    const secretHex = secret.toString('hex');
    let name = claim.sourceName;
    await this.#change((pairings) => {
      const invitation = pairings.invitations.find((one) => one.secretHex === secretHex);
      if (invitation !== undefined && this.#stateOf(invitation) === 'expired') throw new Fault('PAIRING_EXPIRED', 'the invitation has expired');
      const { next, source } = planPairing(pairings, secretHex, claim, this.#o.hasGroups(claim.sourceId), this.#o.clock.nowMs());
      name = source?.name ?? name;
      return next;
    });
    return { sourceId: claim.sourceId, name };
  }

  seen({ sourceId }: PairedSource, { fingerprint }: ShownCertificate, address: string): void {
    const atMs = this.#o.clock.nowMs();
    const before = this.#uses[sourceId];
    this.#uses = { ...this.#uses, [sourceId]: { atMs, address } };
    const isNoted = before !== undefined && before.address === address && atMs - before.atMs < usePaceMs;
    void this.#change((pairings) => planUse(pairings, sourceId, fingerprint), isNoted ? undefined : this.#uses).catch(() => {
      // What is only for people, or is tried again at the next connection.
    });
  }

  async renew(sourceId: string, next: ShownCertificate, der: Buffer): Promise<void> {
    if (this.#authorities.length > 0 && !isIssued(der, this.#authorities)) throw new Fault('PAIRING_FOREIGN', 'the certificate to come was issued by none of those that `tls.ca` holds');
    await this.#change((pairings) => planRenewal(pairings, sourceId, next, this.#o.clock.nowMs()));
  }

  retire(sourceId: string, fingerprint: string): Promise<void> {
    return this.#change((pairings) => planRetirement(pairings, sourceId, fingerprint));
  }

  noted(sourceId: string, fingerprint: string): Promise<void> {
    return this.#change((pairings) => changed(pairings, sourceId, (source) => (source.notedFingerprint === fingerprint ? source : { ...source, notedFingerprint: fingerprint })));
  }

  /** Durable when it resolves, with the source that it was. Fault PAIRING_UNKNOWN. */
  async revoke(which: string): Promise<PairedSource> {
    const { sourceId, name } = chooseRecord(this.#pairings, which);
    await this.#change((pairings) => ({ ...pairings, sources: pairings.sources.map((one) => (one.sourceId === sourceId ? { ...one, revokedAtMs: one.revokedAtMs ?? this.#o.clock.nowMs() } : one)) }));
    return { sourceId, name };
  }

  get hasOldSecrets(): boolean { return this.#pairings.pairings.length > 0; }

  /** Secrets of earlier releases let nobody in any more. Returns how many there were. */
  async revokeOldSecrets(): Promise<number> {
    const { length } = this.#pairings.pairings;
    await this.#change((pairings) => ({ ...pairings, pairings: [] }));
    return length;
  }

  /** Sources that have not noted yet that the target is going to show this certificate. */
  awaiting(fingerprint: string): readonly PairedSource[] {
    return this.#pairings.sources.filter((one) => one.revokedAtMs === undefined && one.notedFingerprint !== fingerprint).map(({ sourceId, name }) => ({ sourceId, name }));
  }

  /** `nextFingerprint`: of the certificate that the target is going to show. */
  report(nextFingerprint: string | null): PairingsReport {
    const { sources, invitations, pairings } = this.#pairings;
    return {
      sources: sources.map(({ sourceId, name, pairedAtMs, certificates, revokedAtMs, notedFingerprint }) => ({
        sourceId, name, pairedAtMs, certificates, lastUse: this.#uses[sourceId] ?? null, revokedAtMs: revokedAtMs ?? null, hasNotedRenewal: nextFingerprint === null ? null : notedFingerprint === nextFingerprint,
      })),
      invitations: invitations.filter((one) => this.#stateOf(one) === 'open').map(({ name, madeAtMs, expiresAtMs }) => ({ name: name ?? null, madeAtMs, expiresAtMs })),
      oldSecretCount: pairings.length,
    };
  }

  #holder(fingerprint: string): SourceRecord | undefined {
    return this.#pairings.sources.find(({ certificates }) => certificates.some((one) => one.fingerprint === fingerprint));
  }

  #stateOf({ secretHex, used, expiresAtMs }: Pairings['invitations'][number]): 'open' | 'expired' | 'used' {
    if (used !== undefined) return 'used';
    const isOver = this.#o.clock.nowMs() >= expiresAtMs || this.#o.clock.monotonicMs() >= (this.#untilMs.get(secretHex) ?? 0);
    return isOver ? 'expired' : 'open';
  }

  #bound(secretHex: string, forMs: number): void {
    this.#untilMs.set(secretHex, this.#o.clock.monotonicMs() + forMs);
  }

  /** One at a time, so that none is decided on what another is about to change. */
  #change(change: (pairings: Pairings) => Pairings, uses?: Uses): Promise<void> {
    const turn = this.#changing.then(async () => {
      const next = change(this.#pairings);
      if (next !== this.#pairings) await replaceJson(join(this.#o.folder, 'pairings.json'), next);
      this.#pairings = next;
      if (uses !== undefined) await replaceJson(join(this.#o.folder, 'pairing-uses.json'), uses, false);
    });
    this.#changing = turn.catch(() => undefined);
    return turn;
  }
}

/** Only for people, and not synced: what a power cut left of it keeps no target from starting. */
async function readUses(folder: string): Promise<Uses> {
  try {
    return await readJson(join(folder, 'pairing-uses.json'), usesShape) ?? {};
  } catch (error) {
    if (isFault(error, 'CONFIG_INVALID')) return {};
    throw error;
  }
}

function certificatesOf(pem: string): X509Certificate[] {
  return (pem.match(/-----BEGIN CERTIFICATE-----[^]+?-----END CERTIFICATE-----/g) ?? []).map((one) => new X509Certificate(one));
}

function isIssued(der: Buffer, authorities: readonly X509Certificate[]): boolean {
  const shown = new X509Certificate(der);
  return authorities.some((authority) => shown.checkIssued(authority) && shown.verify(authority.publicKey));
}
