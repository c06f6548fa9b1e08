/**
 * The handshake as the target sees it: a message in, the next state and what to do out (PROTOCOL.md, "Handshake"). Pure:
 * no socket, no clock, and the nonce is handed in. Invariant: there is no way to `open` but through a proof that one of the
 * secrets made over this connection's two nonces and the target's own certificate.
 */
import { isSameProof, sourceProof, targetProof } from '../../journal/identity.ts';
import type { FaultCode } from '../../journal/fault.ts';
import { creditBytes } from '../../journal/limits.ts';
import { commonVersion, protocolVersions, type SourceMessage, type TargetMessage } from '../../journal/wire.ts';

export type HandshakeState =
  | { readonly phase: 'hello' }
  | { readonly phase: 'auth'; readonly sourceId: string; readonly sourceName: string; readonly sourceNonce: string; readonly targetNonce: string }
  | { readonly phase: 'open'; readonly sourceId: string; readonly sourceName: string };

export interface HandshakeFactsOfTarget {
  readonly targetId: string;
  readonly targetName: string;
  readonly fingerprint: string;
  /** 32 fresh random bytes, hex. */
  readonly nonce: string;
  readonly secrets: (sourceId: string) => readonly Buffer[];
}

export type HandshakeStep =
  | { readonly step: 'reply'; readonly state: HandshakeState; readonly reply: TargetMessage }
  | { readonly step: 'refuse'; readonly code: FaultCode; readonly message: string };

export function planHandshake(state: HandshakeState, message: SourceMessage, facts: HandshakeFactsOfTarget): HandshakeStep {
  switch (state.phase) {
    case 'hello': {
      if (message.t !== 'hello') return { step: 'refuse', code: 'WIRE_GARBAGE', message: `the first message must be hello, not ${message.t}` };
      const version = commonVersion(message.versions);
      if (version === null) {
        return { step: 'refuse', code: 'WIRE_VERSION', message: `this target speaks protocol version ${protocolVersions.join(', ')}, the source ${message.versions.join(', ')}` };
      }
      return {
        step: 'reply',
        state: { phase: 'auth', sourceId: message.sourceId, sourceName: message.sourceName, sourceNonce: message.nonce, targetNonce: facts.nonce },
        reply: { t: 'challenge', version, targetId: facts.targetId, targetName: facts.targetName, nonce: facts.nonce },
      };
    }
    case 'auth': {
      if (message.t !== 'auth') return { step: 'refuse', code: 'WIRE_GARBAGE', message: `the second message must be auth, not ${message.t}` };
      const { sourceId, sourceName, sourceNonce, targetNonce } = state;
      const said = { sourceNonce, targetNonce, fingerprint: facts.fingerprint };
      // All are tried, so that the time taken does not tell which one fits.
      const fitting = facts.secrets(sourceId).filter((secret) => isSameProof(sourceProof({ secret, ...said }), message.mac));
      if (fitting[0] === undefined) return { step: 'refuse', code: 'WIRE_SECRET', message: 'the source could not prove that it knows a secret of this target' };
      return {
        step: 'reply',
        state: { phase: 'open', sourceId, sourceName },
        reply: { t: 'welcome', mac: targetProof({ secret: fitting[0], ...said }), creditBytes },
      };
    }
    case 'open':
      return { step: 'refuse', code: 'WIRE_GARBAGE', message: `${message.t} after the handshake` };
    default: return state satisfies never;
  }
}
