/** The NBD client against qemu-nbd, qemu-storage-daemon and nbdkit with the filters that make trouble. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { connectNbd } from '../../qemu/nbd-client.ts';
import type { NbdExtent } from '../../qemu/nbd-extents.ts';
import { nbdBaseAllocation, nbdState, nbdStateDirty } from '../../qemu/nbd-protocol.ts';
import { connectTo, pattern, refused, run, startNbdkit, startServer } from './nbd-peers.ts';
import { connect, shortFolder, startStorageDaemon } from './real-qemu.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

/** 4 MiB: a hole, data, a hole, data to the end. */
function makeSparse(t: Test): { readonly path: string; readonly bytes: Buffer } {
  const path = join(shortFolder(t), 'disk.raw');
  const bytes = Buffer.alloc(4 * MiB);
  pattern(MiB, MiB).copy(bytes, MiB);
  pattern(3 * MiB, MiB).copy(bytes, 3 * MiB);
  const file = openSync(path, 'w');
  for (const from of [MiB, 3 * MiB]) writeSync(file, bytes, from, MiB, from);
  closeSync(file);
  return { path, bytes };
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

t.test('qemu-nbd: read, write, zero, trim, flush, extents', async (t) => {
  const folder = shortFolder(t);
  const disk = join(folder, 'disk.qcow2');
  t.equal((await run(t, 'qemu-img', ['create', '-q', '-f', 'qcow2', disk, '8M'])).code, 0);
  const path = await startServer(t, 'qemu-nbd', (socket) => ['-k', socket, '-f', 'qcow2', '-t', '-x', 'e', '--discard=unmap', '-A', disk]);
  const client = await connectTo(t, path, { exportName: 'e', metaContexts: [nbdBaseAllocation, 'qemu:allocation-depth'] });
  t.equal(client.sizeBytes, 8 * MiB);
  t.match(client, { isStructured: true, isReadOnly: false, canFlush: true, canTrim: true, canZero: true, canZeroFast: true });
  t.ok(client.sizes.payloadBytesMax >= MiB && client.sizes.preferredBytes >= 512, JSON.stringify(client.sizes));

  await client.write(pattern(MiB, 2 * MiB), MiB);
  await client.write(pattern(5 * MiB, 512), 5 * MiB, { isDurable: true });
  await client.zero(MiB + 512 * KiB, 256 * KiB);
  await client.flush();
  t.same(await all(client.extents('qemu:allocation-depth')), [
    { offset: 0, length: MiB, flags: 0 }, { offset: MiB, length: 2 * MiB, flags: 1 }, { offset: 3 * MiB, length: 2 * MiB, flags: 0 },
    { offset: 5 * MiB, length: 64 * KiB, flags: 1 }, { offset: 5 * MiB + 64 * KiB, length: 3 * MiB - 64 * KiB, flags: 0 },
  ] satisfies NbdExtent[]);
  const zeroed = (await all(client.extents(nbdBaseAllocation))).find(({ offset }) => offset === MiB + 512 * KiB);
  t.equal(zeroed?.length, 256 * KiB);
  t.ok((zeroed!.flags & nbdState.zero) !== 0);

  const into = Buffer.alloc(3 * MiB + 2, 0xee);
  await client.read(into, 1, 3 * MiB, 0);
  const expected = Buffer.concat([Buffer.from([0xee]), Buffer.alloc(MiB), pattern(MiB, 2 * MiB), Buffer.from([0xee])]);
  expected.fill(0, 1 + MiB + 512 * KiB, 1 + MiB + 768 * KiB);
  t.ok(into.equals(expected), 'a read over holes, data and zeroes, and nothing beside it');

  await client.trim(2 * MiB, MiB);
  await client.read(into, 0, MiB, 2 * MiB);
  t.ok(into.subarray(0, MiB).equals(Buffer.alloc(MiB)));
  await client.close();
  t.equal((await client.closed).code, 'NBD_CLOSED');
  await refused(t, client.read(into, 0, 512, 0), 'NBD_CLOSED');
});

t.test('many reads under way, of all sizes, into one buffer', async (t) => {
  const { path: disk, bytes } = makeSparse(t);
  // --no-structured is not qemu-nbd's: nbdkit gives the simple replies below.
  const qemu = await startServer(t, 'qemu-nbd', (socket) => ['-k', socket, '-f', 'raw', '-r', '-t', '-e', '4', disk]);
  const kit = await startNbdkit(t, '--no-sr', 'file', disk);
  for (const [path, isStructured] of [[qemu, true], [kit, false]] as const) {
    const client = await connectTo(t, path, { requestsMax: 8 });
    t.equal(client.isStructured, isStructured, path);
    const into = Buffer.alloc(bytes.length, 0xee);
    const reads: Promise<void>[] = [];
    const sizes = [512, 4 * KiB, 64 * KiB, 256 * KiB, 512, 128 * KiB, MiB];
    for (let at = 0, i = 0; at < bytes.length; i++) {
      const length = Math.min(sizes[i % sizes.length]!, bytes.length - at);
      reads.push(client.read(into, at, length, at));
      at += length;
    }
    await Promise.all(reads);
    t.ok(into.equals(bytes), `structured: ${isStructured}`);
  }
});

t.test('qemu-storage-daemon: a dirty bitmap, read through an export of the node', async (t) => {
  const folder = shortFolder(t);
  const disk = join(folder, 'disk.qcow2');
  const socket = join(folder, 'nbd');
  t.equal((await run(t, 'qemu-img', ['create', '-q', '-f', 'qcow2', disk, '3G'])).code, 0);
  const qmp = await connect(t, await startStorageDaemon(t));
  await qmp.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: disk } });
  await qmp.execute('block-dirty-bitmap-add', { node: 'n', name: 'b0', granularity: 65536 });
  await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } });
  await qmp.execute('block-export-add', { type: 'nbd', id: 'e', 'node-name': 'n', name: 'e', writable: true, bitmaps: ['b0'] });
  const context = 'qemu:dirty-bitmap:b0';
  const client = await connectTo(t, socket, { exportName: 'e', metaContexts: [context, nbdBaseAllocation] });
  t.same(await all(client.extents(context)), [{ offset: 0, length: 3 * 1024 * MiB, flags: 0 }]);
  await client.write(pattern(0, 4 * KiB), 130 * KiB);
  await client.write(pattern(0, 128 * KiB), 2 * 1024 * MiB - 64 * KiB);
  await client.write(pattern(0, 512), 3 * 1024 * MiB - 512);
  // The second run lies across the border of two questions, and is one all the same.
  t.same((await all(client.extents(context))).filter(({ flags }) => (flags & nbdStateDirty) !== 0), [
    { offset: 128 * KiB, length: 64 * KiB, flags: 1 },
    { offset: 2 * 1024 * MiB - 64 * KiB, length: 128 * KiB, flags: 1 },
    { offset: 3 * 1024 * MiB - 64 * KiB, length: 64 * KiB, flags: 1 },
  ]);
  const both = await client.blockStatus(0, MiB);
  t.same([...both.keys()].sort(), [nbdBaseAllocation, context]);
  t.same(await all(client.extents(context, { offset: 160 * KiB, length: 64 * KiB })), [
    { offset: 160 * KiB, length: 32 * KiB, flags: 1 }, { offset: 192 * KiB, length: 32 * KiB, flags: 0 },
  ]);

  t.test('what is not there is refused by name', async (t) => {
    const noBitmap = await refused(t, connectNbd({ path: socket, exportName: 'e', metaContexts: [context, 'qemu:dirty-bitmap:gone'] }), 'NBD_REFUSED');
    t.same(noBitmap.facts['missing'], ['qemu:dirty-bitmap:gone']);
    const noExport = await refused(t, connectNbd({ path: socket, exportName: 'nobody' }), 'NBD_REFUSED');
    t.match(noExport.facts, { option: 'go', reply: 'errUnknown' });
  });

  t.test('its server ends: what was under way is settled', async (t) => {
    const ended = await connectTo(t, socket, { exportName: 'e' });
    await qmp.execute('block-export-del', { id: 'e', mode: 'hard' });
    t.equal((await ended.closed).code, 'NBD_CLOSED');
    await refused(t, ended.read(Buffer.alloc(512), 0, 512, 0), 'NBD_CLOSED');
  });
});

