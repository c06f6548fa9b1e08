import t from 'tap';
import fc from 'fast-check';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { isFault } from '../../journal/fault.ts';
import { checkRenewal, fingerprintOf, isSameProof, makeCertificate, makeToken, readToken, signRenewal, sourceProof, targetProof, type PairingToken } from '../../journal/identity.ts';

const facts: PairingToken = {
  host: 'replica.example.org', port: 7421, fingerprint: 'ab'.repeat(32), secret: Buffer.alloc(32, 7), targetId: '22'.repeat(16), targetName: 'bravo',
};

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (isFault(error)) return error.code;
    throw error;
  }
  return 'none';
}

t.test('a token says what it was made of', async (t) => {
  t.same(readToken(makeToken(facts)), facts);
  t.same(readToken(` ${makeToken({ ...facts, host: '2001:db8::1' })}\n`).host, '2001:db8::1', 'also with the white space that copying brings');
  t.match(makeToken(facts), /^[A-Za-z0-9_-]+$/, 'one word');
});

t.test('what is no token is refused by name, and never repeated', async (t) => {
  const whole = makeToken(facts);
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const value = JSON.parse(Buffer.from(whole, 'base64url').toString()) as Record<string, unknown>;
  for (const [what, token] of Object.entries({
    empty: '', words: 'not a token', cut: whole.slice(0, -20), long: whole + 'A'.repeat(5000), list: encode([1]),
    newer: encode({ ...value, v: 2 }), port: encode({ ...value, port: 0 }), name: encode({ ...value, targetName: '../etc' }), secret: encode({ ...value, secret: 'ab' }), fingerprint: encode({ ...value, fingerprint: 'AB'.repeat(32) }),
    host: encode({ ...value, host: 'a/b' }),
  })) t.equal(refusal(() => readToken(token)), 'PAIRING_TOKEN', what);
  try {
    readToken(whole.slice(0, -4));
  } catch (error) {
    t.notMatch((error as Error).message, new RegExp(whole.slice(10, 30)));
  }
  fc.assert(fc.property(fc.string(), (word) => refusal(() => readToken(word)) === 'PAIRING_TOKEN'));
});

t.test('proofs depend on everything that was said', async (t) => {
  const said = { secret: Buffer.alloc(32, 1), sourceNonce: '01'.repeat(32), targetNonce: '02'.repeat(32), fingerprint: '03'.repeat(32), sourceFingerprint: '05'.repeat(32) };
  const others = [
    { ...said, secret: Buffer.alloc(32, 2) }, { ...said, sourceNonce: '04'.repeat(32) }, { ...said, targetNonce: '04'.repeat(32) }, { ...said, fingerprint: '04'.repeat(32) },
    { ...said, sourceFingerprint: '04'.repeat(32) }, { ...said, sourceFingerprint: undefined },
    { ...said, sourceNonce: said.targetNonce, targetNonce: said.sourceNonce },
  ];
  for (const prove of [sourceProof, targetProof]) {
    t.ok(isSameProof(prove(said), prove({ ...said })));
    for (const other of others) t.notOk(isSameProof(prove(said), prove(other)));
  }
  t.notOk(isSameProof(sourceProof(said), targetProof(said)), 'one role’s proof is none of the other: nothing can be reflected');
  t.notOk(isSameProof('', ''), 'nothing is no proof');
  t.notOk(isSameProof(sourceProof(said), sourceProof(said).slice(2)));
});

t.test('a certificate of the target’s own, for longer than anyone protects', async (t) => {
  const { key, cert } = await makeCertificate('bravo');
  const x509 = new X509Certificate(cert);
  t.equal(fingerprintOf(cert), x509.fingerprint256.replaceAll(':', '').toLowerCase());
  t.equal(fingerprintOf(x509.raw), fingerprintOf(cert), 'PEM or DER');
  t.equal(x509.publicKey.asymmetricKeyType, 'ec');
  t.equal(x509.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1');
  t.ok(x509.checkPrivateKey(createPrivateKey(key)));
  t.ok(Date.parse(x509.validFrom) < Date.now() && Date.parse(x509.validTo) > Date.now() + 40 * 365 * 86_400_000);
  t.not(fingerprintOf((await makeCertificate('bravo')).cert), fingerprintOf(cert), 'each target has its own');
});

t.test('a certificate to come is announced by who has its key, on this connection and no other', async (t) => {
  const own = await makeCertificate('alpha');
  const facts = { role: 'source', sourceNonce: '01'.repeat(32), targetNonce: '02'.repeat(32) } as const;
  const renewal = signRenewal(own, facts);
  t.equal(fingerprintOf(checkRenewal(renewal, facts)), fingerprintOf(own.cert));
  const { certificate } = signRenewal(await makeCertificate('mallory'), facts);
  for (const [what, said, at] of [
    ['another certificate', { ...renewal, certificate }, facts], ['no certificate', { ...renewal, certificate: 'AAAA' }, facts], ['no signature', { ...renewal, signature: 'AAAA' }, facts],
    ['another connection', renewal, { ...facts, sourceNonce: '03'.repeat(32) }], ['the other role', renewal, { ...facts, role: 'target' as const }],
  ] as const) t.equal(refusal(() => checkRenewal(said, at)), 'WIRE_GARBAGE', what);
});
