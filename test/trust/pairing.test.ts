import t from 'tap';
import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { plainLook } from '../../console/render/look.ts';
import { formatTargetPairings } from '../../console/render/pairings.ts';
import { fingerprintOf, makeCertificate, makeToken, readToken } from '../../journal/identity.ts';
import { waitFor } from '../support/wait.ts';
import { attempt, isUp, limit, stolenFrom, trustSource, trustTarget } from './trust-rig.ts';

t.test('two commands pair a source, and from then on both are known by their certificates alone', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  const { token } = await target.running.operations.invite({});
  await source.targets.pair(token);
  const own = await stolenFrom(source);
  const [paired] = target.running.operations.pairings().sources;
  t.match(paired, { sourceId: source.sourceId, name: 'alpha', certificates: [{ fingerprint: fingerprintOf(own.cert) }], revokedAtMs: null });
  t.ok(paired!.pairedAtMs > Date.now() - 60_000 && paired!.certificates[0]!.expiresAtMs > Date.now());
  t.match(paired!.lastUse, { address: /127\.0\.0\.1/ });
  t.same(target.running.operations.pairings().invitations, [], 'the invitation is used up');
  for (const path of [join(source.folder, 'certificate.json'), join(source.folder, 'targets', 'bravo.json'), join(target.folder, 'pairings.json'), join(target.folder, 'target.json')]) {
    t.equal((await stat(path)).mode & 0o777, 0o600, path);
  }
  const secret = readToken(token).secret.toString('hex');
  t.notMatch(await readFile(join(source.folder, 'targets', 'bravo.json'), 'utf8'), secret, 'the source keeps no secret');
  await target.restart();
  await source.restart();
  await isUp(source.targets);
  t.match(target.running.report().sources, [{ sourceId: source.sourceId, name: 'alpha' }], 'both find each other again');
});

t.test('an expired, a used and a forged token pair nobody, and each is refused by its name', async (t) => {
  const target = await trustTarget(t);
  const { operations } = target.running;
  const certificate = await makeCertificate('mallory');
  const soon = await operations.invite({ forMs: 10 });
  await delay(Math.max(0, soon.expiresAtMs - Date.now()) + 1);
  await t.rejects(attempt(soon.token, { certificate, secret: readToken(soon.token).secret }), { code: 'PAIRING_EXPIRED' });
  const { token } = await operations.invite({});
  await (await trustSource(t)).targets.pair(token);
  const late = await trustSource(t, { name: 'late' });
  await t.rejects(late.targets.pair(token), { code: 'PAIRING_USED' }, 'the same token, another source');
  t.same([...late.targets.links.keys()], [], 'which keeps nothing of it');
  const forged = makeToken({ ...readToken(token), secret: Buffer.alloc(32, 7) });
  await t.rejects(late.targets.pair(forged), { code: 'WIRE_SECRET' }, 'an unknown secret is told nothing more');
  const elsewhere = makeToken({ ...readToken(token), fingerprint: '00'.repeat(32) });
  await t.rejects(late.targets.pair(elsewhere), { code: 'WIRE_FINGERPRINT' }, 'a token that names another certificate: the source sends nothing');
  await t.rejects(attempt((await operations.invite({})).token, { certificate, secret: Buffer.alloc(32, 1) }), { code: 'WIRE_SECRET' });
  t.same(operations.pairings().sources.map(({ name }) => name), ['alpha']);
});

t.test('invitations survive a restart of the target, open and spent ones alike', async (t) => {
  const target = await trustTarget(t);
  const [first, second] = [await target.running.operations.invite({}), await target.running.operations.invite({ name: 'alpha' })];
  await (await trustSource(t)).targets.pair(first.token);
  await target.restart();
  t.match(target.running.operations.pairings().invitations, [{ name: 'alpha' }]);
  const other = await trustSource(t, { name: 'other' });
  await t.rejects(other.targets.pair(first.token), { code: 'PAIRING_USED' });
  await t.rejects(other.targets.pair(second.token), { code: 'PAIRING_FOREIGN' }, 'it is for another');
});

