import t from 'tap';
import { sourceProof, targetProof } from '../../journal/identity.ts';
import { creditBytes } from '../../journal/limits.ts';
import type { SourceMessage } from '../../journal/wire.ts';
import { planConsequence } from '../../replica-target/ingest/consequence-plan.ts';
import type { PairingKey } from '../../replica-target/ingest/peers.ts';
import { planHandshake, type HandshakeFactsOfTarget, type HandshakeState } from '../../replica-target/ingest/connection-plan.ts';

const secrets = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
const keysOf = (state: PairingKey['state']): readonly PairingKey[] => secrets.map((secret) => ({ secret, state }));
const facts: HandshakeFactsOfTarget = { targetId: 'bb'.repeat(16), targetName: 'bravo', fingerprint: '44'.repeat(32), nonce: '33'.repeat(32), shown: null, source: null, keys: keysOf('shared') };
const shown = { fingerprint: '55'.repeat(32), expiresAtMs: 9 };
const hello: SourceMessage = { t: 'hello', versions: [1, 2], sourceId: 'aa'.repeat(16), sourceName: 'alpha', nonce: '22'.repeat(32) };
const said = { sourceNonce: hello.nonce, targetNonce: facts.nonce, fingerprint: facts.fingerprint };

function greeted(): HandshakeState {
  const step = planHandshake({ phase: 'hello' }, hello, facts);
  if (step.step !== 'reply') throw new Error(step.step);
  return step.state;
}

t.test('hello, challenge, auth, welcome', async (t) => {
  const step = planHandshake({ phase: 'hello' }, hello, facts);
  t.match(step, { step: 'reply', reply: { t: 'challenge', version: 1, targetId: facts.targetId, targetName: 'bravo', nonce: facts.nonce } });
  for (const secret of secrets) {
    t.same(planHandshake(greeted(), { t: 'auth', mac: sourceProof({ secret, ...said }) }, facts), {
      step: 'reply', state: { phase: 'open', sourceId: hello.sourceId, sourceName: 'alpha', sourceNonce: hello.nonce }, reply: { t: 'welcome', mac: targetProof({ secret, ...said }), creditBytes },
    }, 'with any of the secrets that were given out; the target proves the same one');
  }
});

t.test('there is no other way in', async (t) => {
  const refusals: [HandshakeState, SourceMessage, string][] = [
    [{ phase: 'hello' }, { ...hello, versions: [2] }, 'WIRE_VERSION'],
    [{ phase: 'hello' }, { t: 'auth', mac: '00'.repeat(32) }, 'WIRE_GARBAGE'],
    [{ phase: 'hello' }, { t: 'seedEnd', group: 'cc'.repeat(16) }, 'WIRE_GARBAGE'],
    [greeted(), hello, 'WIRE_GARBAGE'],
    [greeted(), { t: 'auth', mac: '00'.repeat(32) }, 'WIRE_SECRET'],
    [greeted(), { t: 'auth', mac: sourceProof({ secret: Buffer.alloc(32, 3), ...said }) }, 'WIRE_SECRET'],
    [greeted(), { t: 'auth', mac: targetProof({ secret: secrets[0]!, ...said }) }, 'WIRE_SECRET'],
    [greeted(), { t: 'auth', mac: sourceProof({ secret: secrets[0]!, ...said, targetNonce: '55'.repeat(32) }) }, 'WIRE_SECRET'],
    [greeted(), { t: 'auth', mac: sourceProof({ secret: secrets[0]!, ...said, fingerprint: '55'.repeat(32) }) }, 'WIRE_SECRET'],
    [{ phase: 'pairing' }, hello, 'WIRE_GARBAGE'],
    [{ phase: 'open', sourceId: hello.sourceId, sourceName: 'alpha', sourceNonce: hello.nonce }, hello, 'WIRE_GARBAGE'],
    [greeted(), { t: 'auth' }, 'WIRE_SECRET'],
  ];
  for (const [state, message, code] of refusals) t.match(planHandshake(state, message, facts), { step: 'refuse', code }, `${state.phase}: ${message.t}`);
  t.match(planHandshake(greeted(), { t: 'auth', mac: sourceProof({ secret: secrets[0]!, ...said }) }, { ...facts, keys: [] }), { step: 'refuse', code: 'WIRE_SECRET' }, 'no secret was given out');
});