t.test('a bitmap whose extents do not fit one answer', async (t) => {
  const folder = shortFolder(t);
  const socket = join(folder, 'nbd');
  const qmp = await connect(t, await startStorageDaemon(t));
  // 70,000 runs of one sector each; QEMU answers with at most 131,072 descriptors at a time.
  const runs = 70_000;
  await qmp.execute('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: runs * KiB, 'read-zeroes': true });
  await qmp.execute('block-dirty-bitmap-add', { node: 'n', name: 'b0', granularity: 512 });
  await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } });
  await qmp.execute('block-export-add', { type: 'nbd', id: 'e', 'node-name': 'n', name: 'e', writable: true, bitmaps: ['b0'] });
  const client = await connectTo(t, socket, { exportName: 'e', metaContexts: ['qemu:dirty-bitmap:b0'], requestsMax: 64 });
  const sector = Buffer.alloc(512);
  for (let from = 0; from < runs; from += 1000) await Promise.all(Array.from({ length: 1000 }, (_, i) => client.write(sector, (from + i) * KiB)));
  const first = (await client.blockStatus(0, runs * KiB)).get('qemu:dirty-bitmap:b0')!;
  t.ok(first.length < 2 * runs, 'the server did answer short');
  let at = 0;
  let dirty = 0;
  for await (const { offset, length, flags } of client.extents('qemu:dirty-bitmap:b0')) {
    if (offset !== at || length !== 512 || flags !== (offset % KiB === 0 ? 1 : 0)) t.fail(`${offset} ${length} ${flags}`);
    at += length;
    dirty += flags;
  }
  t.equal(at, runs * KiB);
  t.equal(dirty, runs);
});

