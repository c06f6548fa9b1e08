/**
 * The delta image against QEMU's own tools: they find it sound, and what our reader says is allocated is what they wrote,
 * byte for byte. And a table that contradicts itself is refused.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readSync, writeSync, ftruncateSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { capForData, copiedFlag, imageClusterBytes, makeDeltaImage, type DeltaImageHead } from '../../daemon/capture/delta-image.ts';
import { mapDeltaImage, type ImageExtent, type ReadImage } from '../../daemon/capture/delta-image-map.ts';
import { makeVhdFooter } from '../../daemon/capture/vhd-footer.ts';
import { isFault } from '../../journal/fault.ts';

const run = promisify(execFile);
const mib = 1024 * 1024;

function writeImage(path: string, diskSizeBytes: number, dataBytes: number, hasFooter = true): DeltaImageHead {
  const head = makeDeltaImage({ diskSizeBytes, hasFooter, capBytes: capForData(diskSizeBytes, dataBytes), randomBytes });
  const file = openSync(path, 'w');
  ftruncateSync(file, head.layout.capBytes);
  for (const piece of head.pieces) writeSync(file, piece.bytes, 0, piece.bytes.length, piece.at);
  closeSync(file);
  return head;
}

/** The image as QEMU sees it in a cycle, but without the quorum. */
function layered(path: string, capBytes: number): string {
  const inner = { driver: 'qcow2', 'detect-zeroes': 'on', file: { driver: 'raw', size: capBytes, file: { driver: 'file', filename: path, locking: 'off' } } };
  return `json:${JSON.stringify({ driver: 'vpc', file: inner })}`;
}

const qemuIo = (image: string, commands: readonly string[]): Promise<unknown> => run('qemu-io', [...commands.flatMap((command) => ['-c', command]), image]);

async function readMap(path: string, head: DeltaImageHead): Promise<ImageExtent[]> {
  const file = openSync(path, 'r');
  const read: ReadImage = (into, at) => Promise.resolve().then(() => {
    if (readSync(file, into, 0, into.length, at) !== into.length) throw new Error('short read');
  });
  try {
    const list = await mapDeltaImage(head, read);
    return Array.from({ length: list.count }, (_, index) => list.at(index));
  } finally {
    closeSync(file);
  }
}

t.test('the footer is the one that qemu-img writes, but for its time, its identity and the sum', async (t) => {
  const folder = t.testdir();
  for (const size of [10 * mib, 3 * 512, 5 * 1024 * mib + 512]) {
    const path = join(folder, `${size}.vhd`);
    await run('qemu-img', ['create', '-q', '-f', 'vpc', '-o', 'subformat=fixed,force_size=on', path, String(size)]);
    const theirs = Buffer.alloc(512);
    const file = openSync(path, 'r');
    readSync(file, theirs, 0, 512, size);
    closeSync(file);
    const ours = makeVhdFooter(size);
    for (const footer of [theirs, ours]) footer.fill(0, 24, 28).fill(0, 64, 84);
    t.same(ours, theirs);
  }
});

t.test('what was written through QEMU is what the reader finds', async (t) => {
  for (const { size, hasFooter } of [{ size: 64 * mib, hasFooter: true }, { size: 64 * mib + 512 * 7, hasFooter: true }, { size: 2 * 1024 * mib + 4096, hasFooter: true }, { size: 64 * mib + 512, hasFooter: false }, { size: 1024, hasFooter: true }]) {
    for (const isTailWritten of [false, true]) {
      const path = join(t.testdir(), 'image');
      const head = writeImage(path, size, 8 * mib, hasFooter);
      const cap = head.layout.capBytes;
      const image = hasFooter ? layered(path, cap) : `json:${JSON.stringify({ driver: 'qcow2', 'detect-zeroes': 'on', file: { driver: 'raw', size: cap, file: { driver: 'file', filename: path } } })}`;
      const writes: { at: number; length: number; pattern: number }[] = size < mib ? [] : [
        { at: 0, length: 65536, pattern: 1 }, { at: 65536 * 5, length: 65536 * 3, pattern: 2 }, { at: 65536 * 4, length: 65536, pattern: 3 },
        { at: 65536 * 40, length: 65536 * 20, pattern: 0 }, { at: size - size % 65536 - 65536 * 2, length: 65536, pattern: 4 },
      ];
      const tail = size % 65536 || 65536;
      if (isTailWritten) writes.push({ at: size - tail, length: tail, pattern: 9 });
      if (writes.length > 0) await qemuIo(image, writes.map(({ at, length, pattern }) => `write -P ${pattern} ${at} ${length}`));
      await run('qemu-img', ['check', '-q', `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename: path } })}`]);

      const found = await readMap(path, head);
      const bytes = readFileSync(path);
      const clusters = (runs: readonly { at: number; length: number; pattern: number }[]): string[] => runs.flatMap(({ at, length, pattern }) => Array.from({ length: Math.ceil(length / 65536) }, (_, index) => `${at + index * 65536} ${pattern}`)).sort();
      const seen = found.flatMap(({ offset, length, hostOffset }) => Array.from({ length: Math.ceil(length / 65536) }, (_, index) => `${offset + index * 65536} ${hostOffset === 'zero' ? 0 : bytes[hostOffset + index * 65536]}`));
      t.same(seen.sort(), clusters(writes), `size ${size}, footer ${hasFooter}, tail ${isTailWritten}`);
      for (const extent of found) {
        t.ok(extent.offset + extent.length <= size);
        if (extent.hostOffset === 'zero') continue;
        for (let at = 0; at < extent.length; at += 65536) {
          const cluster = bytes.subarray(extent.hostOffset + at, extent.hostOffset + Math.min(at + 65536, extent.length));
          t.ok(cluster.every((byte) => byte === cluster[0]));
        }
      }
      t.equal(bytes.length, cap);
    }
  }
});

