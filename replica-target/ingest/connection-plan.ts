/**
 * The handshake as the target sees it: a message in, the next state and what to do out (PROTOCOL.md, "Handshake"). Pure:
 * no socket, no clock, and the nonce is handed in. Invariant: there is no way to `open` but by a certificate that is pinned for
 * the very source that the peer says it is, or through a proof that one of the secrets made over this connection's two nonces
 * and both certificates, of which only an invitation that is open, and then durably used up, pairs a source. A peer without a
 * certificate has one way: the secret of an earlier release's pairing, which source-pairings.ts takes for sources that never showed one.
 */
import { isSameProof, sourceProof, targetProof } from '../../journal/identity.ts';
import type { FaultCode } from '../../journal/fault.ts';
import { creditBytes } from '../../journal/limits.ts';
import { commonVersion, protocolVersions, type SourceMessage, type TargetMessage } from '../../journal/wire.ts';
import type { PairedSource, PairingClaim, PairingKey, ShownCertificate } from './peers.ts';

export type HandshakeState =
  | { readonly phase: 'hello' }
  | { readonly phase: 'auth'; readonly sourceId: string; readonly sourceName: string; readonly sourceNonce: string; readonly targetNonce: string }
  /** An invitation is being used up. */
  | { readonly phase: 'pairing' }
  | { readonly phase: 'open'; readonly sourceId: string; readonly sourceName: string; readonly sourceNonce: string };

export interface HandshakeFactsOfTarget {
  readonly targetId: string;
  readonly targetName: string;
  /** Of the certificate that this target showed on the connection. */
  readonly fingerprint: string;
  /** 32 fresh random bytes, hex. */
  readonly nonce: string;
  /** What the source showed. */
  readonly shown: ShownCertificate | null;
  /** Whose that is. */
  readonly source: PairedSource | null;
  readonly keys: readonly PairingKey[];
}

type OpenState = Extract<HandshakeState, { readonly phase: 'open' }>;

export type HandshakeStep =
  | { readonly step: 'reply'; readonly state: HandshakeState; readonly reply: TargetMessage }
  /** When the invitation is used up, durably: on to `open`, with the reply. */
  | { readonly step: 'pair'; readonly key: PairingKey; readonly claim: PairingClaim; readonly open: OpenState; readonly reply: TargetMessage }
  | { readonly step: 'refuse'; readonly code: FaultCode; readonly message: string };

export function planHandshake(state: HandshakeState, message: SourceMessage, facts: HandshakeFactsOfTarget): HandshakeStep {
  switch (state.phase) {
    case 'hello': {
      if (message.t !== 'hello') return { step: 'refuse', code: 'WIRE_GARBAGE', message: `the first message must be hello, not ${message.t}` };
      const version = commonVersion(message.versions);
      if (version === null) {
        return { step: 'refuse', code: 'WIRE_VERSION', message: `this target speaks protocol version ${protocolVersions.join(', ')}, the source ${message.versions.join(', ')}` };
      }
      const { targetId, targetName, nonce, shown } = facts;
      return {
        step: 'reply',
        state: { phase: 'auth', sourceId: message.sourceId, sourceName: message.sourceName, sourceNonce: message.nonce, targetNonce: nonce },
        reply: { t: 'challenge', version, targetId, targetName, nonce, ...(shown === null ? {} : { certificate: shown.fingerprint }) },
      };
    }
    case 'auth':
      if (message.t !== 'auth') return { step: 'refuse', code: 'WIRE_GARBAGE', message: `the second message must be auth, not ${message.t}` };
      return planProof(state, message.mac, facts);
    case 'pairing':
      return { step: 'refuse', code: 'WIRE_GARBAGE', message: `${message.t} before the welcome` };
    case 'open':
      return { step: 'refuse', code: 'WIRE_GARBAGE', message: `${message.t} after the handshake` };
    default: return state satisfies never;
  }
}

function planProof(state: Extract<HandshakeState, { readonly phase: 'auth' }>, mac: string | undefined, { shown, source, keys, fingerprint }: HandshakeFactsOfTarget): HandshakeStep {
  const { sourceId, sourceName, sourceNonce, targetNonce } = state;
  const said = { sourceNonce, targetNonce, fingerprint, sourceFingerprint: shown?.fingerprint };
  // All are tried, so that the time taken does not tell which one fits.
  const fitting = mac === undefined ? [] : keys.filter(({ secret }) => isSameProof(sourceProof({ secret, ...said }), mac));
  const key = fitting[0];
  const open: OpenState = { phase: 'open', sourceId, sourceName: source?.name ?? sourceName, sourceNonce };
  const proof = key === undefined ? {} : { mac: targetProof({ secret: key.secret, ...said }) };
  if (source !== null && shown !== null && source.sourceId !== sourceId) return { step: 'refuse', code: 'WIRE_SECRET', message: 'the certificate is that of another source than the one that it is said to be' };
  const paired = shown === null ? {} : { paired: shown.fingerprint };
  // A source that is paired uses an invitation up all the same: nobody else is to find it open.
  if (key !== undefined && (key.state === 'old' || (key.state === 'open' && shown !== null))) return { step: 'pair', key, claim: { sourceId, sourceName, certificate: shown }, open, reply: { t: 'welcome', creditBytes, ...proof, ...paired } };
  if (source !== null && shown !== null) return { step: 'reply', state: open, reply: { t: 'welcome', creditBytes, ...proof, ...paired } };
  if (key === undefined) return { step: 'refuse', code: 'WIRE_SECRET', message: 'the source could not prove that it is paired with this target, nor that it has an invitation' };
  switch (key.state) {
    case 'shared': return { step: 'reply', state: open, reply: { t: 'welcome', creditBytes, ...proof } };
    case 'expired': return { step: 'refuse', code: 'PAIRING_EXPIRED', message: 'the invitation has expired' };
    case 'used': return { step: 'refuse', code: 'PAIRING_USED', message: 'the invitation has paired a source already' };
    case 'open': case 'old': return { step: 'refuse', code: 'WIRE_SECRET', message: 'a source that shows no certificate cannot be paired' };
    default: return key.state satisfies never;
  }
}
