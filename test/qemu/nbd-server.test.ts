/** The NBD server under real clients: qemu-img, nbdcopy, nbdinfo, QEMU's mirror job; and under handlers that fail, crawl or hang. */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Fault } from '../../journal/fault.ts';
import { BufferPool } from '../../host/buffer-pool.ts';
import type { NbdExport, NbdListenOptions, NbdServer } from '../../qemu/nbd-handler.ts';
import { listenNbd } from '../../qemu/nbd-server.ts';
import { nbdBaseAllocation } from '../../qemu/nbd-protocol.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { memoryDisk } from './nbd-memory-disk.ts';
import { connectTo, pattern, refused, run, start } from './nbd-peers.ts';
import { connect, shortFolder, startStorageDaemon, until } from './real-qemu.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const sizeBytes = 12 * MiB;

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

interface Listening { readonly path: string; readonly uri: string; readonly server: NbdServer; readonly faults: Fault[] }

async function listen(t: Test, exports: Readonly<Record<string, NbdExport>>, options: Partial<NbdListenOptions> = {}): Promise<Listening> {
  const path = join(shortFolder(t), 'nbd');
  const faults: Fault[] = [];
  const server = await listenNbd({ path, exports: new Map(Object.entries(exports)), isDirect, onFault: (fault) => faults.push(fault), ...options });
  t.teardown(() => server.close());
  return { path, uri: `nbd+unix:///disk?socket=${path}`, server, faults };
}

/** Data, a hole, written zeroes, data that ends off any power of two. */
function makeDisk(t: Test): { readonly path: string; readonly bytes: Buffer } {
  const path = join(shortFolder(t), 'disk.raw');
  const bytes = Buffer.alloc(sizeBytes);
  pattern(0, 3 * MiB).copy(bytes, 0);
  pattern(9 * MiB, 2 * MiB + 512).copy(bytes, 9 * MiB);
  const file = openSync(path, 'w');
  writeSync(file, bytes, 0, 3 * MiB, 0);
  writeSync(file, bytes, 6 * MiB, MiB, 6 * MiB);
  writeSync(file, bytes, 9 * MiB, 3 * MiB, 9 * MiB);
  closeSync(file);
  return { path, bytes };
}

both('qemu-img convert and nbdcopy write into it', async (t) => {
  const source = makeDisk(t);
  const qcow2 = join(shortFolder(t), 'disk.qcow2');
  t.equal((await run(t, 'qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', source.path, qcow2])).code, 0);
  const programs: Record<string, (uri: string) => readonly [string, ...string[]]> = {
    'qemu-img, raw': (uri) => ['qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', source.path, uri],
    'qemu-img, qcow2, out of order': (uri) => ['qemu-img', 'convert', '-n', '-W', '-m', '16', '-f', 'qcow2', '-O', 'raw', qcow2, uri],
    'nbdcopy': (uri) => ['nbdcopy', '--flush', source.path, uri],
    'nbdcopy, large requests': (uri) => ['nbdcopy', `--request-size=${8 * MiB}`, source.path, uri],
  };
  for (const [name, argsOf] of Object.entries(programs)) {
    await t.test(name, async (t) => {
      const disk = memoryDisk(sizeBytes);
      const { uri, server, faults } = await listen(t, { disk: { sizeBytes, handler: disk.handler } });
      const [program, ...args] = argsOf(uri);
      const { code, said } = await run(t, program, args);
      t.equal(code, 0, said);
      t.ok(disk.bytes.equals(source.bytes), 'byte for byte');
      t.ok(disk.calls.zeroes > 0 && disk.calls.writes > 0, JSON.stringify(disk.calls));
      t.equal(server.figures().writtenBytes, disk.calls.writtenBytes);
      t.equal(server.figures().inFlightBytes, 0);
      t.same(faults, []);
    });
  }
});

async function mirrorReady(qmp: QmpConnection, job: string): Promise<void> {
  await until('the mirror is ready', async () => {
    const jobs = await qmp.execute<{ id: string; status: string; error?: string }[]>('query-jobs');
    const found = jobs.find(({ id }) => id === job);
    if (found?.error !== undefined) throw new Error(found.error);
    return found?.status === 'ready' ? true : undefined;
  });
}

