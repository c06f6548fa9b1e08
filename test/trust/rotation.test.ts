import t from 'tap';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { generate } from 'selfsigned';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { sendDelta } from '../../daemon/stream/delta-sender.ts';
import { Encoder } from '../../daemon/stream/encoder.ts';
import { fingerprintOf, makeCertificate } from '../../journal/identity.ts';
import { announcement, groupId } from '../ingest/loopback.ts';
import { randomDelta } from '../stream/test-deltas.ts';
import { seededFractions } from '../support/seeded.ts';
import { waitFor } from '../support/wait.ts';
import { attempt, isUp, limit, privateFolder, stolenFrom, trustSource, trustTarget } from './trust-rig.ts';

const soon = (): AbortSignal => AbortSignal.timeout(60_000);

t.test('both sides change their certificates while deltas stream: no point fails, the connection goes on', async (t) => {
  const folder = await privateFolder(t);
  const target = await trustTarget(t, { nbd: { socketPath: join(folder, 'nbd.sock'), listen: { host: '127.0.0.1', port: 0, keysPath: null, clientFingerprints: ['ab'.repeat(32)] } } });
  const source = await trustSource(t);
  const { operations } = target.running;
  const { token } = await operations.invite({});
  await source.targets.pair(token);
  const [oldKey, oldFingerprint] = [await stolenFrom(source), target.running.report().fingerprint];
  const session = await source.targets.links.get('bravo')!.link.session(soon());
  await session.announce(announcement());
  await session.seedBegin(groupId, 'ab'.repeat(8));
  await session.seedEnd(groupId);
  const encoder = new Encoder({ clock: nodeClock });
  const fraction = seededFractions(11);
  const model = Buffer.alloc(16 * 1024 * 1024);
  let point = 0;
  let isEnough = false;
  const streaming = (async () => {
    while (!isEnough) {
      const base = point === 0 ? null : { term: 1, point };
      await sendDelta(session, { groupId, random: nodeRandom, encoder, term: 1, base, next: { term: 1, point: point + 1 }, open: null }, randomDelta(fraction, model));
      point += 1;
    }
  })();
  await waitFor(() => point >= 2, { ...limit, what: 'deltas to flow' });
  await source.targets.rotate(false);
  await waitFor(() => source.targets.certificate().next === null && operations.pairings().sources[0]!.certificates.length === 1, { ...limit, what: 'the source’s new certificate, and nothing beside it' });
  await operations.rotate(false);
  await waitFor(() => operations.pairings().certificate.next === null, { ...limit, what: 'the target’s new certificate' });
  const rotatedAt = point;
  await waitFor(() => point > rotatedAt + 1, { ...limit, what: 'deltas to flow on' });
  isEnough = true;
  await streaming;
  t.equal(source.targets.links.get('bravo')!.link.report().reconnects, 0, 'on one connection');
  t.equal((await operations.points(groupId)).length, point, 'every point is there');
  const own = await stolenFrom(source);
  t.match(operations.pairings().sources, [{ certificates: [{ fingerprint: fingerprintOf(own.cert) }] }]);
  t.not(fingerprintOf(own.cert), fingerprintOf(oldKey.cert));
  t.not(target.running.report().fingerprint, oldFingerprint);
  t.equal(await nbdFingerprint(target.running.report().nbd.address!), target.running.report().fingerprint, 'clients of points are shown the new one, too, without a restart');
  await t.rejects(attempt(token, { certificate: oldKey, sourceId: source.sourceId, fingerprint: target.running.report().fingerprint }), { code: 'WIRE_SECRET' }, 'the old key opens nothing any more');
  await t.rejects(attempt(token, { certificate: own, sourceId: source.sourceId }), { code: 'WIRE_FINGERPRINT' }, 'nor is the old certificate shown');
  await target.restart();
  await source.restart();
  await isUp(source.targets);
});

t.test('a rotation waits for who is away, also through restarts, and loses nobody', async (t) => {
  const target = await trustTarget(t);
  const away = await trustTarget(t, { name: 'charlie' });
  const source = await trustSource(t);
  const other = await trustSource(t, { name: 'other' });
  for (const one of [target, away]) await source.targets.pair((await one.running.operations.invite({})).token);
  await other.targets.pair((await target.running.operations.invite({})).token);
  await away.stop();
  await other.targets.close();
  const before = fingerprintOf((await stolenFrom(source)).cert);
  t.same((await source.targets.rotate(false)).awaited.includes('charlie'), true);
  t.match(await target.running.operations.rotate(false), { awaited: ['alpha', 'other'] });
  await waitFor(() => source.targets.certificate().awaited.join() === 'charlie', { ...limit, what: 'bravo to have it' });
  await waitFor(() => target.running.operations.pairings().certificate.awaited.join() === 'other', { ...limit, what: 'alpha to have noted it' });
  t.equal(fingerprintOf((await stolenFrom(source)).cert), before, 'the one that charlie knows is kept');
  await source.restart();
  await target.restart();
  await isUp(source.targets);
  await away.restart();
  await waitFor(() => source.targets.certificate().next === null, { ...limit, what: 'charlie to have it' });
  t.not(fingerprintOf((await stolenFrom(source)).cert), before);
  t.equal(target.running.operations.pairings().certificate.awaited.join(), 'other');
  await other.restart();
  await waitFor(() => target.running.operations.pairings().certificate.next === null, { ...limit, what: 'other to have noted it' });
  for (const one of [source, other]) {
    await one.restart();
    await isUp(one.targets);
  }
  await isUp(source.targets, 'charlie');
  t.same(target.running.operations.pairings().sources.map(({ certificates }) => certificates.length), [1, 1]);
});