t.test('a source that lost the welcome pairs by the same token once more; nobody else can', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  const { token } = await target.running.operations.invite({});
  // The target has used the invitation up, and the source was killed before it noted that.
  const own = await stolenFrom(source);
  (await attempt(token, { certificate: own, secret: readToken(token).secret, sourceId: source.sourceId, sourceName: 'alpha' })).close();
  await target.restart();
  await t.rejects(attempt(token, { certificate: await makeCertificate('mallory'), secret: readToken(token).secret, sourceId: source.sourceId }), { code: 'PAIRING_USED' });
  await source.targets.pair(token);
  t.equal(target.running.operations.pairings().sources.length, 1);
});

t.test('an invitation never takes over a source that is known, unless a person named it', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  const { operations } = target.running;
  await source.targets.pair((await operations.invite({})).token);
  const certificate = await makeCertificate('mallory');
  const claim = { certificate, sourceId: source.sourceId, sourceName: 'alpha' };
  const invited = async (name?: string) => { const { token } = await operations.invite({ name }); return attempt(token, { ...claim, secret: readToken(token).secret }); };
  await t.rejects(invited(), { code: 'PAIRING_FOREIGN' });
  await isUp(source.targets);
  (await invited('alpha')).close();
  t.match(operations.pairings().sources, [{ sourceId: source.sourceId, certificates: [{ fingerprint: fingerprintOf(certificate.cert) }] }], 'a rebuilt host, which was named');
});

t.test('a wrong certificate on either side costs a TLS handshake and nothing more', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  const { token } = await target.running.operations.invite({});
  await source.targets.pair(token);
  const own = await stolenFrom(source);
  const stranger = await makeCertificate('alpha');
  await t.rejects(attempt(token, { certificate: stranger, sourceId: source.sourceId }), { code: 'WIRE_SECRET' }, 'a certificate of the same name is another certificate');
  await t.rejects(attempt(token, { sourceId: source.sourceId, secret: readToken(token).secret }), { code: 'WIRE_SECRET' }, 'none at all');
  await t.rejects(attempt(token, { certificate: { key: stranger.key, cert: own.cert }, sourceId: source.sourceId }), /./, 'the right certificate without its key');
  await t.rejects(attempt(token, { certificate: own, sourceId: 'cd'.repeat(16) }), { code: 'WIRE_SECRET' }, 'the right certificate for another source');
  await t.rejects(attempt(token, { certificate: own, sourceId: source.sourceId, fingerprint: '11'.repeat(32) }), { code: 'WIRE_FINGERPRINT' }, 'a target that shows another than the pinned one');
  await isUp(source.targets);
});

t.test('who was never invited gets no further than the upgrade', async (t) => {
  const target = await trustTarget(t);
  const { fingerprint } = target.running.report();
  const token = makeToken({ host: '127.0.0.1', port: target.options.listen.port, fingerprint, secret: Buffer.alloc(32, 3), targetId: '22'.repeat(16), targetName: 'bravo' });
  await t.rejects(attempt(token, { certificate: await makeCertificate('mallory'), secret: Buffer.alloc(32, 3) }), { code: 'WIRE_SECRET', message: /takes no connection/ });
  t.equal(target.running.report().refusals['WIRE_SECRET'], 1);
});