for (const format of ['raw', 'qcow2'] as const) {
  both(`QEMU's mirror of a ${format} disk, with writes while it runs`, async (t) => {
    const folder = shortFolder(t);
    const source = makeDisk(t);
    const disk = join(folder, 'disk');
    t.equal((await run(t, 'qemu-img', ['convert', '-f', 'raw', '-O', format, source.path, disk])).code, 0);
    const qmp = await connect(t, await startStorageDaemon(t));
    await qmp.execute('blockdev-add', { driver: format, 'node-name': 'n', file: { driver: 'file', filename: disk, discard: 'unmap' }, discard: 'unmap' });
    const guestSocket = join(folder, 'guest');
    await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: guestSocket } } });
    await qmp.execute('block-export-add', { type: 'nbd', id: 'g', 'node-name': 'n', name: 'g', writable: true });
    const guest = await connectTo(t, guestSocket, { exportName: 'g' });

    const sink = memoryDisk(sizeBytes);
    const buffers = new BufferPool(80, 8 * MiB);
    const { path, server, faults } = await listen(t, {
      disk: {
        sizeBytes,
        handler: {
          ...sink.handler,
          async write(offset, buffer, headroomBytes) {
            await sink.handler.write(offset, buffer, headroomBytes);
            buffers.give(buffer);
          },
        },
      },
    }, { buffers, inFlightBytesMax: 4 * MiB });
    await qmp.execute('blockdev-add', { driver: 'nbd', 'node-name': 'sink', server: { type: 'unix', path }, export: 'disk', discard: 'unmap' });
    await qmp.execute('blockdev-mirror', { 'job-id': 'm', device: 'n', target: 'sink', sync: 'full', 'copy-mode': 'background', granularity: 65536 });
    await mirrorReady(qmp, 'm');
    t.same(server.figures().clients, { disk: 1 });
    // The job is ready, and goes on: what the guest does now follows.
    await guest.write(pattern(77, 64 * KiB), 4 * MiB);
    await guest.zero(MiB, MiB, { mayPunch: true });
    await guest.trim(0, 128 * KiB);
    await guest.flush();
    await until('the mirror has caught up', async () => {
      const [job] = await qmp.execute<{ len: number; offset: number; busy: boolean }[]>('query-block-jobs');
      return job!.len === job!.offset && !job!.busy ? true : undefined;
    });
    await qmp.execute('block-job-complete', { device: 'm' });
    await until('the job is gone', async () => ((await qmp.execute<unknown[]>('query-jobs')).length === 0 ? true : undefined));
    const now = Buffer.alloc(sizeBytes);
    await guest.read(now, 0, sizeBytes, 0);
    t.ok(now.subarray(MiB, 2 * MiB).equals(Buffer.alloc(MiB)));
    t.ok(sink.bytes.equals(now), 'byte for byte');
    t.ok(sink.calls.zeroedBytes >= 6 * MiB, JSON.stringify(sink.calls));
    t.ok(server.figures().inFlightBytesPeak <= 4 * MiB);
    t.equal(server.figures().inFlightBytes, 0);
    t.same(faults, []);
  });
}

both('a handler that fails: the client is told which way, and goes on', async (t) => {
  const disk = memoryDisk(sizeBytes);
  const fail = (code: string): Promise<never> => Promise.reject(Object.assign(new Error(`injected ${code}`), { code }));
  const { path, uri, server, faults } = await listen(t, {
    disk: {
      sizeBytes,
      handler: {
        ...disk.handler,
        write: (offset, buffer, headroomBytes) => (offset === 3 * MiB ? fail('EDQUOT') : offset === 4 * MiB ? fail('EROFS') : disk.handler.write(offset, buffer, headroomBytes)),
        zero: () => { throw new Error('thrown, not rejected'); },
      },
    },
  });
  const client = await connectTo(t, path, { exportName: 'disk' });
  t.match((await refused(t, client.write(pattern(0, 8 * MiB), 0), 'NBD_IO')).facts, { errno: 'ENOSPC', command: 'write' }, 'one failed run fails its request');
  t.match((await refused(t, client.write(pattern(0, MiB), 4 * MiB), 'NBD_IO')).facts, { errno: 'EPERM' });
  t.match((await refused(t, client.zero(0, MiB), 'NBD_IO')).facts, { errno: 'EIO' });
  await client.write(pattern(0, 64 * KiB), 0, { isDurable: true });
  t.equal(disk.calls.flushes, 1, 'FUA flushes');
  t.equal(server.figures().failedRequests, 3);
  t.equal(server.figures().inFlightBytes, 0);
  t.ok(faults.length >= 3 && faults.every(({ code }) => code === 'NBD_IO'));
  t.match(faults[0]!.facts, { exportName: 'disk', command: 'write', offset: 0, errno: 'ENOSPC' });
  const source = makeDisk(t);
  const { code, said } = await run(t, 'qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', source.path, uri]);
  t.not(code, 0);
  t.match(said, /Input\/output error|No space left/);
});

