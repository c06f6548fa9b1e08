/** The witness against a real etcd: what is compared and set, what ends by itself, who is let in, and what is said when it cannot be asked. */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { generate } from 'selfsigned';
import t from 'tap';
import { etcdWitness } from '../../host/node/etcd-witness.ts';
import type { WitnessView } from '../../host/witness.ts';
import { startEtcd } from '../support/etcd.ts';
import { waitFor } from '../support/wait.ts';

const group = 'ab'.repeat(16);
const nothing: WitnessView = { record: null, revision: '0', holders: [] };

void t.test('a record is changed by compare-and-set, and holders end with their leases', { timeout: 60_000 }, async (t) => {
  const { endpoint } = await startEtcd(t);
  // The first endpoint is nobody's: the next is asked.
  const witness = await etcdWitness({ endpoints: ['http://127.0.0.1:1', endpoint], prefix: '/test/', answerMsMax: 5000 });
  t.teardown(() => witness.close());
  t.same(await witness.look(group), nothing);
  const one = { term: 1, byId: 'alpha-id', by: 'alpha' };
  t.ok(await witness.put(group, one, nothing, true));
  t.notOk(await witness.put(group, { term: 2, byId: 'bravo-id', by: 'bravo' }, nothing, false), 'there is a record by now');
  const seen = await witness.look(group);
  t.match(seen, { record: one, holders: [] });
  t.same(await witness.look(`${group.slice(1)}c`), nothing, 'another group has its own');

  const lease = await witness.grant(2000);
  t.ok(await witness.keepAlive(lease));
  const held = { holder: 's1', by: 'alpha', term: 1 };
  t.ok(await witness.hold(group, held, lease, seen));
  t.same((await witness.look(group)).holders, [held]);
  t.notOk(await witness.put(group, { term: 2, byId: 'bravo-id', by: 'bravo' }, seen, true), 'it is held');
  t.ok(await witness.put(group, { term: 2, byId: 'bravo-id', by: 'bravo' }, seen, false), 'the record itself is as it was seen');
  t.notOk(await witness.hold(group, held, lease, seen), 'the record is another one now');
  await waitFor(async () => (await witness.look(group)).holders.length === 0, { limitMs: 20_000, what: 'the lease to end' });
  t.notOk(await witness.keepAlive(lease), 'it has ended');
  const now = await witness.look(group);
  t.notOk(await witness.hold(group, { ...held, term: 2 }, lease, now), 'a lease that ended holds nothing');
  t.ok(await witness.put(group, { term: 3, byId: 'carol-id', by: 'carol' }, now, true));

  const again = await witness.grant(60_000);
  t.ok(await witness.hold(group, held, again, await witness.look(group)));
  t.match(await witness.look(group), { record: { term: 3, byId: 'carol-id', by: 'carol' } }, 'a lower term leaves the record');
  t.ok(await witness.hold(group, { ...held, term: 4 }, again, await witness.look(group)));
  t.match(await witness.look(group), { record: { term: 4, byId: 's1', by: 'alpha' }, holders: [{ term: 4 }] }, 'a higher one comes with its holder, in one');
  await witness.letGo(group, 's1');
  t.same((await witness.look(group)).holders, []);
  t.ok(await witness.put(group, null, await witness.look(group), true));
  t.same(await witness.look(group), nothing);
});

void t.test('one that cannot be asked, or that somebody else writes to, is said to be that', { timeout: 60_000 }, async (t) => {
  const { endpoint, freeze, thaw } = await startEtcd(t);
  const witness = await etcdWitness({ endpoints: [endpoint], prefix: '/test/', answerMsMax: 500 });
  t.teardown(() => witness.close());
  await promisify(execFile)('etcdctl', ['--endpoints', endpoint, 'put', `/test/${group}/record`, 'hello'], { env: { ...process.env, ETCDCTL_API: '3' } });
  await t.rejects(witness.look(group), { code: 'WITNESS_UNREACHABLE', message: /not written by Afterimage/ });
  freeze();
  await t.rejects(witness.look(group), { code: 'WITNESS_UNREACHABLE', message: /no answer within 500 ms/ });
  thaw();
  await waitFor(() => witness.grant(1000).then(() => true, () => false), { limitMs: 10_000, what: 'etcd to answer again' });
  const nobody = await etcdWitness({ endpoints: ['http://127.0.0.1:1'], prefix: '/', answerMsMax: 500 });
  await t.rejects(nobody.look(group), { code: 'WITNESS_UNREACHABLE', message: /ECONNREFUSED/ });
  await t.rejects(etcdWitness({ endpoints: [endpoint], prefix: '/', answerMsMax: 500, caPath: '/nowhere/ca.pem' }), { code: 'CONFIG_INVALID' });
});

void t.test('certificates of both sides, and a user with a password', { timeout: 60_000 }, async (t) => {
  const folder = t.testdir({});
  const ca = await generate([{ name: 'commonName', value: 'ca' }], { keySize: 2048, extensions: [{ name: 'basicConstraints', cA: true }] });
  const signed = await generate([{ name: 'organizationName', value: 'no common name: the gateway takes users from passwords only' }], { keySize: 2048, ca: { key: ca.private, cert: ca.cert }, extensions: [{ name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] }, { name: 'extKeyUsage', serverAuth: true, clientAuth: true }] });
  const [caPath, certPath, keyPath, passwordPath] = ['ca.pem', 'cert.pem', 'key.pem', 'password'].map((name) => join(folder, name)) as [string, string, string, string];
  await Promise.all([writeFile(caPath, ca.cert), writeFile(certPath, signed.cert), writeFile(keyPath, signed.private), writeFile(passwordPath, 'secret\n')]);
  const tls = { caPath, certPath, keyPath };
  const { endpoint } = await startEtcd(t, ['--cert-file', certPath, '--key-file', keyPath, '--client-cert-auth', '--trusted-ca-file', caPath], { scheme: 'https', ...tls });
  const etcdctl = (...args: string[]) => promisify(execFile)('etcdctl', ['--endpoints', endpoint, '--cacert', caPath, '--cert', certPath, '--key', keyPath, ...args], { env: { ...process.env, ETCDCTL_API: '3' } });
  for (const act of [['user', 'add', 'root:root'], ['user', 'grant-role', 'root', 'root'], ['user', 'add', 'afterimage:secret'], ['role', 'add', 'afterimage'], ['role', 'grant-permission', 'afterimage', '--prefix=true', 'readwrite', '/test/'], ['user', 'grant-role', 'afterimage', 'afterimage'], ['auth', 'enable']]) await etcdctl(...act);

  const witness = await etcdWitness({ endpoints: [endpoint], prefix: '/test/', answerMsMax: 5000, ...tls, user: 'afterimage', passwordPath });
  t.teardown(() => witness.close());
  t.ok(await witness.put(group, { term: 1, byId: 'alpha-id', by: 'alpha' }, await witness.look(group), true));
  t.match(await witness.look(group), { record: { term: 1 } });
  const other = await etcdWitness({ endpoints: [endpoint], prefix: '/other/', answerMsMax: 5000, ...tls, user: 'afterimage', passwordPath });
  t.teardown(() => other.close());
  await t.rejects(other.look(group), { code: 'WITNESS_UNREACHABLE', message: /permission denied/ });
  const stranger = await etcdWitness({ endpoints: [endpoint], prefix: '/test/', answerMsMax: 5000, caPath });
  t.teardown(() => stranger.close());
  await t.rejects(stranger.look(group), { code: 'WITNESS_UNREACHABLE' }, 'without a certificate');
});
