/**
 * What an operator does about who may send to this target: invites, lists, revokes, and gives the target another certificate. It
 * joins what is remembered (source-pairings.ts, own-certificates.ts) with the door, and decides only when the next certificate is shown.
 */
import type { Logger } from 'pino';
import { readTlsFiles, type TlsPaths } from '../../host/node/tls-files.ts';
import { Fault } from '../../journal/fault.ts';
import { makeToken } from '../../journal/identity.ts';
import type { Ingest } from '../ingest/server.ts';
import type { CertificateReport, OwnCertificates } from './own-certificates.ts';
import { invitationMsDefault, type PairingsReport, type SourcePairings } from './source-pairings.ts';

export interface InvitationRequest {
  /** How long it can be used, ms; absent: 15 min. */
  readonly forMs?: number | undefined;
  /** The source that it is for; also one that is known by another certificate, or was revoked. Absent: any that is new. */
  readonly name?: string | undefined;
}

export interface Invitation {
  readonly token: string;
  /** host:port that the token names. */
  readonly address: string;
  readonly fingerprint: string;
  /** Wall clock, ms. */
  readonly expiresAtMs: number;
}

export interface RotationReport extends CertificateReport {
  /** Names of sources that have not noted the next one yet. */
  readonly awaited: readonly string[];
}

export interface TargetPairingsReport extends PairingsReport { readonly certificate: RotationReport }

export interface TargetPairingOptions {
  readonly name: string;
  readonly certificates: OwnCertificates;
  readonly pairings: SourcePairings;
  readonly tls: TlsPaths;
  /** Where sources find this target. */
  readonly address: () => { readonly host: string; readonly port: number };
  readonly ingest: () => Ingest;
  readonly log: Logger;
}

export class TargetPairing {
  readonly #o: TargetPairingOptions;
  #showing: Promise<void> = Promise.resolve();

  constructor(options: TargetPairingOptions) {
    this.#o = options;
  }

  get fingerprint(): string { return this.#o.certificates.fingerprint; }

  /** The one token of a new invitation. Fault REQUEST_INVALID: too many wait to be used. */
  async invite({ forMs = invitationMsDefault, name }: InvitationRequest): Promise<Invitation> {
    const { pairings, certificates } = this.#o;
    const { secret, expiresAtMs } = await pairings.invite(forMs, name ?? null);
    const { host, port } = this.#o.address();
    const { fingerprint, targetId } = certificates;
    return { token: makeToken({ host, port, fingerprint, secret, targetId, targetName: this.#o.name }), address: `${host}:${port}`, fingerprint, expiresAtMs };
  }

  report(): TargetPairingsReport {
    const certificate = this.certificate();
    return { ...this.#o.pairings.report(certificate.next?.fingerprint ?? null), certificate };
  }

  certificate(): RotationReport {
    const report = this.#o.certificates.report();
    return { ...report, awaited: report.next === null ? [] : this.#o.pairings.awaiting(report.next.fingerprint).map(({ name }) => name) };
  }

  /** Nothing more of the source is taken when it resolves. Fault PAIRING_UNKNOWN. */
  async revoke(which: string): Promise<{ readonly name: string; readonly sourceId: string }> {
    const source = await this.#o.pairings.revoke(which);
    await this.#o.ingest().expel(source.sourceId);
    this.#o.log.warn(source, `the pairing of ${source.name} is revoked`);
    await this.#showWhenNoted();
    return source;
  }

  /** See source-pairings.ts. Nothing more of who was let in by one is taken when it resolves. */
  async revokeOldSecrets(): Promise<number> {
    const count = await this.#o.pairings.revokeOldSecrets();
    await this.#o.ingest().expelUncertified();
    await this.#showWhenNoted();
    return count;
  }

  /** Begins to give the target another certificate. `isNow`: it is shown at once; sources that have not noted it must be paired anew. Faults: REQUEST_INVALID, CONFIG_INVALID. */
  async rotate(isNow: boolean): Promise<RotationReport> {
    const { certificates, name, tls, pairings } = this.#o;
    // Sources without a certificate are of a release that knows no announcement: they would find a target that they do not know.
    if (!isNow && pairings.hasOldSecrets) throw new Fault('REQUEST_INVALID', 'secrets of an earlier release still let sources in, which could not be told of another certificate: upgrade them, and `afterimage revoke --old-secrets` first');
    const { own } = await readTlsFiles(tls);
    if (certificates.next === null || own !== null) await certificates.begin(name, own);
    this.resume();
    if (isNow) await this.#show();
    else await this.#showWhenNoted();
    return this.certificate();
  }

  /** Goes on with what an earlier process had begun. */
  resume(): void {
    if (this.#o.certificates.next !== null) this.#o.ingest().announceRenewal();
  }

  /** A source has noted the next certificate. Never rejects. */
  onNoted(): void {
    this.#showWhenNoted().catch((error: unknown) => this.#o.log.error({ err: error }, 'the next certificate could not be made the one that is shown; it is tried again when a source connects'));
  }

  #showWhenNoted(): Promise<void> {
    // Who comes by an old secret could not be told, however the change began: a file of the operator's, an earlier process.
    return this.#o.pairings.hasOldSecrets || this.certificate().awaited.length > 0 ? Promise.resolve() : this.#show();
  }

  #show(): Promise<void> {
    const shown = this.#showing.then(async () => {
      const { certificates, log } = this.#o;
      if (certificates.next === null) return;
      await certificates.promote();
      this.#o.ingest().show(certificates.shown);
      log.warn({ fingerprint: certificates.fingerprint }, 'another certificate is shown to sources from now on');
    });
    this.#showing = shown.catch(() => undefined);
    return shown;
  }
}
