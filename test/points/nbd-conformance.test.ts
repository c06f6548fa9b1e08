/** Points over NBD, seen by clients that are not ours: libnbd (nbdinfo, nbdcopy), QEMU (qemu-img, qemu-io), nbdkit's client plugin. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { nbdBaseAllocation } from '../../qemu/nbd-protocol.ts';
import { connectTo, refused, run, startNbdkit } from '../qemu/nbd-peers.ts';
import { until } from '../qemu/real-qemu.ts';
import { diskBytes, oddBytes, startPointSite } from './point-site.ts';

const MiB = 1024 * 1024;

interface Info {
  readonly protocol: string;
  readonly structured: boolean;
  readonly exports: readonly (Record<string, unknown> & { readonly 'export-name': string })[];
}

t.test('nbdinfo: what there is, and what each export says of itself', async (t) => {
  const { uri, folder, points } = await startPointSite(t);
  const list = JSON.parse((await run(t, 'nbdinfo', ['--json', '--list', `nbd+unix://?socket=${join(folder, 'nbd')}`])).said) as Info;
  t.match(list, { protocol: 'newstyle-fixed', structured: true });
  t.strictSame(list.exports.map((one) => one['export-name']), ['web/vda@1.3', 'web/bus/0@1@1.3', 'web/vda@1.2', 'web/bus/0@1@1.2'], 'under names that last');
  t.match(list.exports[2], { description: /^web, disk vda, point 1\.2 \(mark, "before @ upgrade"\), cut 20/, 'export-size': diskBytes, is_read_only: true, can_multi_conn: true, can_df: true, block_size_minimum: 1, block_size_maximum: 32 * MiB, contexts: [nbdBaseAllocation] });
  t.match(list.exports[1], { 'export-size': oddBytes, can_multi_conn: false }, 'what newest means may be another point for the next connection');
  for (const [name, size] of Object.entries({ 'web/vda@newest': diskBytes, 'web/0@1.1': diskBytes, 'web/1@-90s': oddBytes, 'web/bus/0@1@label:before @ upgrade': oddBytes, 'web/vda@2': diskBytes })) {
    t.equal(Number((await run(t, 'nbdinfo', ['--size', uri(name)])).said), size, name);
  }
  for (const [name, why] of Object.entries({
    'web/vda@9.9': /no point 9\.9/, 'web/vdz@1.1': /has no disk "vdz"; it has 0 \(vda\)/, 'web/1@1.1': /has no disk/, 'none/vda@1.1': /no guest named/, 'web/vda': /names no point/, 'web': /no point|names no point/, '': /no guest named/,
    'web/vda@2019-01-01T00:00:00Z': /no point from/,
  })) {
    t.match(await run(t, 'nbdinfo', [uri(name)]), { code: 1, said: /No such file or directory/ }, name);
    // QEMU passes on what the server says to a person.
    const { code, said } = await run(t, 'qemu-img', ['info', `json:${JSON.stringify({ driver: 'nbd', path: join(folder, 'nbd'), export: name })}`]);
    t.equal(code, 1);
    t.match(said, why, name);
  }
  await until('all views are released', () => (points.openViewCount === 0 ? true : undefined));
});

t.test('nbdinfo --map and qemu-img map: the same holes, and what they cover reads as zeroes', async (t) => {
  const { uri, copy } = await startPointSite(t);
  interface Stretch { readonly offset: number; readonly length: number; readonly type: number }
  const map = JSON.parse((await run(t, 'nbdinfo', ['--json', '--map', uri('web/vda@1.1')])).said) as Stretch[];
  const bytes = readFileSync(copy(1, 0));
  let at = 0;
  for (const { offset, length, type } of map) {
    t.equal(offset, at);
    at += length;
    t.ok(type === 0 || type === 3);
    if (type === 3) t.ok(bytes.subarray(offset, at).every((byte) => byte === 0));
  }
  t.equal(at, diskBytes);
  t.ok(map.filter(({ type }) => type === 3).reduce((sum, { length }) => sum + length, 0) >= 17 * MiB);
  const qemu = JSON.parse((await run(t, 'qemu-img', ['map', '--output=json', '-f', 'raw', uri('web/vda@1.1')])).said) as { start: number; length: number; zero: boolean; data: boolean }[];
  t.strictSame(qemu.map(({ start, length, zero, data }) => [start, length, zero, data]), map.map(({ offset, length, type }) => [offset, length, type === 3, type !== 3]));
});

t.test('nbdcopy and qemu-img convert copy each point, byte for byte; qemu-img compare agrees', async (t) => {
  const { uri, copy, folder } = await startPointSite(t);
  const out = join(folder, 'out');
  for (const point of [1, 2, 3]) {
    for (const disk of [0, 1] as const) {
      if (point === 1 && disk === 1) continue;
      const name = uri(`web/${disk}@1.${point}`);
      for (const [tool, ...args] of [
        ['nbdcopy', '--connections=4', '--requests=16', name, out], ['nbdcopy', '--no-extents', '--synchronous', `--request-size=${8 * MiB}`, name, out],
        ['qemu-img', 'convert', '-W', '-m', '16', '-f', 'raw', '-O', 'raw', name, out],
      ] as [string, ...string[]][]) {
        writeFileSync(out, '');
        const { code, said } = await run(t, tool, args);
        t.equal(code, 0, said);
        t.ok(readFileSync(out).equals(readFileSync(copy(point, disk))), `${tool} ${args.slice(0, 2).join(' ')} of ${point}, disk ${disk}`);
      }
      t.equal((await run(t, 'qemu-img', ['compare', '-f', 'raw', '-F', 'raw', name, copy(point, disk)])).code, 0);
    }
  }
  t.equal((await run(t, 'qemu-img', ['compare', '-f', 'raw', '-F', 'raw', uri('web/0@1.1'), copy(2, 0)])).code, 1, 'and is able to disagree');
});

t.test('the socket is its owner’s alone', async (t) => {
  const { folder } = await startPointSite(t);
  t.equal(statSync(join(folder, 'nbd')).mode & 0o777, 0o600);
});

t.test('several connections share one view, which goes with the last of them', async (t) => {
  const { uri, points, server, folder, copy } = await startPointSite(t);
  const out = join(folder, 'out');
  const { code, said } = await run(t, 'nbdcopy', ['--connections=4', '--threads=4', '--verbose', uri('web/vda@1.2'), out]);
  t.equal(code, 0, said);
  t.match(said, /handle_name="src3"/, 'four connections');
  t.ok(readFileSync(out).equals(readFileSync(copy(2, 0))));
  await until('it is released', () => (points.openViewCount === 0 && server.report().viewCount === 0 ? true : undefined));
  const path = join(folder, 'nbd');
  const clients = await Promise.all(['web/vda@1.2', 'web/0@1.2', 'web/bus/0@1@1.2', 'web/1@before @ upgrade'].map((exportName) => connectTo(t, path, { exportName })));
  const before = points.openedCount;
  t.equal(server.report().viewCount, 1, 'one point, one view');
  t.strictSame(server.report().clients, { 'web/vda@1.2': 1, 'web/0@1.2': 1, 'web/bus/0@1@1.2': 1, 'web/1@before @ upgrade': 1 });
  for (const client of clients.slice(1)) await client.close();
  const into = Buffer.alloc(MiB);
  await clients[0]!.read(into, 0, MiB, 0);
  t.ok(into.equals(readFileSync(copy(2, 0)).subarray(0, MiB)));
  t.equal(points.openedCount, before);
  await clients[0]!.close();
  await until('the last one has gone', () => (points.openViewCount === 0 ? true : undefined));
});

t.test('a connection keeps its point when newest comes to mean another', async (t) => {
  const { points, folder, copy } = await startPointSite(t);
  const path = join(folder, 'nbd');
  const moved = points.points.pop()!;
  const client = await connectTo(t, path, { exportName: 'web/vda@newest' });
  points.points.push(moved);
  const next = await connectTo(t, path, { exportName: 'web/vda@newest' });
  const into = Buffer.alloc(4 * MiB);
  await client.read(into, 0, into.length, 0);
  t.ok(into.equals(readFileSync(copy(2, 0)).subarray(0, into.length)));
  await next.read(into, 0, into.length, 0);
  t.ok(into.equals(readFileSync(copy(3, 0)).subarray(0, into.length)));
  points.points.length = 0;
  await client.read(into, 0, into.length, 0);
  t.ok(into.equals(readFileSync(copy(2, 0)).subarray(0, into.length)), 'also when the point is no longer listed');
  await refused(t, connectTo(t, path, { exportName: 'web/vda@1.2' }), 'NBD_REFUSED');
});

t.test('qemu-io and libnbd: odd-sized and unaligned reads; writes are refused', async (t) => {
  const { uri, copy, folder } = await startPointSite(t);
  const name = uri('web/1@1.3');
  const bytes = readFileSync(copy(3, 1));
  // Through the last byte, over sectors, within one, one byte.
  const reads = [[0, 1], [1, 1], [511, 2], [513, 4095], [65_535, 131_074], [oddBytes - 1, 1], [oddBytes - 513, 513], [MiB - 3, 2 * MiB + 5]] as const;
  for (const [offset, length] of reads) {
    const { code, said } = await run(t, 'qemu-io', ['-r', '-f', 'raw', '-c', `read -v ${offset} ${length > 4096 ? 4096 : length}`, name]);
    t.equal(code, 0, said);
    const dump = said.split('\n').filter((line) => /^[0-9a-f]{8}: /.test(line)).map((line) => line.slice(11, 58).replaceAll(' ', '')).join('');
    t.ok(Buffer.from(dump, 'hex').equals(bytes.subarray(offset, offset + Math.min(length, 4096))), `qemu-io, ${length} at ${offset}`);
  }
  // nbdkit's own filter asks for exactly what the range says, whatever our blocks are.
  for (const [offset, length] of reads) {
    const path = await startNbdkit(t, '--filter=offset', 'nbd', `uri=${name}`, `offset=${offset}`, `range=${length}`);
    const out = join(folder, `odd-${offset}`);
    const { code, said } = await run(t, 'nbdcopy', [`nbd+unix://?socket=${path}`, out]);
    t.equal(code, 0, said);
    t.ok(readFileSync(out).equals(bytes.subarray(offset, offset + length)), `nbdkit, ${length} at ${offset}`);
  }
  const write = await run(t, 'qemu-io', ['-f', 'raw', '-c', 'write 0 512', name]);
  t.not(write.code, 0);
  t.match(write.said, /read.only|Permission|not permitted/i);
  t.not((await run(t, 'nbdcopy', [copy(1, 0), uri('web/vda@1.1')])).code, 0);
  t.ok(readFileSync(copy(3, 1)).equals(bytes));
});

t.test('a qcow2 overlay over a point, as a guest has it', async (t) => {
  const { uri, copy, folder } = await startPointSite(t);
  const overlay = join(folder, 'overlay.qcow2');
  t.equal((await run(t, 'qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', uri('web/vda@1.2'), overlay])).code, 0);
  t.equal((await run(t, 'qemu-io', ['-f', 'qcow2', '-c', `write -P 7 ${MiB + 1} 777`, overlay])).code, 0);
  const flat = join(folder, 'flat');
  t.equal((await run(t, 'qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', overlay, flat])).code, 0);
  const expected = readFileSync(copy(2, 0)).fill(7, MiB + 1, MiB + 778);
  t.ok(readFileSync(flat).equals(expected));
});

