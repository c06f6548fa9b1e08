import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { ownCertificate, readCertificate } from '../../../console/api/certificate.ts';
import { remotePlace } from '../../../console/open-client.ts';
import { formatTokens } from '../../../console/render/tokens.ts';
import { plainLook } from '../../../console/render/look.ts';
import { fingerprintOf } from '../../../journal/identity.ts';

async function folderOf(t: { teardown(after: () => unknown): unknown }): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'ai-remote-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

t.test('a daemon elsewhere: its address, a token from a private file, a fingerprint', async (t) => {
  const tokenFile = join(await folderOf(t), 'token');
  await writeFile(tokenFile, 'afterimage_abc\n', { mode: 0o600 });
  const fingerprint = 'AB:'.repeat(31) + 'AB';
  t.equal(await remotePlace({}), null, 'none is named');
  t.strictSame(await remotePlace({ api: 'https://bravo.example.org:7230/', tokenFile, fingerprint }), { host: 'bravo.example.org', port: 7230, token: 'afterimage_abc', fingerprint: 'ab'.repeat(32) });
  t.match(await remotePlace({ api: '[::1]', tokenFile }), { host: '::1', port: 7229, fingerprint: null });
  await t.rejects(remotePlace({ api: 'http://bravo', tokenFile }), { name: 'UsageError', message: /expected --api https/ });
  await t.rejects(remotePlace({ api: 'bravo' }), { name: 'UsageError', message: /--token-file/ });
  await t.rejects(remotePlace({ api: 'bravo', tokenFile, config: '/x' }), { name: 'UsageError', message: /one or the other/ });
  await t.rejects(remotePlace({ api: 'bravo', tokenFile, fingerprint: 'ab' }), { name: 'UsageError', message: /64 hex digits/ });
  await chmod(tokenFile, 0o640);
  await t.rejects(remotePlace({ api: 'bravo', tokenFile }), { name: 'UsageError', message: /others can read it/ });
  await writeFile(tokenFile, 's3cret with spaces');
  await chmod(tokenFile, 0o600);
  await t.rejects(remotePlace({ api: 'bravo', tokenFile }), { name: 'UsageError', message: /^[^]*holds no token(?![^]*s3cret)[^]*$/ });
});

t.test('the certificate: made once, or the operator’s files', async (t) => {
  const folder = await folderOf(t);
  const made = await ownCertificate(join(folder, 'api'), 'alpha');
  t.equal(fingerprintOf((await ownCertificate(join(folder, 'api'), 'alpha')).cert), fingerprintOf(made.cert));
  const paths = { certPath: join(folder, 'cert.pem'), keyPath: join(folder, 'key.pem') };
  await t.rejects(readCertificate(paths), { code: 'CONFIG_INVALID', message: /cannot be read/ });
  await writeFile(paths.certPath, made.cert);
  await writeFile(paths.keyPath, made.key, { mode: 0o600 });
  t.strictSame(await readCertificate(paths), made);
  await writeFile(paths.certPath, (await ownCertificate(join(folder, 'other'), 'bravo')).cert);
  await t.rejects(readCertificate(paths), { code: 'CONFIG_INVALID', message: /no certificate for the key/ });
  await chmod(paths.keyPath, 0o644);
  await t.rejects(readCertificate(paths), { code: 'CONFIG_INVALID', message: /others can read this key/ });
});

t.test('tokens as a table', async (t) => {
  t.match(formatTokens(plainLook, [], 0), /no tokens/);
  const table = formatTokens(plainLook, [{ id: '00', name: 'night', scope: 'operate', createdAtMs: 1000, expiresAtMs: 2000, usedAtMs: null }], 3000);
  t.match(table, /night\s+operate\s+1970-01-01 \S+\s+1970-01-01 \S+ \(over\)\s+never/);
});