t.test('with --now a key that may be stolen is dropped at once; who has not heard must be paired anew', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  await source.targets.pair((await target.running.operations.invite({})).token);
  await target.running.operations.revoke('alpha');
  const thief = await stolenFrom(source);
  t.match(await source.targets.rotate(true), { next: null });
  const { token } = await target.running.operations.invite({ name: 'alpha' });
  await source.targets.pair(token);
  await t.rejects(attempt(token, { certificate: thief, sourceId: source.sourceId }), { code: 'WIRE_SECRET' });
  await isUp(source.targets);
});

t.test('certificates of an authority: it must have issued them, and they are pinned all the same', async (t) => {
  const folder = await privateFolder(t);
  const [authority, stranger] = await Promise.all(['ca', 'another'].map((name) => generate([{ name: 'commonName', value: name }], { keyType: 'ec', curve: 'P-256', algorithm: 'sha256', extensions: [{ name: 'basicConstraints', cA: true }] })));
  const issue = async (name: string, by = authority!): Promise<{ ca: string; cert: string; key: string }> => {
    const made = await generate([{ name: 'commonName', value: name }], { keyType: 'ec', curve: 'P-256', algorithm: 'sha256', ca: { key: by.private, cert: by.cert } });
    const paths = { ca: join(folder, 'ca.pem'), cert: join(folder, `${name}.pem`), key: join(folder, `${name}.key`) };
    await writeFile(paths.ca, authority!.cert);
    await writeFile(paths.cert, made.cert);
    await rm(paths.key, { force: true });
    await writeFile(paths.key, made.private, { mode: 0o600 });
    return paths;
  };
  const target = await trustTarget(t, { tls: await issue('bravo') });
  const source = await trustSource(t, { tls: await issue('alpha') });
  const { operations } = target.running;
  await source.targets.pair((await operations.invite({})).token);
  const { token } = await operations.invite({});
  const unpaired = await issue('mallory');
  const shown = { cert: await readFile(unpaired.cert, 'utf8'), key: await readFile(unpaired.key, 'utf8') };
  await t.rejects(attempt(token, { certificate: shown, sourceId: source.sourceId }), { code: 'WIRE_SECRET' }, 'issued, and not paired');
  const foreign = await trustSource(t, { name: 'foreign', tls: await issue('foreign', stranger) });
  await t.rejects(foreign.targets.pair(token), { code: 'WIRE_SECRET' }, 'invited, and not issued');
  const plain = await trustTarget(t, { name: 'plain' });
  await t.rejects(source.targets.pair((await plain.running.operations.invite({})).token), { code: 'WIRE_FINGERPRINT' }, 'a target whose certificate the authority did not issue');
  await issue('alpha');
  await source.targets.rotate(false);
  await waitFor(() => source.targets.certificate().next === null, { ...limit, what: 'the renewed certificate to be known' });
  await issue('alpha', stranger);
  await source.targets.rotate(false);
  await waitFor(() => (target.running.report().refusals['PAIRING_FOREIGN'] ?? 0) > 0, { ...limit, what: 'a certificate of another authority to be refused' });
  t.match(source.targets.certificate(), { awaited: ['bravo'] });
  await isUp(source.targets);
  t.equal(source.targets.links.get('bravo')!.link.report().reconnects, 0, 'and the connection goes on');
});

t.test('the end of a certificate is in the reports', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  const { expiresAtMs } = target.running.report().certificate!;
  t.ok(expiresAtMs > Date.now());
  t.ok(source.targets.certificate().expiresAtMs > Date.now());
  t.not(fingerprintOf((await makeCertificate('bravo')).cert), target.running.report().certificate!.fingerprint);
});

/** SHA-256 of the certificate that an NBD server on TCP shows to who asks for TLS (the NBD protocol, NBD_OPT_STARTTLS). */
async function nbdFingerprint(address: string): Promise<string> {
  const [host, port] = address.split(':');
  const socket = connect(Number(port), host);
  let received = Buffer.alloc(0);
  const onData = (chunk: Buffer): void => { received = Buffer.concat([received, chunk]); };
  socket.on('data', onData);
  const until = (bytes: number): Promise<unknown> => waitFor(() => received.length >= bytes, { ...limit, what: `${bytes} bytes of the server` });
  await until(18);
  const request = Buffer.alloc(20);
  // Fixed newstyle, no zeroes; IHAVEOPT; NBD_OPT_STARTTLS; no data.
  request.writeUInt32BE(3, 0);
  request.write('IHAVEOPT', 4, 'latin1');
  request.writeUInt32BE(5, 12);
  socket.write(request);
  await until(18 + 20);
  socket.off('data', onData);
  const secure = connectTls({ socket, rejectUnauthorized: false });
  // Whoever shows no certificate is turned away behind the handshake.
  secure.on('error', () => undefined);
  await once(secure, 'secureConnect');
  const { raw } = secure.getPeerCertificate();
  secure.destroy();
  return createHash('sha256').update(raw).digest('hex');
}
