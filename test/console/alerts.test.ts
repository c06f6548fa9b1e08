/** Alerts on their way: to a real HTTP endpoint, a real SMTP server (plain, and STARTTLS with a login), a real program; deduplicated over restarts; recovered; tested by hand. */
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { SMTPServer, type SMTPServerOptions } from 'smtp-server';
import t, { type Test } from 'tap';
import { defaultThresholds, type AlertOptions, type Bulletin, type EmailOptions } from '../../console/alerts/alert-options.ts';
import { AlertWatch } from '../../console/alerts/alert-watch.ts';
import { sign } from '../../console/alerts/webhook-channel.ts';
import type { SourceReport } from '../../daemon/report.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { makeCertificate } from '../../journal/identity.ts';
import { waitFor } from '../support/wait.ts';
import { sourceTargetDown, sourceUp } from './fixed-reports.ts';

const nobody: AlertOptions = { webhooks: [], email: null, command: null, quietHours: null, repeatEveryMs: null, settleMs: 0, heartbeat: null, thresholds: { ...defaultThresholds, absentMs: 0 } };
const limit = { limitMs: 30_000 };

async function folderOf(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'af-alerts-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function secretIn(folder: string, name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, `${text}\n`, { mode: 0o600 });
  return path;
}

interface Received { readonly headers: Readonly<Record<string, string | string[] | undefined>>; readonly body: string }
/** `statuses`: what it answers, in turn, and then 204. */
async function hooks(t: Test, statuses: number[] = []) {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      received.push({ headers: request.headers, body: Buffer.concat(chunks).toString('utf8') });
      response.writeHead(statuses.shift() ?? 204, { location: '/elsewhere' }).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => { server.closeAllConnections(); server.close(); });
  return { received, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook/s3cret-token`, bulletins: () => received.map(({ body }) => JSON.parse(body) as Bulletin) };
}

async function smtp(t: Test, options: SMTPServerOptions) {
  const mails: { readonly text: string; readonly to: readonly string[]; readonly user: string | undefined; readonly isSecure: boolean }[] = [];
  const server = new SMTPServer({
    ...options, logger: false,
    onData(stream, session, done) {
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('end', () => {
        mails.push({ text: Buffer.concat(chunks).toString('utf8'), to: session.envelope.rcptTo.map(({ address }) => address), user: session.user, isSecure: session.secure });
        done(null);
      });
    },
  });
  server.on('error', () => undefined);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => new Promise<void>((resolve) => server.close(() => resolve())));
  return { mails, port: (server.server.address() as AddressInfo).port };
}

interface Life { report: SourceReport; readonly log: string[]; start(options: AlertOptions): Promise<AlertWatch> }
async function life(t: Test): Promise<Life> {
  const folder = await folderOf(t);
  const log: string[] = [];
  const one: Life = {
    report: sourceUp, log,
    async start(options) {
      const watch = await AlertWatch.open({
        options, from: { role: 'source', name: 'alpha', version: '1.2.3' }, report: () => one.report, statePath: join(folder, 'alerts.json'), clock: nodeClock, random: nodeRandom, lookMs: 20,
        log: pino({ level: 'debug' }, { write: (line) => { log.push(line); } }),
      });
      t.teardown(() => watch.close());
      return watch;
    },
  };
  return one;
}

t.test('webhook: told once over restarts, signed, and told when it is over', async (t) => {
  const server = await hooks(t);
  const secretPath = await secretIn(await folderOf(t), 'secret', 'shared');
  const options = { ...nobody, webhooks: [{ url: server.url, secretPath, codes: null }] };
  const one = await life(t);
  one.report = sourceTargetDown;
  const first = await one.start(options);
  await waitFor(() => server.received.length > 0, { ...limit, what: 'the alert' });
  await first.close();
  const second = await one.start(options);
  // Looks that find the same, and then one that does not.
  await new Promise<void>((resolve) => { let looks = 0; const down = sourceTargetDown; Object.defineProperty(one, 'report', { configurable: true, get: () => { looks += 1; if (looks > 5) resolve(); return down; } }); });
  t.equal(server.received.length, 1, 'the restart tells nothing again');
  Object.defineProperty(one, 'report', { configurable: true, writable: true, value: sourceUp });
  await waitFor(() => server.received.length > 1, { ...limit, what: 'the recovery' });
  await second.close();
  const [raised, recovered] = server.bulletins();
  t.strictSame(raised!.notices.map(({ event, code, severity }) => `${event} ${severity} ${code}`).sort(), ['raised error RPO_LATE', 'raised error TARGET_ABSENT']);
  t.strictSame(recovered!.notices.map(({ event, code }) => `${event} ${code}`).sort(), ['recovered RPO_LATE', 'recovered TARGET_ABSENT']);
  t.match(raised, { version: 1, from: { role: 'source', name: 'alpha', version: '1.2.3' } });
  t.ok(raised!.notices.every(({ advice, message }) => advice !== '' && message !== ''));
  const { headers, body } = server.received[0]!;
  const [, seconds, signature] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(headers['x-afterimage-signature']))!;
  t.equal(signature, sign('shared', Number(seconds), body));
  t.not(signature, sign('other', Number(seconds), body));
  t.notMatch(one.log.join(''), /s3cret-token|shared/);
});

t.test('webhook: what fails is tried again after a restart; codes choose; a redirect is no success', async (t) => {
  const [failing, choosy] = [await hooks(t, [500]), await hooks(t)];
  const options = { ...nobody, webhooks: [{ url: failing.url, secretPath: null, codes: null }, { url: choosy.url, secretPath: null, codes: ['TARGET_ABSENT'] }] };
  const one = await life(t);
  one.report = sourceTargetDown;
  const first = await one.start(options);
  await waitFor(() => one.log.some((line) => line.includes('answered 500')), { ...limit, what: 'the failure to be logged' });
  await waitFor(() => choosy.received.length === 1, { ...limit, what: 'the one code' });
  t.strictSame(choosy.bulletins()[0]!.notices.map(({ code }) => code), ['TARGET_ABSENT']);
  await first.close();
  const second = await one.start(options);
  await waitFor(() => failing.received.length === 2, { ...limit, what: 'the second try' });
  t.strictSame(failing.bulletins()[1]!.notices, failing.bulletins()[0]!.notices, 'the same notices, by their ids');
  await second.close();
  const moved = await hooks(t, [302]);
  const third = await (await life(t)).start({ ...nobody, webhooks: [{ url: moved.url, secretPath: null, codes: null }] });
  t.match(await third.test(), [{ isDelivered: false, answer: /302, a redirect/ }]);
  t.equal(moved.received.length, 1);
});

t.test('e-mail: in the clear without a login; with STARTTLS and a login; refused otherwise', async (t) => {
  const folder = await folderOf(t);
  const plain = await smtp(t, { authOptional: true, disabledCommands: ['STARTTLS', 'AUTH'] });
  const { key, cert } = await makeCertificate('localhost');
  const caPath = join(folder, 'ca.pem');
  await writeFile(caPath, cert);
  const strict = await smtp(t, {
    key, cert, onAuth: ({ username, password }, _session, done) => (username === 'me' && password === 'pass word' ? done(null, { user: 'me' }) : done(new Error('no such login'))),
  });
  const email = { host: '127.0.0.1', port: plain.port, tls: 'none' as const, from: 'afterimage@example.org', to: ['a@example.org', 'b@example.org'], userPath: null, passwordPath: null, caPath: null };
  const one = await life(t);
  one.report = sourceTargetDown;
  await one.start({ ...nobody, email });
  const [mail] = await waitFor(() => (plain.mails.length > 0 ? plain.mails : null), { ...limit, what: 'the e-mail' });
  t.match(mail!.text, /^Subject: \[afterimage alpha\] ERROR: 2 alerts\r$/m);
  t.match(mail!.text, /Error: RPO_LATE \(db\)/);
  t.strictSame(mail!.to, ['a@example.org', 'b@example.org']);

  const login = { userPath: await secretIn(folder, 'user', 'me'), passwordPath: await secretIn(folder, 'password', 'pass word') };
  const secured = { ...email, host: 'localhost', port: strict.port, tls: 'starttls' as const, caPath, ...login };
  const two = await life(t);
  const watch = await two.start({ ...nobody, email: secured });
  t.match(await watch.test(), [{ channel: 'email (localhost)', isDelivered: true, answer: /^250/ }]);
  t.match(strict.mails, [{ user: 'me', isSecure: true, text: /test: TEST/ }]);
  const answer = async (change: Partial<EmailOptions>) => (await (await two.start({ ...nobody, email: { ...secured, ...change } })).test())[0]!;
  t.match(await answer({ passwordPath: await secretIn(folder, 'wrong', 'guess') }), { isDelivered: false, answer: /no such login|Invalid login/ });
  t.match(await answer({ caPath: null }), { isDelivered: false, answer: /self.signed/i }, 'a certificate that nobody signed');
  t.match(await answer({ port: plain.port }), { isDelivered: false, answer: /STARTTLS/i }, 'a server without TLS gets nothing');
  t.equal(plain.mails.length, 1);
  await chmod(login.passwordPath, 0o644);
  t.match(await answer({}), { isDelivered: false, answer: /readable by others/ });
  t.notMatch(two.log.join(''), /pass word|guess/);
});

t.test('a command: JSON on its input; one that fails says so; what waits is in a private file', async (t) => {
  const folder = await folderOf(t);
  const [good, bad] = [join(folder, 'good'), join(folder, 'bad')];
  await writeFile(good, `#!/bin/sh\ncat > ${folder}/told.new && mv ${folder}/told.new ${folder}/told\n`, { mode: 0o755 });
  await writeFile(bad, '#!/bin/sh\necho no pager >&2\nexit 3\n', { mode: 0o755 });
  const one = await life(t);
  one.report = sourceTargetDown;
  await one.start({ ...nobody, command: [good] });
  const text = await waitFor(() => readFile(join(folder, 'told'), 'utf8').catch(() => null), { ...limit, what: 'the command to be told' });
  t.match((JSON.parse(text) as Bulletin).notices.map(({ code }) => code).sort(), ['RPO_LATE', 'TARGET_ABSENT']);
  const two = await life(t);
  const watch = await two.start({ ...nobody, command: [bad] });
  t.match(await watch.test(), [{ channel: 'command (bad)', isDelivered: false, answer: /ended with 3: no pager/ }]);
  const state = await folderOf(t);
  const kept = await AlertWatch.open({
    options: { ...nobody, command: [bad] }, from: { role: 'source', name: 'alpha', version: '1' }, report: () => sourceTargetDown, statePath: join(state, 'alerts.json'), clock: nodeClock, random: nodeRandom, lookMs: 20, log: pino({ level: 'silent' }),
  });
  t.teardown(() => kept.close());
  await waitFor(() => stat(join(state, 'alerts.json')).then(() => true, () => false), { ...limit, what: 'the state to be written' });
  t.equal((await stat(join(state, 'alerts.json'))).mode & 0o777, 0o600);
});

t.test('heartbeat: asked for again and again; a state file that is damaged keeps nothing from being told', async (t) => {
  const pulse = await hooks(t);
  const one = await life(t);
  const watch = await one.start({ ...nobody, heartbeat: { url: pulse.url, everyMs: 20 } });
  await waitFor(() => pulse.received.length >= 3, { ...limit, what: 'three beats' });
  t.match(await watch.test(), [{ channel: /^heartbeat \(127\.0\.0\.1:\d+\)$/, isDelivered: true }]);
  await watch.close();
  const folder = await folderOf(t);
  await writeFile(join(folder, 'alerts.json'), '{"version": 1, "alerts": 7}', { mode: 0o600 });
  const server = await hooks(t);
  const again = await AlertWatch.open({
    options: { ...nobody, webhooks: [{ url: server.url, secretPath: null, codes: null }] }, from: { role: 'source', name: 'alpha', version: '1' }, report: () => sourceTargetDown, statePath: join(folder, 'alerts.json'), clock: nodeClock, random: nodeRandom, lookMs: 20, log: pino({ level: 'silent' }),
  });
  t.teardown(() => again.close());
  await waitFor(() => server.received.length === 1, { ...limit, what: 'the alert' });
});