t.test('nbdkit: errors of single requests leave the connection standing', async (t) => {
  const { path: disk, bytes } = makeSparse(t);
  const path = await startNbdkit(t, '--filter=error', 'file', disk, 'error-pread=ENOSPC', 'error-pread-rate=50%', 'error-zero=EPERM', 'error-zero-rate=100%');
  const client = await connectTo(t, path, { metaContexts: [nbdBaseAllocation] });
  const into = Buffer.alloc(64 * KiB);
  let failed = 0;
  let done = 0;
  // Half of them fail, so a hundred without both kinds do not happen.
  for (let i = 0; i < 100; i++) {
    const offset = (i * 64 * KiB) % bytes.length;
    try {
      await client.read(into, 0, into.length, offset);
      t.ok(into.equals(bytes.subarray(offset, offset + into.length)));
      done += 1;
    } catch {
      failed += 1;
      const fault = await refused(t, client.zero(0, 512), 'NBD_IO');
      t.match(fault.facts, { errno: 'EPERM', command: 'writeZeroes', offset: 0, length: 512 });
    }
  }
  t.ok(failed > 0 && done > 0, `${failed} failed, ${done} done`);
  t.same((await all(client.extents(nbdBaseAllocation))).map(({ offset, length }) => offset + length).at(-1), bytes.length);
  await client.close();
});

t.test('nbdkit: a slow server', async (t) => {
  const path = await startNbdkit(t, '--filter=delay', 'memory', '1M', 'rdelay=100ms', 'wdelay=30');
  const patient = await connectTo(t, path, { requestsMax: 4 });
  const into = Buffer.alloc(64 * KiB, 1);
  await Promise.all(Array.from({ length: 8 }, (_, i) => patient.read(into, i * 8 * KiB, 8 * KiB, 0)));
  t.ok(into.equals(Buffer.alloc(64 * KiB)));
  const hasty = await connectTo(t, path, { timeoutMs: 1500 });
  const fault = await refused(t, hasty.write(into, 0), 'NBD_CLOSED');
  t.match(fault.facts, { command: 'write', timeoutMs: 1500 });
  await refused(t, hasty.read(into, 0, 512, 0), 'NBD_CLOSED');
});

