/** Exports of points under clients that take views and memory and give nothing back. */
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { nodeClock } from '../../host/node/clock.ts';
import { Fault } from '../../journal/fault.ts';
import type { NbdListenOptions, NbdServer } from '../../qemu/nbd-handler.ts';
import {
  encodeGo, encodeMetaQuery, encodeOption, encodeRequest, nbdBaseAllocation, nbdChunk, nbdCommand, nbdError, nbdGreetingBytes, nbdOption, nbdReply, nbdRequestBytes,
} from '../../qemu/nbd-protocol.ts';
import { listenNbd } from '../../qemu/nbd-server.ts';
import { NbdExports } from '../../replica-target/points/nbd-exports.ts';
import type { GroupPoints, PointView } from '../../replica-target/points/points.ts';
import { connectTo } from '../qemu/nbd-peers.ts';
import { shortFolder, until } from '../qemu/real-qemu.ts';
import { restorePoint } from './file-points.ts';

const MiB = 1024 * 1024;
const sizeBytes = 256 * MiB;

/** Views without a file: each byte is its point's number. `gate`: what an opening or a read waits for. */
class MadePoints implements GroupPoints {
  openCount = 0;
  openPeak = 0;
  gate: Promise<void> = Promise.resolve();
  readGate: Promise<void> = Promise.resolve();
  isBroken = false;

  async list() { return Array.from({ length: 100 }, (_, i) => restorePoint(1, i + 1, 1000 * i)); }

  async find({ term, point }: { term: number; point: number }) { return (await this.list()).find((one) => one.term === term && one.point === point) ?? null; }

  changedSince(): Promise<never> { return Promise.reject(new Error('not asked for')); }
  async open({ term, point }: { term: number; point: number }): Promise<PointView> {
    await this.gate;
    this.openCount += 1;
    this.openPeak = Math.max(this.openPeak, this.openCount);
    let isReleased = false;
    return {
      point: { term, point },
      disks: [{ disk: 0, name: 'vda', sizeBytes }],
      read: async (_disk, _offset, into) => {
        await this.readGate;
        if (isReleased) throw new Error('read after release');
        if (this.isBroken) throw new Fault('STORE_CORRUPT', 'the block does not hold what was written');
        into.fill(point);
      },
      // As finely parted as it can be.
      extents: async (_disk, _offset, length, countMax) => Array.from({ length: Math.min(countMax, length / 512) }, (_, i) => ({ length: 512, isZero: i % 2 === 0 })),
      release: async () => {
        if (isReleased) throw new Error('released twice');
        isReleased = true;
        this.openCount -= 1;
      },
    };
  }

  lock(): never { throw new Error('not here'); }
  hold(): never { throw new Error('not here'); }
  release(): never { throw new Error('not here'); }
  holds() { return []; }
}

interface Site { readonly points: MadePoints; readonly server: NbdServer; readonly path: string; readonly faults: Fault[] }

async function start(t: Test, options: Partial<NbdListenOptions> = {}): Promise<Site> {
  const points = new MadePoints();
  const group = { groupId: 'g', name: 'web', points };
  const faults: Fault[] = [];
  const onFault = (fault: Fault): void => { faults.push(fault); };
  const exports = new NbdExports({ all: () => [group], find: (name) => (name === 'web' ? group : null) }, nodeClock, onFault);
  const path = join(shortFolder(t), 'nbd');
  const server = await listenNbd({ path, exports, onFault, inFlightBytesMaxEach: 33 * MiB, inFlightBytesMax: 4 * 33 * MiB, ...options });
  t.teardown(() => server.close());
  return { points, server, path, faults };
}

class Client {
  readonly socket: Socket;
  #bytes: Buffer = Buffer.alloc(0);
  isClosed = false;

