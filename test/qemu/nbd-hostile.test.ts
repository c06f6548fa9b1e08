/** The NBD server against clients that are old, odd, idle or hostile, spoken to byte by byte. */
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Fault, FaultCode } from '../../journal/fault.ts';
import type { NbdListenOptions, NbdServer } from '../../qemu/nbd-handler.ts';
import {
  encodeGo, encodeMetaQuery, encodeOption, encodeRequest, encodeString, nbdBaseAllocation, nbdCommand, nbdCommandFlag, nbdError, nbdGreetingBytes, nbdInfo,
  nbdOption, nbdOptionReplyHeaderBytes, nbdReply, nbdRequestBytes, nbdSimpleReplyMagic, nbdChunkMagic,
} from '../../qemu/nbd-protocol.ts';
import { listenNbd } from '../../qemu/nbd-server.ts';
import { memoryDisk } from './nbd-memory-disk.ts';
import { connectTo, pattern } from './nbd-peers.ts';
import { shortFolder, until } from './real-qemu.ts';

const MiB = 1024 * 1024;
const sizeBytes = 4 * MiB;

/** A client without manners: sends what it is told, and takes bytes when asked. */
class RawClient {
  readonly socket: Socket;
  isClosed = false;
  #held = Buffer.alloc(0);

  constructor(t: Test, path: string) {
    this.socket = createConnection({ path });
    this.socket.on('data', (bytes) => { this.#held = Buffer.concat([this.#held, bytes]); });
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => { this.isClosed = true; });
    t.teardown(() => this.socket.destroy());
  }

  send(...bytes: Buffer[]): void { for (const piece of bytes) this.socket.write(piece); }

  async take(bytes: number): Promise<Buffer> {
    await until(`${bytes} bytes arrive`, () => {
      if (this.#held.length < bytes && this.isClosed) throw new Error(`closed after ${this.#held.length} of ${bytes} bytes`);
      return this.#held.length >= bytes || undefined;
    });
    const taken = this.#held.subarray(0, bytes);
    this.#held = this.#held.subarray(bytes);
    return taken;
  }

  /** Everything until the server closes. */
  async rest(): Promise<Buffer> {
    await until('the server closes', () => this.isClosed || undefined);
    return this.#held;
  }

  async greeted(flags = 3): Promise<this> {
    await this.take(nbdGreetingBytes);
    this.send(words(flags));
    return this;
  }

  async option(option: number, data?: Buffer): Promise<{ readonly type: number; readonly data: Buffer }[]> {
    this.send(encodeOption(option, data));
    const replies: { type: number; data: Buffer }[] = [];
    for (;;) {
      const head = await this.take(nbdOptionReplyHeaderBytes);
      replies.push({ type: head.readUInt32BE(12), data: await this.take(head.readUInt32BE(16)) });
      if (head.readUInt32BE(12) === nbdReply.ack || head.readUInt32BE(12) >= 0x80000000) return replies;
    }
  }

  async entered(): Promise<this> {
    await this.greeted();
    await this.option(nbdOption.go, encodeGo('disk', []));
    return this;
  }

  /** The error of the simple reply that comes next. */
  async error(): Promise<number> {
    const reply = await this.take(16);
    if (reply.readUInt32BE(0) !== nbdSimpleReplyMagic) throw new Error('no simple reply');
    return reply.readUInt32BE(4);
  }
}

function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => bytes.writeUInt32BE(value, 4 * i));
  return bytes;
}

function request(type: number, offset: number, length: number, flags = 0): Buffer {
  const bytes = Buffer.alloc(nbdRequestBytes);
  encodeRequest(bytes, flags, type, 1, offset, length);
  return bytes;
}

/** How the server reads its sockets (nbd-accept.ts): every test runs both ways. */
let isDirect = true;

function both(name: string, body: (t: Test) => Promise<void>): void {
  for (const way of [true, false]) {
    t.test(`${name} (${way ? 'direct' : 'copying'})`, (t) => {
      isDirect = way;
      return body(t);
    });
  }
}

interface Listening { readonly path: string; readonly server: NbdServer; readonly faults: Fault[]; readonly disk: ReturnType<typeof memoryDisk> }

async function listen(t: Test, options: Partial<NbdListenOptions> = {}): Promise<Listening> {
  const path = join(shortFolder(t), 'nbd');
  const faults: Fault[] = [];
  const disk = memoryDisk(sizeBytes);
  const exports = new Map([['disk', { sizeBytes, handler: disk.handler }], ['slow', { sizeBytes, handler: disk.handler, isZeroFast: false }]]);
  const server = await listenNbd({ path, exports, isDirect, onFault: (fault) => faults.push(fault), ...options });
  t.teardown(() => server.close());
  return { path, server, faults, disk };
}

