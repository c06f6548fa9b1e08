/** What becomes of a delta image that went its way: the next one's file, unless its space is needed. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Spool, SpoolTally, type SpoolFile } from '../../daemon/capture/spool.ts';

const kib = 1024;
const owner = { uid: process.getuid!(), gid: process.getgid!() };

function setUp(test: Test, budgetBytes: number): { readonly folder: string; readonly tally: SpoolTally; spoolOf(prefix: string): Spool; files(): string[] } {
  const folder = test.testdir();
  const tally = new SpoolTally();
  return {
    folder, tally,
    spoolOf: (prefix) => new Spool({ folder, budgetBytes, freeBytesMin: 0, tally }, prefix),
    files: () => readdirSync(folder).sort(),
  };
}

/** As QEMU would: the whole file full of one byte. */
function fill(file: SpoolFile, byte: number): void {
  assert(file.sizeBytes === statSync(file.path).size);
  writeFileSync(file.path, Buffer.alloc(file.sizeBytes, byte));
}

const image = (capBytes: number, blankBytes = 0): Parameters<Spool['createImage']>[1] => ({ capBytes, blankBytes, pieces: [{ at: 512, bytes: Buffer.from('head') }] });

void t.test('an image that went its way is the next one, with a blank head and nothing promised of the rest', async (test) => {
  const { spoolOf, files, tally } = setUp(test, 1024 * kib);
  const spool = spoolOf('a-');
  const first = await spool.createImage('one', image(128 * kib, 4096), owner);
  fill(first, 7);
  await first.recycle();
  test.match({ used: spool.usedBytes, all: tally.usedBytes, spare: tally.spareBytes }, { used: 0, all: 0, spare: 128 * kib });
  const room = await spool.roomBytes();
  test.equal(room, 1024 * kib, 'its space counts as free');

  const second = await spool.createImage('two', image(64 * kib, 4096), owner);
  test.equal(second.path, first.path);
  test.match({ used: spool.usedBytes, spare: tally.spareBytes }, { used: 128 * kib, spare: 0 });
  const bytes = readFileSync(second.path);
  const head = Buffer.alloc(4096);
  head.write('head', 512);
  test.same(bytes.subarray(0, 4096), head);
  test.equal(bytes.length, 128 * kib);

  const other = await spool.createImage('three', image(64 * kib, 4096), owner);
  test.not(other.path, second.path, 'one that is in use is nobody else\'s');
  await second.recycle();
  const larger = await spool.createImage('four', image(256 * kib, 4096), owner);
  test.equal(larger.path, first.path, 'it grows');
  test.equal(statSync(larger.path).size, 256 * kib);
  await larger.remove();
  await other.recycle();
  await spool.rest();
  test.same(files(), []);
  test.match({ used: tally.usedBytes, spare: tally.spareBytes }, { used: 0, spare: 0 });
});

void t.test('spares give way', async (test) => {
  const { spoolOf, files, tally } = setUp(test, 1024 * kib);
  const [one, other] = [spoolOf('a-'), spoolOf('b-')];
  const used = await one.createImage('one', image(256 * kib), owner);
  await used.recycle();
  test.equal(tally.spareBytes, 256 * kib);
  const theirs = await other.createImage('one', image(512 * kib), owner);
  test.not(theirs.path, used.path, 'what one guest wrote is never another\'s');
  test.equal(tally.spareBytes, 256 * kib, 'there is room for both');
  const log = await other.createLog('log', 512 * kib, owner);
  test.same(files(), ['b-log.log', 'b-one.delta'], 'the whole budget is to be had');
  await theirs.recycle();
  test.equal(tally.spareBytes, 0, 'more than a quarter of it is not kept');
  await log.remove();
  const again = await one.createImage('two', image(256 * kib), owner);
  test.not(again.path, used.path, 'a spare that gave way is not looked for');
  await one.rest();
  await again.recycle();
  test.same(files(), [], 'nothing is kept for a guest that is not captured any more');
});

void t.test('spares and a folder that is swept', async (test) => {
  const { folder, spoolOf, files, tally } = setUp(test, 1024 * kib);
  const spool = spoolOf('a-');
  const [first, second] = [await spool.createImage('one', image(64 * kib), owner), await spool.createImage('two', image(64 * kib), owner)];
  await first.recycle();
  await spool.sweepImages();
  test.same(files(), ['a-one.delta'], 'its own spare is not swept; what may be an earlier life\'s is');
  await second.recycle();
  test.equal(tally.spareBytes, 64 * kib, 'a file without a name is not kept');

  rmSync(folder, { recursive: true });
  mkdirSync(folder);
  const third = await spool.createImage('three', image(64 * kib), owner);
  test.same(files(), ['a-three.delta'], 'one that somebody removed is not used');
  test.match({ used: tally.usedBytes, spare: tally.spareBytes }, { used: 64 * kib, spare: 0 });
  await third.remove();
  test.equal(tally.usedBytes, 0);
});

void t.test('a spare that is much too large for long goes', async (test) => {
  const { spoolOf, tally } = setUp(test, 1024 * kib);
  const spool = spoolOf('a-');
  await (await spool.createImage('large', image(256 * kib), owner)).recycle();
  let count = 0;
  while (tally.spareBytes === 256 * kib && count < 1000) {
    count += 1;
    await (await spool.createImage(`small${count}`, image(16 * kib), owner)).recycle();
  }
  test.equal(tally.spareBytes, 16 * kib);
  test.ok(count > 10, 'not for one quiet moment');
  const log = await spool.createLog('log', 16 * kib, owner);
  test.match(join(log.path), /a-log\.log$/, 'a log is always a file of its own');
  await log.remove();
  await spool.rest();
});

void t.test('a large used file does not take the room of the next disk', async (test) => {
  const { spoolOf } = setUp(test, 1024 * kib);
  const spool = spoolOf('a-');
  const [large, small] = [await spool.createImage('one', image(208 * kib, 4096), owner), await spool.createImage('two', image(20 * kib, 4096), owner)];
  await large.recycle();
  await small.recycle();
  // Planned together, they fit.
  const first = await spool.createImage('three', { ...image(21 * kib, 4096), followedBytes: 990 * kib }, owner);
  const second = await spool.createImage('four', image(990 * kib, 4096), owner);
  test.equal(spool.usedBytes, 1011 * kib);
  await first.remove();
  await second.remove();
});

void t.test('what the system does not let go of is no trouble of whoever asks', async (test) => {
  const { spoolOf, tally, folder } = setUp(test, 1024 * kib);
  const spool = spoolOf('a-');
  const [one, two] = [await spool.createImage('one', image(64 * kib, 4096), owner), await spool.createImage('two', image(64 * kib, 4096), owner)];
  await one.recycle();
  await two.recycle();
  // No file beneath it can be removed any more.
  renameSync(folder, `${folder}-away`);
  writeFileSync(folder, '');
  await spool.rest();
  test.match({ used: tally.usedBytes, spare: tally.spareBytes }, { used: 0, spare: 0 });
  rmSync(folder);
  renameSync(`${folder}-away`, folder);
  await spool.sweepImages();
  test.same(readdirSync(folder), [], 'the next sweep finds it');
});