  constructor(t: Test, path: string) {
    this.socket = createConnection({ path });
    this.socket.on('data', (bytes: Buffer) => { this.#bytes = Buffer.concat([this.#bytes, bytes]); });
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => { this.isClosed = true; });
    t.teardown(() => this.socket.destroy());
  }

  async greeted(): Promise<this> {
    await this.take(nbdGreetingBytes);
    this.socket.write(Buffer.from([0, 0, 0, 3]));
    return this;
  }

  async take(count: number): Promise<Buffer> {
    await until(`${count} bytes`, () => this.#bytes.length >= count || undefined);
    const taken = this.#bytes.subarray(0, count);
    this.#bytes = this.#bytes.subarray(count);
    return taken;
  }

  async option(option: number, data?: Buffer): Promise<number> {
    this.socket.write(encodeOption(option, data));
    for (;;) {
      const head = await this.take(20);
      await this.take(head.readUInt32BE(16));
      const type = head.readUInt32BE(12);
      if (type === nbdReply.ack || type > 0x80000000) return type;
    }
  }
}

function request(type: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(nbdRequestBytes);
  encodeRequest(bytes, 0, type, 1, offset, length);
  return bytes;
}

t.test('a client has one view at a time, however many it asks about', async (t) => {
  const { points, path } = await start(t);
  const client = await new Client(t, path).greeted();
  for (let point = 1; point <= 50; point += 1) t.equal(await client.option(nbdOption.info, encodeGo(`web/vda@1.${point}`, [])), nbdReply.ack);
  t.equal(points.openPeak, 1);
  t.equal(await client.option(nbdOption.info, encodeGo('web/vda@9.9', [])), nbdReply.errUnknown);
  t.equal(points.openCount, 0);
  await client.option(nbdOption.info, encodeGo('web/vda@1.7', []));
  t.equal(points.openCount, 1);
  client.socket.destroy();
  await until('it is released', () => points.openCount === 0 || undefined);
});

t.test('one that leaves while its view is being opened, or in the middle of a read', async (t) => {
  const { points, path, server, faults } = await start(t);
  let go = (): void => undefined;
  points.gate = new Promise((resolve) => { go = resolve; });
  const early = await new Client(t, path).greeted();
  early.socket.write(encodeOption(nbdOption.go, encodeGo('web/vda@1.7', [])));
  await until('it is there', () => server.figures().connections === 1 || undefined);
  early.socket.destroy();
  await until('it has gone', () => server.figures().connections === 0 || undefined);
  go();
  await until('nothing is left', () => points.openPeak === 1 && points.openCount === 0 || undefined);
  points.readGate = new Promise((resolve) => { go = resolve; });
  const reading = await new Client(t, path).greeted();
  await reading.option(nbdOption.go, encodeGo('web/vda@1.7', []));
  reading.socket.write(request(nbdCommand.read, 0, MiB));
  await until('it reads', () => server.figures().inFlightBytes > 0 || undefined);
  reading.socket.destroy();
  await until('it has gone', () => server.figures().connections === 0 || undefined);
  t.equal(points.openCount, 1, 'a view is not taken from under a read');
  go();
  await until('then it goes', () => points.openCount === 0 && server.figures().inFlightBytes === 0 || undefined);
  t.notOk(faults.some(({ code }) => code === 'NBD_IO'));
});

t.test('clients that ask for much and take nothing: no more than one request of the largest size each, and others go on', async (t) => {
  const { points, path, server, faults } = await start(t, { stallLimitMs: 4000 });
  const idle = await Promise.all([1, 2, 3].map(async () => {
    const client = await new Client(t, path).greeted();
    await client.option(nbdOption.go, encodeGo('web/vda@1.7', []));
    client.socket.pause();
    client.socket.write(Buffer.concat(Array.from({ length: 500 }, (_, i) => request(nbdCommand.read, 0, i % 2 === 0 ? 32 * MiB : 4096))));
    return client;
  }));
  await until('each has what it may have', () => server.figures().inFlightBytes >= 96 * MiB || undefined);
  const good = await connectTo(t, path, { exportName: 'web/vda@1.9' });
  const into = Buffer.alloc(MiB);
  for (let i = 0; i < 32; i += 1) {
    await good.read(into, 0, MiB, i * MiB);
    t.ok(server.figures().inFlightBytes <= 3 * 33 * MiB + 2 * MiB);
  }
  t.ok(into.every((byte) => byte === 9));
  await until('they are ended', () => server.figures().connections === 1 || undefined);
  t.ok(idle.length === 3 && faults.filter(({ message }) => /takes no replies|not done within/.test(message)).length === 3);
  t.equal(points.openCount, 1);
  await until('their memory is free', () => server.figures().inFlightBytes === 0 || undefined);
});

t.test('block status of the finest parts is answered in bounded pieces', async (t) => {
  const { path, server } = await start(t);
  const client = await new Client(t, path).greeted();
  await client.option(nbdOption.structuredReply);
  await client.option(nbdOption.setMetaContext, encodeMetaQuery('web/vda@1.7', [nbdBaseAllocation]));
  await client.option(nbdOption.go, encodeGo('web/vda@1.7', []));
  client.socket.write(request(nbdCommand.blockStatus, 0, sizeBytes));
  const head = await client.take(20);
  t.equal(head.readUInt16BE(6), nbdChunk.blockStatus);
  t.ok(head.readUInt32BE(16) <= 64 * 1024 + 4);
  await client.take(head.readUInt32BE(16));
  await until('its room is free again', () => server.figures().inFlightBytes === 0 || undefined);
});

t.test('a damaged block is an error of one request, never other bytes', async (t) => {
  const { points, path, faults } = await start(t);
  const client = await new Client(t, path).greeted();
  await client.option(nbdOption.go, encodeGo('web/vda@1.7', []));
  points.isBroken = true;
  client.socket.write(request(nbdCommand.read, 0, 4096));
  t.equal((await client.take(16)).readUInt32BE(4), nbdError.io);
  t.match(faults, [{ code: 'NBD_IO', cause: { code: 'STORE_CORRUPT' } }]);
  points.isBroken = false;
  client.socket.write(request(nbdCommand.read, 0, 4096));
  t.equal((await client.take(16)).readUInt32BE(4), 0);
  t.ok((await client.take(4096)).every((byte) => byte === 7));
  for (const [type, offset, length, error] of [
    [nbdCommand.write, 0, 0, nbdError.perm], [nbdCommand.writeZeroes, 0, 512, nbdError.perm], [nbdCommand.trim, 0, 512, nbdError.perm], [nbdCommand.cache, 0, 512, nbdError.inval],
    [nbdCommand.read, sizeBytes - 1, 2, nbdError.inval], [nbdCommand.read, 0, 32 * MiB + 1, nbdError.inval], [nbdCommand.blockStatus, 0, 512, nbdError.inval], [77, 0, 0, nbdError.inval], [nbdCommand.flush, 0, 0, 0],
  ] as const) {
    client.socket.write(request(type, offset, length));
    t.equal((await client.take(16)).readUInt32BE(4), error, `command ${type}`);
  }
});