t.test('nbdkit: short and odd block sizes', async (t) => {
  const { path: disk, bytes } = makeSparse(t);
  const sizes = await startNbdkit(t, '--filter=blocksize-policy', 'file', disk, 'blocksize-minimum=4096', 'blocksize-preferred=65536', 'blocksize-maximum=128k', 'blocksize-error-policy=error');
  const strict = await connectTo(t, sizes, { metaContexts: [nbdBaseAllocation] });
  t.same(strict.sizes, { minimumBytes: 4096, preferredBytes: 65536, payloadBytesMax: 128 * KiB });
  const into = Buffer.alloc(bytes.length);
  await Promise.all(Array.from({ length: 32 }, (_, i) => strict.read(into, i * 128 * KiB, 128 * KiB, i * 128 * KiB)));
  t.ok(into.equals(bytes));
  t.match((await refused(t, strict.read(into, 0, 512, 512), 'NBD_IO')).facts, { errno: 'EINVAL' });

  // One extent of one block per answer, flags alternating every second block: as short as a server can be.
  const eval_ = await startNbdkit(t, 'eval', 'get_size=echo 65536', 'pread=dd if=/dev/zero bs=$3 count=1 status=none', 'can_extents=exit 0',
    'extents=if [ $(( $4 / 8192 % 2 )) = 0 ]; then echo $4 4096 hole,zero; else echo $4 4096; fi');
  const short = await connectTo(t, eval_, { metaContexts: [nbdBaseAllocation] });
  t.same(await all(short.extents(nbdBaseAllocation)), Array.from({ length: 8 }, (_, i) => ({ offset: i * 8192, length: 8192, flags: i % 2 === 0 ? nbdState.hole | nbdState.zero : 0 })));
});

t.test('nbdkit: a server that fails and is asked again', async (t) => {
  const folder = shortFolder(t);
  const path = await startNbdkit(t, '--filter=retry-request', 'eval', 'get_size=echo 1048576', 'retry-request-delay=1', 'retry-request-retries=3',
    `pread=if [ -e ${folder}/failed ]; then rm ${folder}/failed; dd if=/dev/zero bs=$3 count=1 status=none; else touch ${folder}/failed; echo EIO once >&2; exit 1; fi`);
  const client = await connectTo(t, path);
  const into = Buffer.alloc(4096, 1);
  await client.read(into, 0, 4096, 0);
  t.ok(into.equals(Buffer.alloc(4096)));
});

t.test('nbdkit: no metadata, read-only, oldstyle, nobody', async (t) => {
  const plain = await startNbdkit(t, '--no-sr', 'null', '1M');
  const fault = await refused(t, connectNbd({ path: plain, exportName: '', metaContexts: [nbdBaseAllocation] }), 'NBD_REFUSED');
  t.equal(fault.facts['option'], 'structuredReply');
  const readOnly = await startNbdkit(t, '-r', 'null', '1M');
  const client = await connectTo(t, readOnly);
  t.equal(client.isReadOnly, true);
  t.match((await refused(t, client.write(Buffer.alloc(512), 0), 'NBD_IO')).facts, { errno: 'EPERM' });
  const old = await startNbdkit(t, '-o', 'null', '1M');
  await refused(t, connectNbd({ path: old, exportName: '' }), 'NBD_REFUSED');
  t.equal((await refused(t, connectNbd({ path: join(shortFolder(t), 'nobody'), exportName: '' }), 'NBD_CLOSED')).facts['error'], 'ENOENT');
});

t.test('an attempt and a connection can be given up', async (t) => {
  const path = await startNbdkit(t, '--filter=delay', 'memory', '1M', 'rdelay=30');
  const giveUp = new AbortController();
  const client = await connectTo(t, path, { signal: giveUp.signal });
  const read = refused(t, client.read(Buffer.alloc(512), 0, 512, 0), 'NBD_CLOSED');
  giveUp.abort(new Error('enough'));
  await read;
  t.equal((await client.closed).code, 'NBD_CLOSED');
  await t.rejects(connectNbd({ path, exportName: '', signal: giveUp.signal }), { message: 'enough' });
  const later = new AbortController();
  const attempt = connectNbd({ path, exportName: '', signal: later.signal });
  later.abort(new Error('too late'));
  await t.rejects(attempt, { message: 'too late' });
});
