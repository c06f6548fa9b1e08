/** What the benchmarks write: the same in every run, of the kinds that they say, no block twice. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compressSync } from 'snappy';
import t from 'tap';
import { chooseBlocks } from '../../scripts/bench/dirty-blocks.ts';
import { Content, makeDiskImage } from '../../scripts/bench/disk-image.ts';

const mib = 1024 * 1024;

t.test('dirty blocks are as many as wanted, different, scattered, and the same next time', (t) => {
  const blocks = chooseBlocks(1000, 100, 3);
  t.equal(new Set(blocks).size, 100);
  t.ok(blocks.every((block) => Number.isInteger(block) && block >= 0 && block < 1000));
  t.same(chooseBlocks(1000, 100, 3), blocks);
  t.notSame(chooseBlocks(1000, 100, 4), blocks);
  const sorted = [...blocks].sort((a, b) => a - b);
  t.ok(sorted.filter((block, at) => sorted[at + 1] === block + 1).length < 40, 'neighbours are chance');
  t.end();
});

t.test('random does not compress, text does', (t) => {
  const content = new Content(5);
  t.ok(compressSync(content.random(mib)).length > mib * 0.99);
  t.ok(compressSync(content.text(mib)).length < mib * 0.75);
  t.notOk(content.random(mib).equals(content.random(mib)), 'and goes on');
  t.end();
});

t.test('an image is half random, a quarter text, a quarter holes, the same each time', async (t) => {
  // Not tap's own folder: holes must be holes, and that may be on any file system.
  const folder = mkdtempSync(join(tmpdir(), 'af-image-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const digest = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');
  const [one, two, filled] = [join(folder, '1'), join(folder, '2'), join(folder, '3')];
  await makeDiskImage(one, 64 * mib);
  await makeDiskImage(two, 64 * mib);
  await makeDiskImage(filled, 64 * mib, true);
  t.equal(statSync(one).size, 64 * mib);
  t.equal(digest(one), digest(two));
  const bytes = readFileSync(one);
  const zeroPieces = Array.from({ length: 16 }, (_, piece) => bytes.subarray(piece * 4 * mib, (piece + 1) * 4 * mib).every((byte) => byte === 0)).filter(Boolean).length;
  t.equal(zeroPieces, 4);
  t.ok(statSync(one).blocks * 512 <= 50 * mib, 'the holes take no space');
  t.ok(readFileSync(filled).subarray(12 * mib, 16 * mib).some((byte) => byte !== 0));
});