both('haggling', async (t) => {
  const { path, faults } = await listen(t);
  const client = await new RawClient(t, path).greeted();
  t.match(await client.option(nbdOption.list), [{ type: nbdReply.server, data: encodeString('disk') }, { type: nbdReply.server, data: encodeString('slow') }, { type: nbdReply.ack }]);
  t.match(await client.option(nbdOption.list, Buffer.alloc(1)), [{ type: nbdReply.errInvalid }]);
  t.match(await client.option(nbdOption.startTls), [{ type: nbdReply.errUnsup }]);
  t.match(await client.option(nbdOption.extendedHeaders), [{ type: nbdReply.errUnsup }]);
  t.match(await client.option(999, Buffer.alloc(1000)), [{ type: nbdReply.errUnsup }]);
  t.match(await client.option(nbdOption.setMetaContext, encodeMetaQuery('disk', [nbdBaseAllocation])), [{ type: nbdReply.errInvalid }], 'structured replies first');
  t.match(await client.option(nbdOption.structuredReply, Buffer.alloc(1)), [{ type: nbdReply.errInvalid }]);
  t.match(await client.option(nbdOption.structuredReply), [{ type: nbdReply.ack }]);
  t.match(await client.option(nbdOption.setMetaContext, encodeMetaQuery('disk', [nbdBaseAllocation, 'qemu:dirty-bitmap:x'])), [{ type: nbdReply.metaContext, data: Buffer.concat([words(1), Buffer.from(nbdBaseAllocation)]) }, { type: nbdReply.ack }]);
  t.match(await client.option(nbdOption.listMetaContext, encodeMetaQuery('disk', [])), [{ type: nbdReply.metaContext }, { type: nbdReply.ack }]);
  t.match(await client.option(nbdOption.listMetaContext, encodeMetaQuery('gone', [])), [{ type: nbdReply.errUnknown }]);
  t.match(await client.option(nbdOption.setMetaContext, encodeMetaQuery('disk', ['x-a:b'])), [{ type: nbdReply.ack }]);
  t.match(await client.option(nbdOption.setMetaContext, words(0, 9, 9)), [{ type: nbdReply.errInvalid }]);
  t.match(await client.option(nbdOption.info, encodeGo('gone', [])), [{ type: nbdReply.errUnknown }]);
  t.match(await client.option(nbdOption.go, words(5)), [{ type: nbdReply.errInvalid }]);
  t.match(await client.option(nbdOption.info, encodeGo('disk', [nbdInfo.name, nbdInfo.blockSize])), [{ type: nbdReply.info }, { type: nbdReply.info }, { type: nbdReply.info }, { type: nbdReply.ack }]);
  t.match(await client.option(nbdOption.abort), [{ type: nbdReply.ack }]);
  t.equal((await client.rest()).length, 0);
  t.same(faults, []);
});

both('the old way in: NBD_OPT_EXPORT_NAME', async (t) => {
  const { path, faults } = await listen(t);
  for (const [flags, bytes] of [[3, 10], [1, 134]] as const) {
    const client = await new RawClient(t, path).greeted(flags);
    client.send(encodeOption(nbdOption.exportName, Buffer.from('disk')), request(nbdCommand.flush, 0, 0));
    const reply = await client.take(bytes);
    t.equal(Number(reply.readBigUInt64BE(0)), sizeBytes);
    t.equal(await client.error(), 0);
    client.send(request(nbdCommand.disc, 0, 0));
    t.equal((await client.rest()).length, 0);
  }
  const lost = await new RawClient(t, path).greeted();
  lost.send(encodeOption(nbdOption.exportName, Buffer.from('gone')));
  t.equal((await lost.rest()).length, 0);
  t.same(faults, []);
});

