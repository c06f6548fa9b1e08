/**
 * Who is at the other end: certificates of both sides and their fingerprints, the pairing token that carries fingerprint and
 * secret to a source, the proofs by which both sides show that they know the secret, and the signature that a certificate
 * to come is announced with (PROTOCOL.md, "Handshake", "Rotation"). It holds no socket and writes no file. Invariant: nothing
 * here compares secret-dependent bytes in a time that depends on them.
 */
import { createHash, createHmac, createPrivateKey, sign, timingSafeEqual, verify, X509Certificate } from 'node:crypto';
import { generate } from 'selfsigned';
import { z } from 'zod';
import { Fault } from './fault.ts';
import { safeName } from './wire.ts';

/** Key and certificate, PEM. The key is as secret as the pairings: whoever keeps it does so in a file of mode 0600. */
export interface OwnCertificate { readonly key: string; readonly cert: string }

/** Bytes of a pairing's shared secret, and of the nonces of the handshake: as long as the HMAC's output. */
export const secretBytes = 32;
export const nonceBytes = 32;

/** Trust comes from the pinned fingerprint, so an end of validity would only be a date on which protection stops. */
const validityYears = 50;

/** EC P-256: what every TLS 1.3 peer takes, and cheap to sign with. */
export async function makeCertificate(commonName: string): Promise<OwnCertificate> {
  const notBeforeDate = new Date();
  // Clocks of two hosts differ; a certificate of the future would be refused by tools that look at it.
  notBeforeDate.setDate(notBeforeDate.getDate() - 1);
  const notAfterDate = new Date(notBeforeDate);
  notAfterDate.setFullYear(notAfterDate.getFullYear() + validityYears);
  const made = await generate([{ name: 'commonName', value: commonName }], { keyType: 'ec', curve: 'P-256', algorithm: 'sha256', notBeforeDate, notAfterDate });
  return { key: made.private, cert: made.cert };
}

/** SHA-256 of the certificate's DER, 64 lower-case hex digits. Takes PEM or DER. */
export function fingerprintOf(certificate: string | Buffer): string {
  return createHash('sha256').update(new X509Certificate(certificate).raw).digest('hex');
}

/** The end of its validity, wall clock, ms. Takes PEM or DER. */
export function expiryOf(certificate: string | Buffer): number {
  return Date.parse(new X509Certificate(certificate).validTo);
}

export interface PairingToken {
  /** Where the source finds the target. */
  readonly host: string;
  readonly port: number;
  readonly fingerprint: string;
  readonly secret: Buffer;
  readonly targetId: string;
  readonly targetName: string;
}

const tokenVersion = 1;
/** A token is some 300 characters; this bounds what is decoded. */
const tokenLengthMax = 4096;
const host = z.string().min(1).max(253).regex(/^[^\s/@\0]+$/);
const tokenShape = z.object({
  v: z.literal(tokenVersion),
  host,
  port: z.number().int().min(1).max(65_535),
  fingerprint: z.string().regex(/^[0-9a-f]{64}$/),
  secret: z.string().regex(/^[0-9a-f]{64}$/),
  targetId: z.string().regex(/^[0-9a-f]{32}$/),
  targetName: safeName,
});

/** One word that survives copy and paste: base64url of JSON. It contains the secret. */
export function makeToken(facts: PairingToken): string {
  const shape = tokenShape.parse({ v: tokenVersion, ...facts, secret: facts.secret.toString('hex') });
  return Buffer.from(JSON.stringify(shape), 'utf8').toString('base64url');
}

/** Throws PAIRING_TOKEN, which never repeats what was given: it may be most of a secret. */
export function readToken(token: string): PairingToken {
  const word = token.trim();
  if (word.length > tokenLengthMax || !/^[A-Za-z0-9_-]+$/.test(word)) throw new Fault('PAIRING_TOKEN', 'the pairing token is not one word of letters, digits, - and _');
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(word, 'base64url').toString('utf8'));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new Fault('PAIRING_TOKEN', 'the pairing token is cut off or altered');
  }
  const version = z.object({ v: z.number() }).safeParse(value);
  if (version.success && version.data.v !== tokenVersion) {
    throw new Fault('PAIRING_TOKEN', `the pairing token is of version ${version.data.v}; this release reads version ${tokenVersion}`, { version: version.data.v });
  }
  const parsed = tokenShape.safeParse(value);
  if (!parsed.success) throw new Fault('PAIRING_TOKEN', 'the pairing token lacks what it should carry', { members: parsed.error.issues.map((issue) => issue.path.join('.')) });
  const { v: _, secret, ...facts } = parsed.data;
  return { ...facts, secret: Buffer.from(secret, 'hex') };
}