t.test('a certificate that is pinned is a proof, for the source whose it is', async (t) => {
  const source = { sourceId: hello.sourceId, name: 'as-paired' };
  const known = { ...facts, keys: [], shown, source };
  t.match(planHandshake({ phase: 'hello' }, hello, known), { reply: { certificate: shown.fingerprint } });
  t.same(planHandshake(greeted(), { t: 'auth' }, known), {
    step: 'reply', state: { phase: 'open', sourceId: hello.sourceId, sourceName: 'as-paired', sourceNonce: hello.nonce }, reply: { t: 'welcome', creditBytes, paired: shown.fingerprint },
  }, 'without a secret, and by the name that it was paired with');
  t.match(planHandshake(greeted(), { t: 'auth' }, { ...known, source: { ...source, sourceId: 'cc'.repeat(16) } }), { step: 'refuse', code: 'WIRE_SECRET' }, 'another source’s certificate');
  t.match(planHandshake(greeted(), { t: 'auth' }, { ...known, source: null }), { step: 'refuse', code: 'WIRE_SECRET' }, 'nobody’s certificate');
});

t.test('an invitation binds both certificates, and is used up before the welcome', async (t) => {
  const invited = { ...facts, keys: keysOf('open'), shown };
  const prove = (secret: Buffer, sourceFingerprint?: string): SourceMessage => ({ t: 'auth', mac: sourceProof({ secret, ...said, sourceFingerprint }) });
  t.match(planHandshake(greeted(), prove(secrets[1]!, shown.fingerprint), invited), {
    step: 'pair', key: { secret: secrets[1] }, claim: { sourceId: hello.sourceId, sourceName: 'alpha', certificate: shown }, open: { phase: 'open' },
    reply: { t: 'welcome', paired: shown.fingerprint, mac: targetProof({ secret: secrets[1]!, ...said, sourceFingerprint: shown.fingerprint }) },
  });
  t.match(planHandshake(greeted(), prove(secrets[1]!), invited), { step: 'refuse', code: 'WIRE_SECRET' }, 'a proof that binds no certificate');
  t.match(planHandshake(greeted(), prove(secrets[1]!, '66'.repeat(32)), invited), { step: 'refuse', code: 'WIRE_SECRET' }, 'a proof made for another certificate');
  t.match(planHandshake(greeted(), prove(secrets[1]!), { ...invited, shown: null }), { step: 'refuse', code: 'WIRE_SECRET' }, 'no certificate');
  for (const [state, code] of [['expired', 'PAIRING_EXPIRED'], ['used', 'PAIRING_USED']] as const) {
    t.match(planHandshake(greeted(), prove(secrets[0]!, shown.fingerprint), { ...invited, keys: keysOf(state) }), { step: 'refuse', code });
    t.match(planHandshake(greeted(), prove(Buffer.alloc(32, 9), shown.fingerprint), { ...invited, keys: keysOf(state) }), { step: 'refuse', code: 'WIRE_SECRET' }, 'only who has the token hears why');
    t.match(planHandshake(greeted(), prove(secrets[0]!, shown.fingerprint), { ...invited, keys: keysOf(state), source: { sourceId: hello.sourceId, name: 'alpha' } }), { step: 'reply' }, 'a source that has been paired meanwhile is let in: it lost the welcome');
  }
});

t.test('what is the target’s own trouble holds, what is the peer’s closes, the rest refuses the group', async (t) => {
  t.same((['STORE_FULL', 'STORE_SYNC', 'RECORD_CORRUPT', 'RECORD_MISPLACED', 'WIRE_GARBAGE', 'DELTA_BASE', 'TERM_OLD', 'GROUP_FAILED_OVER', 'STORE_CORRUPT', 'INTERNAL'] as const).map(planConsequence),
    ['held', 'held', 'closed', 'closed', 'closed', 'refused', 'refused', 'refused', 'refused', 'refused']);
});
