/**
 * What the door and the handshake ask about a peer: whose certificate it shows, and what it may prove itself with in place of
 * one that is known. The real answers are source-pairings.ts; a secret alone serves the benchmark and the simulation, whose
 * connections have no certificates.
 */
import type { FaultCode } from '../../journal/fault.ts';

/** What a source showed in its TLS handshake, whose key it has. */
export interface ShownCertificate {
  /** SHA-256, 64 hex digits. */
  readonly fingerprint: string;
  /** Wall clock, ms. */
  readonly expiresAtMs: number;
}

export interface PairedSource {
  readonly sourceId: string;
  readonly name: string;
}

/** A secret that a peer may prove that it knows, and what that is worth. */
export interface PairingKey {
  readonly secret: Buffer;
  /** `shared`: a secret alone, without certificates. `old`: a secret that an earlier release's pairing kept. Anything but those and `open` is only to say why it is refused. */
  readonly state: 'shared' | 'old' | 'open' | 'expired' | 'used';
}

export interface PairingClaim {
  readonly sourceId: string;
  readonly sourceName: string;
  /** Null: a source of an earlier release, that has none and proved an old secret. */
  readonly certificate: ShownCertificate | null;
}

export interface Peers {
  /** After TLS and before anything else: whether the handshake is worth having. Null: it is. */
  refusal(shown: ShownCertificate | null): { readonly code: FaultCode; readonly message: string } | null;
  /** Whose certificate it is; null for one that is nobody's, or whose pairing was revoked. */
  sourceOf(shown: ShownCertificate | null): PairedSource | null;
  keys(): readonly PairingKey[];
  /** Uses the key up: the source is paired, durably, when this resolves; one without a certificate is let in by an old secret, and nothing is pinned. Faults: PAIRING_EXPIRED, PAIRING_USED, PAIRING_FOREIGN, WIRE_SECRET. */
  pair(key: PairingKey, claim: PairingClaim): Promise<PairedSource>;
  /** A paired source has connected. */
  seen(source: PairedSource, shown: ShownCertificate, address: string): void;
  /** The source will show this certificate; durable when it resolves. Faults: PAIRING_FOREIGN, PAIRING_REVOKED. */
  renew(sourceId: string, next: ShownCertificate, der: Buffer): Promise<void>;
  /** The certificate is taken no more. The last one of a source stays. */
  retire(sourceId: string, fingerprint: string): Promise<void>;
  /** The source has noted the certificate that this target is going to show. */
  noted(sourceId: string, fingerprint: string): Promise<void>;
}

/** Whoever proves to know the secret is what it says it is. */
export function sharedSecrets(...secrets: readonly Buffer[]): Peers {
  const keys = secrets.map((secret): PairingKey => ({ secret, state: 'shared' }));
  const none = (): Promise<never> => Promise.reject(new Error('no certificates are pinned here'));
  return { refusal: () => null, sourceOf: () => null, keys: () => keys, pair: none, seen: () => undefined, renew: none, retire: none, noted: none };
}