/** What both sides have said before they prove anything. Hex, as on the wire; binding the fingerprints stops a relay with a certificate of its own. */
export interface HandshakeFacts {
  readonly secret: Buffer;
  readonly sourceNonce: string;
  readonly targetNonce: string;
  /** Of the target's certificate. */
  readonly fingerprint: string;
  /** Of the source's, where it showed one. */
  readonly sourceFingerprint?: string | undefined;
}

/** HMAC-SHA-256(secret, "source" ‖ target's nonce ‖ source's nonce ‖ target's fingerprint ‖ source's), hex. */
export function sourceProof(facts: HandshakeFacts): string {
  return proof(facts.secret, 'source', facts.targetNonce, facts.sourceNonce, facts.fingerprint, facts.sourceFingerprint ?? '');
}

/** HMAC-SHA-256(secret, "target" ‖ source's nonce ‖ target's nonce ‖ target's fingerprint ‖ source's), hex. */
export function targetProof(facts: HandshakeFacts): string {
  return proof(facts.secret, 'target', facts.sourceNonce, facts.targetNonce, facts.fingerprint, facts.sourceFingerprint ?? '');
}

/** What a certificate to come is announced in: of this connection and no other. Nonces are hex. */
export interface RenewalFacts { readonly role: 'source' | 'target'; readonly sourceNonce: string; readonly targetNonce: string }

/** DER of a certificate to come and a signature by its key, both base64. */
export interface Renewal { readonly certificate: string; readonly signature: string }

/** Shows that whoever announces the certificate has its key. */
export function signRenewal({ key, cert }: OwnCertificate, facts: RenewalFacts): Renewal {
  const { raw } = new X509Certificate(cert);
  const privateKey = createPrivateKey(key);
  return { certificate: raw.toString('base64'), signature: sign(digestFor(privateKey.asymmetricKeyType), renewalBytes(raw, facts), privateKey).toString('base64') };
}

/** The certificate's DER. Fault WIRE_GARBAGE: it is none, or its key did not sign this. */
export function checkRenewal({ certificate, signature }: Renewal, facts: RenewalFacts): Buffer {
  try {
    const { raw, publicKey } = new X509Certificate(Buffer.from(certificate, 'base64'));
    if (verify(digestFor(publicKey.asymmetricKeyType), renewalBytes(raw, facts), publicKey, Buffer.from(signature, 'base64'))) return raw;
  } catch (error) {
    throw new Fault('WIRE_GARBAGE', 'the peer announced a certificate that is none', {}, error);
  }
  throw new Fault('WIRE_GARBAGE', 'the peer announced a certificate without a proof that it has its key');
}

/** Null: the kind of key brings its own. */
function digestFor(keyType: string | undefined): 'sha256' | null {
  return keyType === 'ed25519' || keyType === 'ed448' ? null : 'sha256';
}

function renewalBytes(der: Buffer, { role, sourceNonce, targetNonce }: RenewalFacts): Buffer {
  return Buffer.concat([Buffer.from(`afterimage renewal ${role}`, 'ascii'), Buffer.from(sourceNonce, 'hex'), Buffer.from(targetNonce, 'hex'), createHash('sha256').update(der).digest()]);
}

export function isSameProof(a: string, b: string): boolean {
  const left = Buffer.from(a, 'hex');
  const right = Buffer.from(b, 'hex');
  return left.length === right.length && left.length > 0 && timingSafeEqual(left, right);
}

/** The parts have fixed lengths and the last may be absent, so joining them is unambiguous. */
function proof(secret: Buffer, role: 'source' | 'target', ...partsHex: readonly string[]): string {
  const mac = createHmac('sha256', secret).update(role, 'ascii');
  for (const part of partsHex) mac.update(Buffer.from(part, 'hex'));
  return mac.digest('hex');
}