t.test('revoking a source ends its connection at once, for good, also after a restart', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  const { operations } = target.running;
  const { token } = await operations.invite({});
  await source.targets.pair(token);
  const session = await source.targets.links.get('bravo')!.link.session(AbortSignal.timeout(10_000));
  t.match(await operations.revoke('alpha'), { sourceId: source.sourceId });
  t.same(target.running.report().sources, [], 'its connection is over when the command returns');
  t.match(await session.closed, { code: 'PAIRING_REVOKED' });
  await waitFor(() => source.targets.links.get('bravo')!.link.report().lastFault?.code === 'PAIRING_REVOKED', { ...limit, what: 'the source to hear why' });
  await target.restart();
  const own = await stolenFrom(source);
  await t.rejects(attempt(token, { certificate: own, sourceId: source.sourceId }), { code: 'PAIRING_REVOKED' });
  const plain = await target.running.operations.invite({});
  await t.rejects(attempt(plain.token, { certificate: own, sourceId: source.sourceId, secret: readToken(plain.token).secret }), { code: 'PAIRING_REVOKED' }, 'an invitation for somebody does not bring it back');
  await t.rejects(target.running.operations.revoke('nobody'), { code: 'PAIRING_UNKNOWN' });
  await source.targets.pair((await target.running.operations.invite({ name: 'alpha' })).token);
  t.match(target.running.operations.pairings().sources, [{ name: 'alpha', revokedAtMs: null }], 'one that names it does');
});

t.test('a source revokes a target: nothing is sent to it before they are paired anew', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  await source.targets.pair((await target.running.operations.invite({})).token);
  await source.targets.revoke('bravo');
  await waitFor(() => target.running.report().sources.length === 0, { ...limit, what: 'the connection to end' });
  await source.restart();
  await waitFor(() => source.targets.links.get('bravo')!.link.report().lastFault?.code === 'PAIRING_REVOKED', { ...limit, what: 'the link to say why' });
  t.match(source.targets.report().targets, [{ name: 'bravo', revokedAtMs: Number }]);
  await source.targets.pair((await target.running.operations.invite({})).token);
  await isUp(source.targets);
});

t.test('a key that others can read is refused, at both ends', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  await source.targets.pair((await target.running.operations.invite({})).token);
  await target.stop();
  for (const [path, start] of [
    [join(source.folder, 'certificate.json'), () => source.restart()], [join(source.folder, 'targets', 'bravo.json'), () => source.restart()],
    [join(target.folder, 'target.json'), () => target.restart()], [join(target.folder, 'pairings.json'), () => target.restart()],
  ] as const) {
    await chmod(path, 0o640);
    await t.rejects(start(), { code: 'CONFIG_INVALID', message: /readable by others \(mode 640\)/ }, path);
    await chmod(path, 0o600);
  }
  const [cert, key] = [join(target.folder, 'own.pem'), join(target.folder, 'own.key')];
  const own = await makeCertificate('bravo');
  await writeFile(cert, own.cert);
  await writeFile(key, own.key, { mode: 0o644 });
  await t.rejects(target.restart({ tls: { cert, key } }), { code: 'CONFIG_INVALID', message: /readable by others/ }, 'the operator’s own');
});

t.test('state files of pairings by a shared secret are read, and go over to certificates at the next connection', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  const secretHex = '77'.repeat(32);
  const { fingerprint } = target.running.report();
  await writeFile(join(target.folder, 'pairings.json'), JSON.stringify({ pairings: [{ secretHex, issuedAtMs: 5 }] }), { mode: 0o600 });
  await writeFile(join(source.folder, 'targets', 'bravo.json'), JSON.stringify({ name: 'bravo', host: '127.0.0.1', port: target.options.listen.port, fingerprint, secretHex }), { mode: 0o600 });
  await target.restart();
  await source.restart();
  await isUp(source.targets);
  t.match(target.running.operations.pairings(), { sources: [{ sourceId: source.sourceId, name: 'alpha' }], oldSecretCount: 1 });
  t.notMatch(await readFile(join(source.folder, 'targets', 'bravo.json'), 'utf8'), secretHex, 'the source has dropped the secret');
  t.match(source.targets.report().targets, [{ isBySecret: false, hasNewest: true }]);
  const token = makeToken({ host: '127.0.0.1', port: target.options.listen.port, fingerprint, secret: Buffer.from(secretHex, 'hex'), targetId: '22'.repeat(16), targetName: 'bravo' });
  const certificate = await makeCertificate('mallory');
  await t.rejects(attempt(token, { certificate, secret: Buffer.from(secretHex, 'hex') }), { code: 'PAIRING_USED' }, 'it brings in nobody new');
  await t.rejects(attempt(token, { certificate, secret: Buffer.from(secretHex, 'hex'), sourceId: source.sourceId }), { code: 'PAIRING_FOREIGN' }, 'nor anybody in the place of one that has gone over');
  t.equal(await target.running.operations.revokeOldSecrets(), 1);
  await t.rejects(attempt(token, { certificate, secret: Buffer.from(secretHex, 'hex') }), { code: 'WIRE_SECRET' });
  await target.restart();
  await source.restart();
  await isUp(source.targets);
});

