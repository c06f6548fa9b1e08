/** Points over TCP: TLS is forced, and a client proves who it is by a key (QEMU and libnbd do) or by a pinned certificate. */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import { fingerprintOf, makeCertificate } from '../../journal/identity.ts';
import { encodeGo, encodeOption, nbdGreetingBytes, nbdOption, nbdOptionReplyMagic, nbdReply } from '../../qemu/nbd-protocol.ts';
import { run } from '../qemu/nbd-peers.ts';
import { shortFolder, until } from '../qemu/real-qemu.ts';
import { startPointSite, type PointSite } from './point-site.ts';

const key = randomBytes(32);

interface TlsSite extends PointSite { readonly port: number; readonly keysFolder: string; readonly keysPath: string }

async function startTlsSite(t: Test, clientFingerprints: readonly string[] = []): Promise<TlsSite> {
  const keysFolder = shortFolder(t);
  // The name that QEMU looks for in a folder of credentials.
  const keysPath = join(keysFolder, 'keys.psk');
  writeFileSync(keysPath, `# clients\nalice:${key.toString('hex')}\n`, { mode: 0o600 });
  const site = await startPointSite(t, { host: '127.0.0.1', port: 0, keysPath, clientFingerprints });
  const port = Number(site.server.report().address!.split(':')[1]);
  return { ...site, port, keysFolder, keysPath };
}

const libnbd = (site: TlsSite, name: string, user = 'alice', path = site.keysPath): string => `nbds://${user}@127.0.0.1:${site.port}/${name}?tls-psk-file=${path}`;
const qemu = (site: TlsSite, name: string, user = 'alice', folder = site.keysFolder): string[] => [
  '--object', `tls-creds-psk,id=t,dir=${folder},endpoint=client,username=${user}`, '--image-opts', `driver=raw,file.driver=nbd,file.host=127.0.0.1,file.port=${site.port},file.export=${name},file.tls-creds=t`,
];

t.test('with a key: nbdinfo, nbdcopy, qemu-img', async (t) => {
  const site = await startTlsSite(t);
  const out = join(site.folder, 'out');
  const info = await run(t, 'nbdinfo', ['--json', libnbd(site, 'web/vda@1.2')]);
  t.equal(info.code, 0, `${info.said}${JSON.stringify(site.logged)}`);
  t.match(JSON.parse(info.said), { TLS: true, exports: [{ 'export-name': 'web/vda@1.2', can_multi_conn: true, contexts: ['base:allocation'] }] });
  t.match((await run(t, 'nbdinfo', ['--list', libnbd(site, '')])).said, /web\/vda@1\.2/);
  const copied = await run(t, 'nbdcopy', ['--connections=4', '--threads=4', libnbd(site, 'web/vda@1.2'), out]);
  t.equal(copied.code, 0, copied.said);
  t.ok(readFileSync(out).equals(readFileSync(site.copy(2, 0))));
  const converted = await run(t, 'qemu-img', ['convert', ...qemu(site, 'web/1@1.3'), '-O', 'raw', out]);
  t.equal(converted.code, 0, converted.said);
  t.ok(readFileSync(out).equals(readFileSync(site.copy(3, 1))));
  t.strictSame(site.logged.filter(({ code }) => code === 'NBD_TLS'), []);
});

t.test('with none, a wrong one, or another name: nothing', async (t) => {
  const site = await startTlsSite(t);
  t.not((await run(t, 'nbdinfo', [`nbd://127.0.0.1:${site.port}/web/vda@1.2`])).code, 0);
  const plain = await run(t, 'qemu-img', ['info', `nbd://127.0.0.1:${site.port}/web/vda@1.2`]);
  t.equal(plain.code, 1);
  t.match(plain.said, /TLS/, 'the answer says what is missing');
  const folder = shortFolder(t);
  const path = join(folder, 'keys.psk');
  writeFileSync(path, `alice:${randomBytes(32).toString('hex')}\nmallory:${key.toString('hex')}\n`, { mode: 0o600 });
  for (const user of ['alice', 'mallory']) {
    t.not((await run(t, 'nbdinfo', [libnbd(site, 'web/vda@1.2', user, path)])).code, 0, user);
    t.equal((await run(t, 'qemu-img', ['info', ...qemu(site, 'web/vda@1.2', user, folder)])).code, 1, user);
  }
  t.equal(site.points.openedCount, 0, 'no view was opened for any of them');
  await until('each refusal is logged', () => site.logged.filter(({ code }) => code === 'NBD_TLS').length >= 4 ? true : undefined);
  // The file is read for each client: who is added may come, who is taken out may not, and a file open to others is for nobody.
  writeFileSync(site.keysPath, `mallory:${key.toString('hex')}\n`);
  t.equal((await run(t, 'nbdinfo', ['--size', libnbd(site, 'web/vda@1.2', 'mallory', path)])).code, 0);
  t.not((await run(t, 'nbdinfo', [libnbd(site, 'web/vda@1.2', 'alice', path)])).code, 0);
  chmodSync(site.keysPath, 0o644);
  t.not((await run(t, 'nbdinfo', [libnbd(site, 'web/vda@1.2', 'mallory', path)])).code, 0);
  await until('the open file is logged', () => site.logged.some(({ code }) => code === 'CONFIG_INVALID') ? true : undefined);
});

