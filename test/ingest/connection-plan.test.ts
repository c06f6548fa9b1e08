import t from 'tap';
import { sourceProof, targetProof } from '../../journal/identity.ts';
import { creditBytes } from '../../journal/limits.ts';
import type { SourceMessage } from '../../journal/wire.ts';
import { planConsequence } from '../../replica-target/ingest/consequence-plan.ts';
import { planHandshake, type HandshakeFactsOfTarget, type HandshakeState } from '../../replica-target/ingest/connection-plan.ts';

const secrets = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
const facts: HandshakeFactsOfTarget = { targetId: 'bb'.repeat(16), targetName: 'bravo', fingerprint: '44'.repeat(32), nonce: '33'.repeat(32), secrets: () => secrets };
const hello: SourceMessage = { t: 'hello', versions: [1, 2], sourceId: 'aa'.repeat(16), sourceName: 'alpha', nonce: '22'.repeat(32) };
const said = { sourceNonce: hello.nonce, targetNonce: facts.nonce, fingerprint: facts.fingerprint };

function greeted(): HandshakeState {
  const step = planHandshake({ phase: 'hello' }, hello, facts);
  if (step.step === 'refuse') throw new Error(step.message);
  return step.state;
}

t.test('hello, challenge, auth, welcome', async (t) => {
  const step = planHandshake({ phase: 'hello' }, hello, facts);
  t.match(step, { step: 'reply', reply: { t: 'challenge', version: 1, targetId: facts.targetId, targetName: 'bravo', nonce: facts.nonce } });
  for (const secret of secrets) {
    t.same(planHandshake(greeted(), { t: 'auth', mac: sourceProof({ secret, ...said }) }, facts), {
      step: 'reply', state: { phase: 'open', sourceId: hello.sourceId, sourceName: 'alpha' }, reply: { t: 'welcome', mac: targetProof({ secret, ...said }), creditBytes },
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
    [{ phase: 'open', sourceId: hello.sourceId, sourceName: 'alpha' }, hello, 'WIRE_GARBAGE'],
  ];
  for (const [state, message, code] of refusals) t.match(planHandshake(state, message, facts), { step: 'refuse', code }, `${state.phase}: ${message.t}`);
  t.match(planHandshake(greeted(), { t: 'auth', mac: sourceProof({ secret: secrets[0]!, ...said }) }, { ...facts, secrets: () => [] }), { step: 'refuse', code: 'WIRE_SECRET' }, 'no secret was given out');
});

t.test('what is the target’s own trouble holds, what is the peer’s closes, the rest refuses the group', async (t) => {
  t.same((['STORE_FULL', 'STORE_SYNC', 'RECORD_CORRUPT', 'RECORD_MISPLACED', 'WIRE_GARBAGE', 'DELTA_BASE', 'TERM_OLD', 'GROUP_FAILED_OVER', 'STORE_CORRUPT', 'INTERNAL'] as const).map(planConsequence),
    ['held', 'held', 'closed', 'closed', 'closed', 'refused', 'refused', 'refused', 'refused', 'refused']);
});