t.test('QEMU reads the size without the footer, and the cap holds what it says', async (t) => {
  const path = join(t.testdir(), 'image');
  const size = 300 * mib + 1024;
  const head = writeImage(path, size, 4 * mib);
  const { stdout } = await run('qemu-img', ['info', '--output=json', layered(path, head.layout.capBytes)]);
  t.equal((JSON.parse(stdout) as { 'virtual-size': number })['virtual-size'], size);
  await qemuIo(layered(path, head.layout.capBytes), Array.from({ length: 64 }, (_, index) => `write -P 5 ${(index * 37 % 4800) * 65536} 64k`));
  const found = await readMap(path, head);
  t.equal(found.reduce((sum, extent) => sum + extent.length, 0), 4 * mib);
  await t.rejects(qemuIo(layered(path, head.layout.capBytes), Array.from({ length: 64 }, (_, index) => `write -P 5 ${(1 + index * 41 % 4800) * 65536} 64k`)), 'and not much more');
});

t.test('a table that contradicts itself is refused', async (t) => {
  const size = 64 * mib;
  const entryAt = async (head: DeltaImageHead, entries: readonly (readonly [number, bigint])[]): Promise<unknown> => {
    const bytes = Buffer.alloc(head.layout.capBytes);
    for (const piece of head.pieces) piece.bytes.copy(bytes, piece.at);
    const l2 = Number(bytes.readBigUInt64BE(head.layout.l1OffsetBytes) & 0x00fffffffffffe00n) || head.layout.capBytes - imageClusterBytes;
    if (bytes.readBigUInt64BE(head.layout.l1OffsetBytes) === 0n) bytes.writeBigUInt64BE(BigInt(l2) | copiedFlag, head.layout.l1OffsetBytes);
    for (const [index, entry] of entries) bytes.writeBigUInt64BE(entry, index < 0 ? -index : l2 + index * 8);
    return mapDeltaImage(head, (into, at) => { bytes.copy(into, 0, at, at + into.length); return Promise.resolve(); }).then(() => null, (error: unknown) => error);
  };
  const head = makeDeltaImage({ diskSizeBytes: size, hasFooter: true, capBytes: capForData(size, 8 * mib), randomBytes });
  const free = BigInt(head.layout.usedClusters * imageClusterBytes);
  const cluster = BigInt(imageClusterBytes);
  t.equal(await entryAt(head, [[0, free | copiedFlag], [1, (free + cluster) | copiedFlag], [9, 1n]]), null, 'a sound one is not');
  for (const [why, entries] of Object.entries({
    'two at one place': [[0, free | copiedFlag], [1, free | copiedFlag]],
    'beyond the file': [[0, BigInt(head.layout.capBytes) | copiedFlag]],
    'into the tables': [[0, cluster | copiedFlag]],
    'not aligned': [[0, (free + 512n) | copiedFlag]],
    'compressed': [[0, free | (1n << 62n)]],
    'reserved bits': [[0, free | 4n]],
    'beyond the disk': [[1025, free | copiedFlag]],
    'the footer gone': [[1024, 1n]],
    'an incompatible bit': [[-72, 2n]],
    'another size': [[-24, 1n]],
  } satisfies Record<string, (readonly [number, bigint])[]>)) {
    t.ok(isFault(await entryAt(head, entries as (readonly [number, bigint])[]), 'DELTA_BROKEN'), why);
  }
});