both('slow handlers: what is under way is bounded, over all connections, and all arrives', async (t) => {
  const inFlightBytesMax = 3 * MiB;
  const waiting: (() => void)[] = [];
  let heldBytes = 0;
  let heldBytesPeak = 0;
  const disk = memoryDisk(64 * MiB);
  const { path, server, faults } = await listen(t, {
    disk: {
      sizeBytes: 64 * MiB,
      handler: {
        async write(offset, buffer, headroomBytes) {
          heldBytes += buffer.length;
          heldBytesPeak = Math.max(heldBytesPeak, heldBytes);
          await new Promise<void>((resolve) => { waiting.push(resolve); });
          await disk.handler.write(offset, buffer, headroomBytes);
          heldBytes -= buffer.length;
        },
      },
    },
  }, { inFlightBytesMax });
  const clients = await Promise.all([1, 2, 3, 4].map(() => connectTo(t, path, { exportName: 'disk', requestsMax: 64 })));
  let isDone = false;
  const bytes = pattern(0, 64 * MiB);
  const all = Promise.all(Array.from({ length: 64 }, (_, i) => clients[i % 4]!.write(bytes.subarray(i * MiB, (i + 1) * MiB), i * MiB))).then(() => { isDone = true; });
  await until('the budget is used up', () => (server.figures().inFlightBytes > 2 * MiB ? true : undefined));
  const stuckAt = server.figures().writtenBytes;
  for (let i = 0; i < 200; i++) await new Promise((resolve) => { setImmediate(resolve); });
  t.equal(server.figures().writtenBytes, stuckAt, 'nothing more is read while nobody takes it');
  while (!isDone) {
    waiting.shift()?.();
    await new Promise((resolve) => { setImmediate(resolve); });
  }
  await all;
  t.ok(disk.bytes.equals(bytes));
  t.ok(heldBytesPeak <= inFlightBytesMax, `${heldBytesPeak}`);
  t.ok(server.figures().inFlightBytesPeak <= inFlightBytesMax);
  t.equal(server.figures().inFlightBytes, 0);
  t.same(faults, []);
});

both('a handler that hangs: the connection ends within the limit, and QEMU with its job goes on', async (t) => {
  const folder = shortFolder(t);
  const { path, server, faults } = await listen(t, {
    disk: { sizeBytes, handler: { write: () => new Promise<void>(() => undefined), zero: async () => undefined, flush: async () => undefined } },
  }, { stallLimitMs: 300 });
  const source = makeDisk(t);
  const qmp = await connect(t, await startStorageDaemon(t));
  await qmp.execute('blockdev-add', { driver: 'raw', 'node-name': 'n', file: { driver: 'file', filename: source.path } });
  await qmp.execute('blockdev-add', { driver: 'nbd', 'node-name': 'sink', server: { type: 'unix', path }, export: 'disk' });
  await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: join(folder, 'g') } } });
  await qmp.execute('block-export-add', { type: 'nbd', id: 'g', 'node-name': 'n', name: 'g', writable: true });
  const guest = await connectTo(t, join(folder, 'g'), { exportName: 'g' });
  const over = new Promise<Readonly<Record<string, unknown>>>((resolve) => { qmp.onEvent(({ event, data }) => { if (event === 'BLOCK_JOB_COMPLETED') resolve(data); }); });
  await qmp.execute('blockdev-mirror', { 'job-id': 'm', device: 'n', target: 'sink', sync: 'full', 'copy-mode': 'background' });
  t.match(await over, { error: /.+/ });
  t.equal(faults[0]?.code, 'NBD_CLOSED');
  t.match(faults[0]?.facts, { exportName: 'disk', stallLimitMs: 300 });
  await guest.write(pattern(0, 64 * KiB), 0);
  const into = Buffer.alloc(64 * KiB);
  await guest.read(into, 0, into.length, 0);
  t.ok(into.equals(pattern(0, 64 * KiB)), 'the guest never noticed');
  t.equal(server.figures().endedConnections, 1);
});