/** A client of our own, in the clear, which can be put under TLS. */
class Client {
  socket: Socket;
  #bytes = Buffer.alloc(0);
  isClosed = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.#listen(socket);
  }

  static async greeted(t: Test, port: number, flags = 3): Promise<Client> {
    const socket = connect(port, '127.0.0.1');
    t.teardown(() => socket.destroy());
    const client = new Client(socket);
    await client.take(nbdGreetingBytes);
    socket.write(Buffer.from([0, 0, 0, flags]));
    return client;
  }

  #listen(socket: Socket): void {
    socket.on('data', (bytes: Buffer) => { this.#bytes = Buffer.concat([this.#bytes, bytes]); });
    socket.on('error', () => undefined);
    socket.on('close', () => { this.isClosed = true; });
  }

  async take(count: number): Promise<Buffer> {
    await until(`${count} bytes`, () => { if (this.#bytes.length < count && this.isClosed) throw new Error('closed'); return this.#bytes.length >= count || undefined; });
    const taken = this.#bytes.subarray(0, count);
    this.#bytes = this.#bytes.subarray(count);
    return taken;
  }

  /** The types of the replies to an option. */
  async option(option: number, data: Buffer = Buffer.alloc(0)): Promise<number[]> {
    this.socket.write(encodeOption(option, data));
    for (const types: number[] = []; ;) {
      const head = await this.take(20);
      if (head.readBigUInt64BE(0) !== nbdOptionReplyMagic) throw new Error('no reply');
      await this.take(head.readUInt32BE(16));
      types.push(head.readUInt32BE(12));
      if (types.at(-1) === nbdReply.ack || types.at(-1)! > 0x80000000) return types;
    }
  }

  async secure(options: ConnectionOptions): Promise<TLSSocket> {
    this.socket.removeAllListeners('data');
    const secured = connectTls({ socket: this.socket, rejectUnauthorized: false, ...options });
    this.#bytes = Buffer.alloc(0);
    this.isClosed = false;
    this.socket = secured;
    this.#listen(secured);
    await new Promise<void>((resolve) => { secured.once('secureConnect', resolve).once('close', () => resolve()); });
    return secured;
  }
}

const psk = (user = 'alice', secret = key): ConnectionOptions => ({ ciphers: 'TLS_AES_128_GCM_SHA256:PSK', pskCallback: () => ({ identity: user, psk: secret }), checkServerIdentity: () => undefined });

t.test('FORCEDTLS, as the specification has it', async (t) => {
  const site = await startTlsSite(t);
  const client = await Client.greeted(t, site.port);
  t.strictSame(await client.option(nbdOption.list), [nbdReply.errTlsReqd]);
  t.strictSame(await client.option(nbdOption.info, encodeGo('web/vda@1.2', [])), [nbdReply.errTlsReqd]);
  t.strictSame(await client.option(nbdOption.go, encodeGo('web/vda@1.2', [])), [nbdReply.errTlsReqd]);
  t.strictSame(await client.option(nbdOption.structuredReply), [nbdReply.errTlsReqd]);
  t.strictSame(await client.option(999), [nbdReply.errTlsReqd], 'also what is not known at all');
  t.strictSame(await client.option(nbdOption.list, Buffer.alloc(100_000)), [nbdReply.errTlsReqd], 'also what is too long');
  t.strictSame(await client.option(nbdOption.startTls, Buffer.alloc(1)), [nbdReply.errInvalid], 'no data');
  t.strictSame(await client.option(nbdOption.startTls), [nbdReply.ack]);
  await client.secure(psk());
  t.strictSame(await client.option(nbdOption.startTls), [nbdReply.errInvalid], 'not twice');
  t.strictSame((await client.option(nbdOption.info, encodeGo('web/vda@1.2', []))).at(-1), nbdReply.ack);
  t.strictSame(await client.option(nbdOption.list, Buffer.alloc(100_000)), [nbdReply.errTooBig]);
  t.strictSame(await client.option(nbdOption.abort), [nbdReply.ack]);
  const byName = await Client.greeted(t, site.port);
  byName.socket.write(encodeOption(nbdOption.exportName, Buffer.from('web/vda@1.2')));
  await until('the old way in, which cannot error, ends it', () => byName.isClosed || undefined);
  const old = await Client.greeted(t, site.port, 0);
  await until('a client that is not fixed newstyle cannot initiate TLS', () => old.isClosed || undefined);
  const aborting = await Client.greeted(t, site.port);
  t.strictSame(await aborting.option(nbdOption.abort), [nbdReply.ack]);
});

t.test('what came in the clear is not believed under TLS', async (t) => {
  const site = await startTlsSite(t);
  const client = await Client.greeted(t, site.port);
  // As somebody in between would: an option that the client never sent, right behind its STARTTLS.
  client.socket.write(Buffer.concat([encodeOption(nbdOption.startTls), encodeOption(nbdOption.structuredReply)]));
  await until('it is ended', () => client.isClosed || undefined);
  await until('the refusal is logged', () => site.logged.some(({ msg }) => /in the clear after NBD_OPT_STARTTLS/.test(String(msg))) ? true : undefined);
});

t.test('naming a user is no proof', async (t) => {
  const site = await startTlsSite(t);
  const attempts: Record<string, ConnectionOptions> = {
    'a wrong key': psk('alice', randomBytes(32)),
    // OpenSSL's key goes with SHA-256 suites: with this one alone the server would pass over it and go on with its certificate.
    'a key that its suite does not go with': { ...psk('alice', randomBytes(32)), ciphers: 'TLS_AES_256_GCM_SHA384:PSK' },
    'the right key with a suite that does not use it': { ...psk(), ciphers: 'TLS_AES_256_GCM_SHA384:PSK' },
    'no key at all': {},
    'TLS 1.2 without a key': { maxVersion: 'TLSv1.2' },
    'a certificate that is not known': { ...await makeCertificate('mallory') },
  };
  for (const [name, options] of Object.entries(attempts)) {
    const client = await Client.greeted(t, site.port);
    t.strictSame(await client.option(nbdOption.startTls), [nbdReply.ack]);
    await client.secure(options);
    client.socket.write(encodeOption(nbdOption.list));
    await until(`${name} ends`, () => client.isClosed || undefined);
    await t.rejects(client.take(1), { message: 'closed' }, name);
  }
  t.equal(site.points.openedCount, 0);
});

t.test('with a pinned certificate', async (t) => {
  const [alice, mallory] = [await makeCertificate('alice'), await makeCertificate('mallory')];
  const site = await startTlsSite(t, [fingerprintOf(alice.cert)]);
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const client = await Client.greeted(t, site.port);
    await client.option(nbdOption.startTls);
    const secured = await client.secure({ ...alice, maxVersion });
    t.equal(fingerprintOf(secured.getPeerX509Certificate()!.raw), fingerprintOf(site.identity.cert), 'the target shows its own');
    t.strictSame((await client.option(nbdOption.info, encodeGo('web/vda@1.2', []))).at(-1), nbdReply.ack, maxVersion);
    const stranger = await Client.greeted(t, site.port);
    await stranger.option(nbdOption.startTls);
    await stranger.secure({ ...mallory, maxVersion });
    stranger.socket.write(encodeOption(nbdOption.list));
    await until('a stranger is turned away', () => stranger.isClosed || undefined);
    await t.rejects(stranger.take(1), { message: 'closed' });
  }
  await until('the log has the fingerprint that would have to be listed', () => site.logged.some(({ msg }) => String(msg).includes(fingerprintOf(mallory.cert))) ? true : undefined);
  // As QEMU wants its credentials. The target's certificate stands for itself, which QEMU finds odd.
  const folder = join(site.folder, 'x509');
  mkdirSync(folder);
  writeFileSync(join(folder, 'ca-cert.pem'), site.identity.cert);
  writeFileSync(join(folder, 'client-cert.pem'), alice.cert);
  writeFileSync(join(folder, 'client-key.pem'), alice.key, { mode: 0o600 });
  const { code, said } = await run(t, 'qemu-img', ['info', '--object', `tls-creds-x509,id=t,dir=${folder},endpoint=client,sanity-check=off`, '--image-opts', `driver=raw,file.driver=nbd,file.host=127.0.0.1,file.port=${site.port},file.export=web/vda@1.2,file.tls-creds=t,file.tls-hostname=localhost`]);
  t.equal(code, 0, said);
  const libnbd = await run(t, 'nbdinfo', ['--size', `nbds://localhost:${site.port}/web/vda@1.2?tls-certificates=${folder}`]);
  t.equal(libnbd.code, 0, libnbd.said);
});