both('requests that are refused, one error each, and the connection goes on', async (t) => {
  const { path, disk } = await listen(t);
  const client = await new RawClient(t, path).entered();
  const end = sizeBytes - 512;
  const cases: readonly [string, Buffer[], number][] = [
    ['a write beyond the end', [request(nbdCommand.write, end, 1024), Buffer.alloc(1024)], nbdError.nospc],
    ['a write far beyond the end', [request(nbdCommand.write, Number.MAX_SAFE_INTEGER - 511, 512).fill(0xff, 16, 24), Buffer.alloc(512)], nbdError.nospc],
    ['a write off its sectors', [request(nbdCommand.write, 1, 512), Buffer.alloc(512)], nbdError.inval],
    ['a write of half a sector', [request(nbdCommand.write, 0, 100), Buffer.alloc(100)], nbdError.inval],
    ['a write with flags that are not its own', [request(nbdCommand.write, 0, 512, nbdCommandFlag.df), Buffer.alloc(512)], nbdError.inval],
    ['a write with unknown flags', [request(nbdCommand.write, 0, 512, 0x8000), Buffer.alloc(512)], nbdError.inval],
    ['zeroes beyond the end', [request(nbdCommand.writeZeroes, end, 0xfffffe00)], nbdError.nospc],
    ['zeroes off their sectors', [request(nbdCommand.writeZeroes, 256, 512)], nbdError.inval],
    ['a trim beyond the end', [request(nbdCommand.trim, end, 1024)], nbdError.inval],
    ['a flush of something', [request(nbdCommand.flush, 0, 512)], nbdError.inval],
    ['a read beyond the end', [request(nbdCommand.read, end, 1024)], nbdError.inval],
    ['a read of nothing', [request(nbdCommand.read, 0, 0)], nbdError.inval],
    ['a read of gigabytes', [request(nbdCommand.read, 0, 0xfffffe00)], nbdError.inval],
    ['block status without a context', [request(nbdCommand.blockStatus, 0, 512)], nbdError.inval],
    ['a cache request', [request(nbdCommand.cache, 0, 512)], nbdError.inval],
    ['a command that nobody knows', [request(77, 0, 512)], nbdError.inval],
  ];
  for (const [name, bytes, error] of cases) {
    client.send(...bytes);
    t.equal(await client.error(), error, name);
  }
  t.match(disk.calls, { writes: 0, zeroes: 0, flushes: 0, reads: 0 }, 'nobody was asked');
  client.send(request(nbdCommand.write, 0, 0), request(nbdCommand.writeZeroes, 0, 0), request(nbdCommand.trim, 0, 0));
  t.same([await client.error(), await client.error(), await client.error()], [0, 0, 0], 'nothing at all is no error');
  client.send(request(nbdCommand.writeZeroes, 0, 512, nbdCommandFlag.fastZero | nbdCommandFlag.noHole));
  t.equal(await client.error(), 0, 'zeroing is fast here');
  const slow = await new RawClient(t, path).greeted();
  await slow.option(nbdOption.go, encodeGo('slow', []));
  slow.send(request(nbdCommand.writeZeroes, 0, 512, nbdCommandFlag.fastZero), request(nbdCommand.writeZeroes, 0, 512));
  t.same([await slow.error(), await slow.error()], [nbdError.notsup, 0]);
});

both('with structured replies a read is refused in a chunk', async (t) => {
  const { path } = await listen(t);
  const client = await new RawClient(t, path).greeted();
  await client.option(nbdOption.structuredReply);
  await client.option(nbdOption.go, encodeGo('disk', []));
  client.send(request(nbdCommand.read, sizeBytes, 512));
  const chunk = await client.take(26);
  t.equal(chunk.readUInt32BE(0), nbdChunkMagic);
  t.same([chunk.readUInt16BE(4), chunk.readUInt16BE(6), chunk.readUInt32BE(16), chunk.readUInt32BE(20)], [1, 0x8001, 6, nbdError.inval]);
});

both('goodbye waits for what is under way', async (t) => {
  const { path, disk, faults } = await listen(t);
  const client = await new RawClient(t, path).entered();
  client.send(request(nbdCommand.write, 0, MiB), pattern(0, MiB), request(nbdCommand.flush, 0, 0), request(nbdCommand.disc, 0, 0));
  t.equal((await client.rest()).length, 32, 'both are answered');
  t.ok(disk.bytes.subarray(0, MiB).equals(pattern(0, MiB)));
  t.same(faults, []);
});

