/** A support bundle of a running target and a source, with secrets planted wherever either keeps one: it says much, and none of them. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { redacted, redactText, redactValue, secretsIn } from '../../console/render/redacted.ts';
import { awaitLine, BuiltCommand, ended } from './built-command.ts';

const run = promisify(execFile);

t.test('no planted secret is in it', async (t) => {
  const command = await BuiltCommand.build(t);
  const folder = await mkdtemp(join(tmpdir(), 'ai-sb-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const planted = { hook: 'hunter2-of-the-hook', password: 'correct horse', psk: 'c0ffee'.repeat(10), state: 'ab54a98c'.repeat(8), later: 'a-token-of-a-later-release', webhook: 'T0/B0/c1d2e3f4a5b6c7d8', beat: '0b5c-of-the-heartbeat' };
  await writeFile(join(folder, 'password'), `${planted.password}\n`, { mode: 0o600 });
  await writeFile(join(folder, 'nbd.psk'), `operator:${planted.psk}\n`, { mode: 0o600 });
  const targetConfig = join(folder, 'target.yaml');
  await writeFile(targetConfig, `role: target
name: bravo
data: ${folder}/t
listen: { host: 127.0.0.1, port: 0 }
advertise: 127.0.0.1:1
keepFree: 1MiB
nbd: { listen: { host: 127.0.0.1, port: 0, keys: ${folder}/nbd.psk } }
groups: { web: { hooks: { fence: { command: [/usr/local/bin/fence, --password, ${planted.hook}] } } } }
alerts: { webhook: [{ url: "http://127.0.0.1:1/services/${planted.webhook}" }], heartbeat: { url: "http://127.0.0.1:1/ping?key=${planted.beat}" } }
`);
  const target = command.start(['target', 'run', '--config', targetConfig]);
  t.teardown(() => target.kill('SIGKILL'));
  const over = ended(target);
  await awaitLine(target, (line) => (JSON.parse(line) as { msg?: string }).msg === 'ready');
  const { stdout: token } = await command.run(['target', 'token', '--config', targetConfig]);
  const known = JSON.parse(await readFile(join(folder, 't/target.json'), 'utf8')) as { key: string };
  const key = known.key.split('\n').filter((line) => line.length > 20 && !line.includes('-----'));
  t.ok(key.length > 0);

  const sourceConfig = join(folder, 'source.yaml');
  await writeFile(sourceConfig, `role: source\nname: alpha\ndata: ${folder}/s\nwitness: { etcd: { endpoints: ["http://127.0.0.1:1"], user: afterimage, passwordFile: ${folder}/password } }\n`);
  await mkdir(join(folder, 's/targets'), { recursive: true, mode: 0o700 });
  await writeFile(join(folder, 's/targets/bravo.json'), JSON.stringify({ name: 'bravo', host: 'h', port: 1, fingerprint: 'f', secretHex: planted.state, sessionToken: planted.later }), { mode: 0o600 });

  const secrets = [...Object.values(planted), ...planted.password.split(' '), ...key, ...token.split('\n').filter((word) => /^[\w-]{60,}$/.test(word.trim()))];
  for (const [role, config] of [['target', targetConfig], ['source', sourceConfig]] as const) {
    const to = join(folder, `${role}.tar.gz`);
    const { code, stderr } = await command.run(['support-bundle', '--config', config, '--to', to]);
    t.equal(code, 0, stderr);
    t.equal((await stat(to)).mode & 0o777, 0o600);
    const open = join(folder, `open-${role}`);
    await mkdir(open);
    await run('tar', ['-xzf', to, '-C', open]);
    const [top] = await readdir(open);
    const files = await readdir(join(open, top!));
    for (const name of ['versions.json', 'doctor.json', `config-${role}.json`, `report-${role}.json`, `faults-${role}.json`, `files-${role}.json`]) t.ok(files.includes(name), name);
    for (const name of files) {
      const text = await readFile(join(open, top!, name), 'utf8');
      for (const secret of secrets) t.notOk(text.includes(secret), `${name} does not hold ${secret.slice(0, 8)}…`);
    }
    const report = await readFile(join(open, top!, `report-${role}.json`), 'utf8');
    t.match(JSON.parse(report), role === 'target' ? { role: 'target', address: /127\.0\.0\.1/ } : { error: /no daemon answers/ });
    const file = (JSON.parse(await readFile(join(open, top!, `config-${role}.json`), 'utf8')) as { file: object }).file;
    t.match(file, role === 'target' ? { name: 'bravo', groups: { web: { hooks: { fence: { command: ['/usr/local/bin/fence', redacted, redacted] } } } } } : { witness: { etcd: { passwordFile: join(folder, 'password') } } }, 'what is no secret is there');
    t.match(JSON.parse(await readFile(join(open, top!, 'versions.json'), 'utf8')), { afterimage: /\d/, programs: { 'qemu-img': { said: /qemu-img version/ } } });
  }
  target.kill('SIGTERM');
  await over;
});

t.test('what is redacted', async (t) => {
  const none = new Set<string>();
  t.same(redactValue({ password: 'x', passwordFile: '/p', nested: { apiKey: ['a', 'b'], port: 1 }, points: { seen: 3 } }, none), { password: redacted, passwordFile: '/p', nested: { apiKey: redacted, port: 1 }, points: { seen: 3 } });
  t.equal(redactText('Authorization: Bearer abcdef123456 https://me:pw@host/x password=hunter2 {"token": "abc"}', none), `Authorization: Bearer ${redacted} https://${redacted}@host/x password=${redacted} {"token": ${redacted}}`);
  t.equal(redactText('-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\nafter', none), `${redacted}\nafter`);
  t.equal(redactText('of-a-guest and the-secret-of-a-guest', new Set(['the-secret-of-a-guest', 'short'])), `of-a-guest and ${redacted}`);
  const hooks = { webhook: [{ url: 'https://hooks.example/services/T0/c1d2e3f4a5b6c7d8', secretFile: '/s' }], heartbeat: { url: 'https://hc.example/ping?key=0123456789abcdef' }, proxy: { url: 'http://proxy:3128' }, bad: { url: 'no address' } };
  t.same(redactValue(hooks, none), { webhook: [{ url: `https://hooks.example/${redacted}`, secretFile: '/s' }], heartbeat: { url: `https://hc.example/${redacted}` }, proxy: { url: 'http://proxy:3128' }, bad: { url: redacted } });
  const known = new Set(secretsIn(hooks));
  t.equal(redactText('POST https://hooks.example/services/T0/c1d2e3f4a5b6c7d8: 404 at /services/T0/c1d2e3f4a5b6c7d8, proxy http://proxy:3128, 0123456789abcdef', known), `POST ${redacted}: 404 at /services/T0/${redacted}, proxy http://proxy:3128, ${redacted}`);
});
