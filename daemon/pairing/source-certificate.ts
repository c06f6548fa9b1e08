/**
 * The certificate by which a source is known to its targets, and the one that comes after it. Made once, when the source first
 * starts, and kept in `certificate.json` of its data folder, which nobody else may read. Invariant: a key is durable before
 * any target hears of its certificate.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { readJson, replaceJson } from '../../host/node/json-file.ts';
import { Fault } from '../../journal/fault.ts';
import { expiryOf, fingerprintOf, makeCertificate, type OwnCertificate } from '../../journal/identity.ts';

const pair = z.object({ key: z.string().min(1), cert: z.string().min(1) });
const shape = z.object({ ...pair.shape, next: pair.optional() });

/** For people. */
export interface CertificateReport {
  readonly fingerprint: string;
  /** Wall clock, ms. */
  readonly expiresAtMs: number;
  /** The one that comes after it, once all targets have it. */
  readonly next: { readonly fingerprint: string; readonly expiresAtMs: number } | null;
}

export class SourceCertificate {
  readonly #path: string;
  #kept: z.infer<typeof shape>;

  private constructor(path: string, kept: z.infer<typeof shape>) {
    this.#path = path;
    this.#kept = kept;
  }

  /** `given`: the operator's own; another than before comes after it. Fault CONFIG_INVALID: the file is open to others, or of another shape. */
  static async open(folder: string, name: string, given: OwnCertificate | null): Promise<SourceCertificate> {
    const path = join(folder, 'certificate.json');
    const kept = await readJson(path, shape);
    if (kept === null) {
      const made = given ?? await makeCertificate(name);
      await replaceJson(path, made);
      return new SourceCertificate(path, made);
    }
    const certificate = new SourceCertificate(path, kept);
    // One that is on its way already goes first: some targets may know nothing else any more.
    if (given !== null && kept.next === undefined && fingerprintOf(given.cert) !== fingerprintOf(kept.cert)) await certificate.#keep({ ...kept, next: given });
    return certificate;
  }

  get current(): OwnCertificate { return { key: this.#kept.key, cert: this.#kept.cert }; }
  get next(): OwnCertificate | null { return this.#kept.next ?? null; }
  /** What a target that is paired from now on is shown. */
  get newest(): OwnCertificate { return this.next ?? this.current; }

  /** Fault REQUEST_INVALID: `given` is what is used already. */
  async begin(name: string, given: OwnCertificate | null): Promise<void> {
    if (given !== null && fingerprintOf(given.cert) === fingerprintOf(this.#kept.cert)) throw new Fault('REQUEST_INVALID', 'the certificate of the config is the one that is used already: put the new one there first');
    const { next } = this.#kept;
    if (next !== undefined) {
      if (given === null || fingerprintOf(given.cert) === fingerprintOf(next.cert)) return;
      throw new Fault('REQUEST_INVALID', 'another certificate is still on its way to the targets: wait for it (`afterimage pairings`)');
    }
    await this.#keep({ ...this.#kept, next: given ?? await makeCertificate(name) });
  }

  /** Every target knows the next one: there is no way back to the one before. */
  async promote(): Promise<void> {
    if (this.#kept.next !== undefined) await this.#keep(this.#kept.next);
  }

  report(): CertificateReport {
    const { cert, next } = this.#kept;
    return { fingerprint: fingerprintOf(cert), expiresAtMs: expiryOf(cert), next: next === undefined ? null : { fingerprint: fingerprintOf(next.cert), expiresAtMs: expiryOf(next.cert) } };
  }

  async #keep(kept: z.infer<typeof shape>): Promise<void> {
    await replaceJson(this.#path, kept);
    this.#kept = kept;
  }
}