both('clients that break the rules are ended, and harm nobody else', async (t) => {
  const { path, server, faults, disk } = await listen(t, { stallLimitMs: 900, handshakeLimitMs: 900, inFlightBytesMax: 2 * MiB });
  const good = await connectTo(t, path, { exportName: 'disk' });
  const halfOption = encodeOption(nbdOption.go, encodeGo('disk', [])).subarray(0, 20);
  const hugeOption = encodeOption(nbdOption.list);
  hugeOption.writeUInt32BE(0xffffffff, 12);
  const cases: Record<string, { before: 'greeted' | 'entered' | 'nothing'; send: Buffer[]; code: FaultCode; says: RegExp }> = {
    'silence': { before: 'nothing', send: [], code: 'NBD_PROTOCOL', says: /no export chosen/ },
    'a web browser': { before: 'nothing', send: [Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')], code: 'NBD_PROTOCOL', says: /unknown client flags/ },
    'flags that nobody offered': { before: 'nothing', send: [words(0xff)], code: 'NBD_PROTOCOL', says: /unknown client flags/ },
    'an option without magic': { before: 'greeted', send: [Buffer.alloc(16, 1)], code: 'NBD_PROTOCOL', says: /magic/ },
    'a huge option': { before: 'greeted', send: [hugeOption], code: 'NBD_PROTOCOL', says: /4294967295 bytes/ },
    'half an option': { before: 'greeted', send: [halfOption], code: 'NBD_PROTOCOL', says: /no export chosen/ },
    'options without end': { before: 'greeted', send: Array.from({ length: 1000 }, () => encodeOption(nbdOption.list)), code: 'NBD_PROTOCOL', says: /more than 64/ },
    'a request without magic': { before: 'entered', send: [Buffer.alloc(28, 1)], code: 'NBD_PROTOCOL', says: /magic/ },
    'a write of gigabytes': { before: 'entered', send: [request(nbdCommand.write, 0, 0xffffffff)], code: 'NBD_PROTOCOL', says: /4294967295 bytes/ },
    'half a request': { before: 'entered', send: [request(nbdCommand.write, 0, 512).subarray(0, 10)], code: 'NBD_PROTOCOL', says: /half a request/ },
    'half a payload': { before: 'entered', send: [request(nbdCommand.write, 0, MiB), Buffer.alloc(1000)], code: 'NBD_CLOSED', says: /not done within/ },
  };
  for (const [name, { before, send, code, says }] of Object.entries(cases)) {
    await t.test(name, async (t) => {
      const known = faults.length;
      const client = new RawClient(t, path);
      if (before === 'greeted') await client.greeted();
      if (before === 'entered') await client.entered();
      client.send(...send);
      await client.rest();
      t.equal(faults.length, known + 1);
      t.equal(faults.at(-1)!.code, code);
      t.match(faults.at(-1)!.message, says);
      t.equal(server.figures().inFlightBytes, 0);
      await good.write(pattern(known, 64 * 1024), 0);
      t.ok(disk.bytes.subarray(0, 64 * 1024).equals(pattern(known, 64 * 1024)));
    });
  }
  t.equal(server.figures().endedConnections, Object.keys(cases).length);
  await t.test('one that goes away in the middle of a write', async (t) => {
    const client = await new RawClient(t, path).entered();
    client.send(request(nbdCommand.write, 0, 2 * MiB), Buffer.alloc(MiB + 1000));
    await until('it has begun', () => (server.figures().inFlightBytes > 0 ? true : undefined));
    client.socket.destroy();
    await until('its room is free again', () => (server.figures().inFlightBytes === 0 ? true : undefined));
    t.equal(faults.at(-1)!.code, 'NBD_CLOSED');
  });
  t.equal(server.figures().connections, 1);
});

both('clients that take no answers do not fill the memory', async (t) => {
  const { path, server, faults } = await listen(t, { stallLimitMs: 500, inFlightBytesMax: 2 * MiB });
  for (const [name, bytes] of Object.entries({ reads: request(nbdCommand.read, 0, MiB), flushes: request(nbdCommand.flush, 0, 0) })) {
    await t.test(name, async (t) => {
      const known = faults.length;
      const client = await new RawClient(t, path).entered();
      client.socket.pause();
      const flood = Buffer.concat(Array.from({ length: 10_000 }, () => bytes));
      const pour = (): void => { while (!client.isClosed && client.socket.write(flood)); };
      client.socket.on('drain', pour);
      pour();
      await until('the server ends it', () => faults.length > known || undefined);
      t.match(faults[known]!.message, /takes no replies|not done within/);
      await until('its room is free again', () => (server.figures().inFlightBytes === 0 ? true : undefined));
      t.ok(server.figures().inFlightBytesPeak <= 2 * MiB);
      client.socket.destroy();
    });
  }
});

both('no more clients than agreed', async (t) => {
  const { path, server, faults } = await listen(t, { connectionsMax: 2 });
  const two = await Promise.all([1, 2].map(() => connectTo(t, path, { exportName: 'disk' })));
  t.equal((await new RawClient(t, path).rest()).length, 0);
  t.equal(faults[0]?.code, 'NBD_CLOSED');
  await two[0]!.close();
  await until('a place is free', () => (server.figures().connections === 1 ? true : undefined));
  await connectTo(t, path, { exportName: 'disk' });
});