both('close ends all connections at once', async (t) => {
  const { path, server } = await listen(t, { disk: { sizeBytes, handler: { write: () => new Promise<void>(() => undefined) } } });
  const clients = await Promise.all([1, 2, 3].map(() => connectTo(t, path, { exportName: 'disk' })));
  const writes = clients.map((client) => refused(t, client.write(pattern(0, MiB), 0), 'NBD_CLOSED'));
  await until('they are under way', () => (server.figures().writtenBytes === 3 * MiB ? true : undefined));
  await server.close();
  await Promise.all(writes);
  t.equal(server.figures().connections, 0);
  await refused(t, connectTo(t, path, { exportName: 'disk' }), 'NBD_CLOSED');
});

both('a socket of a dead process is replaced', async (t) => {
  const path = join(shortFolder(t), 'nbd');
  const { child, over } = start(t, process.execPath, ['-e', `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`]);
  await over;
  t.equal(child.signalCode, 'SIGKILL');
  const disk = memoryDisk(sizeBytes);
  const server = await listenNbd({ path, exports: new Map([['', { sizeBytes, handler: disk.handler }]]), isDirect, onFault: () => undefined });
  t.teardown(() => server.close());
  t.equal((await connectTo(t, path)).sizeBytes, sizeBytes);
});

both('reads: qemu-img, nbdcopy, nbdinfo and our own client see the disk', async (t) => {
  const disk = memoryDisk(sizeBytes, 0);
  pattern(0, 2 * MiB).copy(disk.bytes, MiB);
  pattern(5, MiB).copy(disk.bytes, 11 * MiB);
  const { read, extents } = disk.handler;
  const { path, uri, server, faults } = await listen(t, { disk: { sizeBytes, handler: { read, extents } }, blind: { sizeBytes, handler: { read } } }, { inFlightBytesMax: 2 * MiB });
  for (const [name, args] of Object.entries({
    'qemu-img': ['qemu-img', 'convert', '-f', 'raw', '-O', 'raw', uri], 'nbdcopy': ['nbdcopy', uri],
    'nbdcopy, no extents': ['nbdcopy', '--no-extents', uri.replace('///disk', '///blind')],
  })) {
    const copy = join(shortFolder(t), 'copy');
    const { code, said } = await run(t, args[0]!, [...args.slice(1), copy]);
    t.equal(code, 0, said);
    t.ok(readFileSync(copy).equals(disk.bytes), name);
  }
  const info = JSON.parse((await run(t, 'nbdinfo', ['--json', '--list', `nbd+unix://?socket=${path}`])).said) as { exports: Record<string, unknown>[] };
  t.match(info.exports, [{ 'export-name': 'disk', 'is_read_only': true, 'export-size': sizeBytes, 'block_size_minimum': 512, contexts: ['base:allocation'] }, { 'export-name': 'blind' }]);
  const map = JSON.parse((await run(t, 'nbdinfo', ['--json', '--map', uri])).said) as { offset: number; length: number; type: number }[];
  t.same(map.map(({ offset, length, type }) => [offset / MiB, length / MiB, type]), [[0, 1, 3], [1, 2, 0], [3, 8, 3], [11, 1, 0]]);

  const client = await connectTo(t, path, { exportName: 'disk', metaContexts: [nbdBaseAllocation], requestsMax: 32 });
  const into = Buffer.alloc(sizeBytes);
  await Promise.all(Array.from({ length: 48 }, (_, i) => client.read(into, i * 256 * KiB, 256 * KiB, i * 256 * KiB)));
  t.ok(into.equals(disk.bytes));
  t.match((await refused(t, client.write(pattern(0, 512), 0), 'NBD_IO')).facts, { errno: 'EPERM' });
  t.match((await refused(t, client.read(into, 0, 100, 0), 'NBD_IO')).facts, { errno: 'EINVAL' });
  t.equal(server.figures().inFlightBytes, 0);
  t.ok(server.figures().inFlightBytesPeak <= 2 * MiB);
  t.same(faults, []);
});
