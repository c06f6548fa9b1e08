/**
 * The certificate that a target shows, and the one that it is going to show. A new one is first told to every source over its
 * connection, and shown when all of them have noted it, so that none ever meets a certificate that it does not know. In
 * `target.json`, with the target's id. Invariant: the key of what is announced is durable before it is announced.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import { readJson, replaceJson } from '../../host/node/json-file.ts';
import { Fault } from '../../journal/fault.ts';
import { expiryOf, fingerprintOf, makeCertificate, type OwnCertificate } from '../../journal/identity.ts';

const pair = z.object({ key: z.string().min(1), cert: z.string().min(1) });
const shape = z.object({ targetId: z.string().regex(/^[0-9a-f]{32}$/), ...pair.shape, next: pair.optional() });

export interface CertificateReport {
  readonly fingerprint: string;
  readonly expiresAtMs: number;
  /** The one that comes after it. */
  readonly next: { readonly fingerprint: string; readonly expiresAtMs: number } | null;
}

export class OwnCertificates {
  readonly #path: string;
  #kept: z.infer<typeof shape>;
  readonly #listeners = new Set<(shown: OwnCertificate) => void>();

  private constructor(path: string, kept: z.infer<typeof shape>) {
    this.#path = path;
    this.#kept = kept;
  }

  /** Made on the first start. `given`: the operator's own; another than before comes after it, as by {@link begin}. Fault CONFIG_INVALID. */
  static async open(folder: string, name: string, given: OwnCertificate | null): Promise<OwnCertificates> {
    const path = join(folder, 'target.json');
    const kept = await readJson(path, shape);
    if (kept === null) {
      const made = { targetId: randomBytes(16).toString('hex'), ...(given ?? await makeCertificate(name)) };
      await replaceJson(path, made);
      return new OwnCertificates(path, made);
    }
    const certificates = new OwnCertificates(path, kept);
    if (given !== null) await certificates.#follow(given);
    return certificates;
  }

  get targetId(): string { return this.#kept.targetId; }
  get shown(): OwnCertificate { return { key: this.#kept.key, cert: this.#kept.cert }; }
  get next(): OwnCertificate | null { return this.#kept.next ?? null; }
  get fingerprint(): string { return fingerprintOf(this.#kept.cert); }

  /** Hears at once which one is shown, and whenever that changes. */
  onShown(listener: (shown: OwnCertificate) => void): void {
    this.#listeners.add(listener);
    listener(this.shown);
  }

  /** A new one is going to be shown: `given`, or one that is made. Fault REQUEST_INVALID: it is the one that is shown, or another is still on its way. */
  async begin(name: string, given: OwnCertificate | null): Promise<void> {
    if (given !== null && fingerprintOf(given.cert) === this.fingerprint) throw new Fault('REQUEST_INVALID', 'the certificate of the config is the one that is shown already: put the new one there first');
    if (this.#kept.next !== undefined && (given === null || fingerprintOf(given.cert) === fingerprintOf(this.#kept.next.cert))) return;
    await this.#keep({ ...this.#kept, next: given ?? await makeCertificate(name) });
  }

  /** The next one is shown from here on. */
  async promote(): Promise<void> {
    const { targetId, next } = this.#kept;
    if (next === undefined) return;
    await this.#keep({ targetId, ...next });
    for (const listener of this.#listeners) listener(this.shown);
  }

  report(): CertificateReport {
    const { cert, next } = this.#kept;
    return { fingerprint: fingerprintOf(cert), expiresAtMs: expiryOf(cert), next: next === undefined ? null : { fingerprint: fingerprintOf(next.cert), expiresAtMs: expiryOf(next.cert) } };
  }

  async #follow(given: OwnCertificate): Promise<void> {
    if (fingerprintOf(given.cert) !== this.fingerprint) await this.#keep({ ...this.#kept, next: given });
  }

  async #keep(kept: z.infer<typeof shape>): Promise<void> {
    await replaceJson(this.#path, kept);
    this.#kept = kept;
  }
}