t.test('a source of an earlier release, which has no certificate, goes on by its secret until it shows one', async (t) => {
  const target = await trustTarget(t);
  const secret = Buffer.alloc(32, 0x77);
  await writeFile(join(target.folder, 'pairings.json'), JSON.stringify({ pairings: [{ secretHex: secret.toString('hex'), issuedAtMs: 5 }] }), { mode: 0o600 });
  await target.restart();
  const { operations } = target.running;
  const token = makeToken({ host: '127.0.0.1', port: target.options.listen.port, fingerprint: target.running.report().fingerprint, secret, targetId: '22'.repeat(16), targetName: 'bravo' });
  await t.rejects(attempt(token, { secret: Buffer.alloc(32, 3) }), { code: 'WIRE_SECRET' }, 'another secret');
  await t.rejects(attempt(token, { secret: readToken((await operations.invite({})).token).secret }), { code: 'WIRE_SECRET' }, 'an invitation pairs certificates alone');
  (await attempt(token, { secret })).close();
  (await attempt(token, { secret })).close();
  t.match(operations.pairings(), { sources: [], oldSecretCount: 1 }, 'nothing is pinned, and it comes again');
  await t.rejects(operations.rotate(false), { code: 'REQUEST_INVALID' }, 'nobody could tell it of another certificate');
  const before = await attempt(token, { secret, sourceId: 'cd'.repeat(16) });
  (await attempt(token, { secret, certificate: await makeCertificate('mallory') })).close();
  t.match(operations.pairings().sources, [{ sourceId: 'ab'.repeat(16) }]);
  await t.rejects(attempt(token, { secret }), { code: 'PAIRING_FOREIGN' }, 'what has shown a certificate is not taken without it');
  await t.rejects(attempt(token, { secret, sourceId: 'ef'.repeat(16) }), { code: 'PAIRING_USED' }, 'nor is anybody new');
  t.equal(await operations.revokeOldSecrets(), 1);
  t.match(await before.closed, { code: 'PAIRING_REVOKED' }, 'who was let in by it is sent away');
  await t.rejects(attempt(token, { secret }), { code: 'WIRE_SECRET' });
  t.match(await operations.rotate(false), { awaited: ['mallory'] });
});

t.test('the operator’s own new certificate waits for secrets of an earlier release to be given up', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  await source.targets.pair((await target.running.operations.invite({})).token);
  const before = target.running.report().fingerprint;
  await target.stop();
  const path = join(target.folder, 'pairings.json');
  const pairings = JSON.parse(await readFile(path, 'utf8')) as object;
  await writeFile(path, JSON.stringify({ ...pairings, pairings: [{ secretHex: '77'.repeat(32), issuedAtMs: 5 }] }), { mode: 0o600 });
  const [cert, key] = [join(target.folder, 'own.pem'), join(target.folder, 'own.key')];
  const own = await makeCertificate('bravo');
  await writeFile(cert, own.cert);
  await writeFile(key, own.key, { mode: 0o600 });
  await target.restart({ tls: { cert, key } });
  await waitFor(() => target.running.operations.pairings().sources[0]?.hasNotedRenewal === true, { ...limit, what: 'the source to have noted it' });
  t.equal(target.running.report().fingerprint, before, 'all that could be told know, and it is not shown yet');
  t.match(formatTargetPairings(plainLook, target.running.operations.pairings(), 0), /revoke --old-secrets`; the next certificate is not shown before/);
  await target.running.operations.revokeOldSecrets();
  t.equal(target.running.report().fingerprint, fingerprintOf(own.cert));
});
