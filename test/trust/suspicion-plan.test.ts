/** When changes are suspected, by the figures alone: what a block looks like, what gathers, what is usual, and what stays honest. */
import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import t from 'tap';
import { shapeBlockBytes, shapeOf } from '../../replica-target/suspicion/block-shape.ts';
import type { PointChanges } from '../../replica-target/suspicion/point-changes.ts';
import { gather, isCipherLike, judge, nothingGathered, learnable, usualOf, type Gathering, type SampledPoint, type Suspicion, type Usual } from '../../replica-target/suspicion/suspicion-plan.ts';

const mib = 1024 * 1024;
const noise = (length: number): Buffer => createCipheriv('aes-256-ctr', Buffer.alloc(32, 7), Buffer.alloc(16)).update(Buffer.alloc(length));
const nothingUsual: Usual = { turnedBytes: 0, firstBytes: 0, incompressibleShare: null, points: 0 };

function changes(facts: Partial<PointChanges> = {}): PointChanges {
  return { bytes: 0, zeroedBytes: 0, extents: 1, recordBytes: 0, sampledBlocks: 100, sameBytes: 0, noiseBytes: 0, turnedBytes: 0, freshBytes: 0, wipedBytes: 0, turnedChi: 0, turnedPooled: 0, firstBytes: 0, firstChi: 0, firstPooled: 0, freshChi: 0, freshPooled: 0, ...facts };
}
/** So many bytes turned, with what a cipher's statistic is for as many; `excess`: what a compressor's is above it, for each byte. */
const turned = (bytes: number, of = bytes, excess = 0): PointChanges => changes({ bytes: of, noiseBytes: bytes, turnedBytes: bytes, turnedPooled: Math.min(bytes, mib), turnedChi: bytes === 0 ? 0 : 255 + excess * Math.min(bytes, mib) });

/** Points one every five seconds, from 1.1 on; the first suspicion and the point at which it was found. */
function follow(all: readonly PointChanges[], usual: Usual = nothingUsual, everyMs = 5000): { readonly at: number; readonly suspicion: Suspicion } | null {
  let gathering: Gathering = nothingGathered;
  for (const [index, one] of all.entries()) {
    const sampled: SampledPoint = { term: 1, point: index + 1, cutAtMs: 1_700_000_000_000 + index * everyMs, changes: one };
    gathering = gather(gathering, sampled, usual, 'normal');
    const suspicion = judge(gathering, 'normal');
    if (suspicion !== null) return { at: index + 1, suspicion };
  }
  return null;
}

t.test('a block is noise, structured, blank or between', async (t) => {
  t.equal(shapeOf(noise(shapeBlockBytes)).shape, 'noise');
  t.equal(shapeOf(Buffer.from('the quick brown fox jumps over the lazy dog. '.repeat(100)).subarray(0, shapeBlockBytes)).shape, 'structured');
  t.equal(shapeOf(Buffer.alloc(shapeBlockBytes)).shape, 'blank');
  const tail = Buffer.alloc(shapeBlockBytes);
  noise(2000).copy(tail);
  t.equal(shapeOf(tail).shape, 'noise', 'the last block of an encrypted file, filled up with zeroes');
  t.equal(shapeOf(Buffer.from(Array.from({ length: shapeBlockBytes }, (_, at) => (at * 7 + (at >> 4)) & 127))).shape, 'structured');
});

t.test('what a compressor wrote is noise block by block, and told from a cipher in the sum', async (t) => {
  const text = Buffer.from(Array.from({ length: 150_000 }, (_, at) => `${(at * 2_654_435_761) % 4_294_967_296} `).join(''));
  for (const [bytes, isCipher] of [[gzipSync(text).subarray(4096), false], [noise(mib), true]] as const) {
    const pool = new Float64Array(256);
    const blocks = Math.min(256, Math.floor(bytes.length / shapeBlockBytes));
    for (let at = 0; at < blocks * shapeBlockBytes; at++) pool[bytes[at]!]! += 1;
    const pooled = blocks * shapeBlockBytes;
    const chi = pool.reduce((sum, count) => sum + count * count, 0) * 256 / pooled - pooled;
    t.equal(isCipherLike({ chi, pooled, pools: 1 }), isCipher, `${Math.round(chi)} over ${pooled} bytes`);
  }
});

t.test('a tree encrypted at full speed, or in portions, is noticed, with the point at which it began', async (t) => {
  const quiet = Array.from({ length: 20 }, () => changes({ bytes: 200_000 }));
  t.strictSame(follow([...quiet, turned(20 * mib, 22 * mib)])?.suspicion.first, { term: 1, point: 21 });
  const portions = follow([...quiet, ...Array.from({ length: 40 }, () => turned(mib, 2 * mib))]);
  t.ok(portions !== null && portions.at <= 30, `at point ${portions?.at}`);
  t.strictSame(portions?.suspicion.first, { term: 1, point: 21 });
});

t.test('honest work is left alone', async (t) => {
  t.equal(follow(Array.from({ length: 50 }, () => changes({ bytes: 64 * mib, noiseBytes: 64 * mib, freshBytes: 64 * mib, freshPooled: mib, freshChi: 255 }))), null, 'noise into blank space');
  t.equal(follow(Array.from({ length: 50 }, () => turned(32 * mib, 32 * mib, 3e-4))), null, 'what a compressor writes, over old files');
  t.equal(follow(Array.from({ length: 50 }, () => turned(2 * mib, 64 * mib))), null, 'a small share of a large update');
  t.equal(follow(Array.from({ length: 2000 }, () => turned(8 * 1024)), nothingUsual, 60_000), null, 'a trickle over a day leaks away');
});

t.test('files written anew, with the old ones given back, are noticed; without that they are a copy', async (t) => {
  const anew = changes({ bytes: 10 * mib, noiseBytes: 10 * mib, freshBytes: 10 * mib, freshPooled: mib, freshChi: 255 });
  t.equal(follow(Array.from({ length: 10 }, () => anew)), null);
  const found = follow([anew, changes({ bytes: mib, wipedBytes: 8 * mib }), anew, changes({ bytes: mib, wipedBytes: 9 * mib })]);
  t.strictSame(found?.suspicion, { kind: 'replaced', first: { term: 1, point: 1 }, bytes: found?.suspicion.bytes, changedBytes: found?.suspicion.changedBytes });
});

t.test('what was sent and is as it was, and noise over noise, does not hide an attack', async (t) => {
  // As measured: 64 KiB sent for each small file, a third of them compressed before.
  const small = { ...turned(mib, 8 * mib), noiseBytes: 2 * mib };
  t.equal(follow(Array.from({ length: 20 }, () => small)), null, 'as if all of it had changed');
  t.ok(follow(Array.from({ length: 20 }, () => ({ ...small, sameBytes: 5 * mib }))) !== null);
});

t.test('what goes on now does not teach that it is usual; what a person dismissed does', async (t) => {
  const points = Array.from({ length: 1000 }, (_, index) => ({ cutAtMs: (index + 1) * 10_000 }));
  t.strictSame(learnable(points.slice(0, 300), 2_990_000, 0), []);
  t.equal(learnable(points, 9_990_000, 0).at(-1)!.cutAtMs, 6_390_000);
  t.equal(learnable(points, 9_990_000, 8_000_000).at(-1)!.cutAtMs, 8_000_000);
  t.equal(learnable(points, 9_990_000, 8_000_000).length, 512);
  t.equal(usualOf(Array.from({ length: 10 }, () => turned(mib)), 'normal').turnedBytes, 0, 'too few');
});

t.test('what a guest does as a matter of course is taken off, and cannot be taught without bound', async (t) => {
  const past = Array.from({ length: 100 }, (_, index) => turned(mib + (index % 7) * 10_000, 2 * mib));
  const usual = usualOf(past, 'normal');
  t.ok(usual.turnedBytes > mib && usual.turnedBytes < 1.2 * mib, `${usual.turnedBytes}`);
  t.equal(follow(past, usual), null);
  t.ok(follow([...past, turned(20 * mib, 21 * mib)], usual) !== null);
  t.ok(usualOf(Array.from({ length: 500 }, () => turned(100 * mib)), 'normal').turnedBytes <= 2 * mib);
});

/** So many pieces turned, each its first 4 KiB alone, among so much else that changed. */
const pieces = (count: number, otherBytes = 0, excess = 0): PointChanges => {
  const bytes = count * shapeBlockBytes;
  return { ...turned(bytes, bytes + otherBytes, excess), firstBytes: bytes, firstPooled: bytes, firstChi: count === 0 ? 0 : 255 + excess * bytes };
};

t.test('many pieces that turned, each by itself, are an alarm, however little they are of what changed', async (t) => {
  const quiet = Array.from({ length: 20 }, () => changes({ bytes: 200_000 }));
  const rows: readonly (readonly [string, readonly PointChanges[], number, Suspicion['kind'] | null])[] = [
    ['the first 4 KiB of 300 files at once', [pieces(300)], 5000, 'scattered'],
    ['of 100 files a point', Array.from({ length: 12 }, () => pieces(100)), 5000, 'scattered'],
    ['the same beside a busy database', Array.from({ length: 12 }, () => pieces(100, 50 * mib)), 5000, 'scattered'],
    ['of 225 files, and no more', [pieces(225), ...quiet], 5000, null],
    ['of 50 files an hour, for days', Array.from({ length: 200 }, () => pieces(50)), 3_600_000, null],
    ['2,400 files that a compressor wrote over old ones', Array.from({ length: 24 }, () => pieces(100, 0, 9e-4)), 5000, null],
    ['two sampled blocks of a large point, that stand for 700 each', [{ ...turned(30 * mib, 200 * mib), firstBytes: 1400 * shapeBlockBytes, firstPooled: 7168, firstChi: 255 }], 5000, null],
    ['one file of 30 MiB, beside other work', [{ ...turned(30 * mib, 200 * mib), firstBytes: 4096, firstPooled: 3584, firstChi: 255 }], 5000, null],
  ];
  for (const [what, points, everyMs, expected] of rows) {
    const found = follow([...quiet, ...points], nothingUsual, everyMs);
    t.equal(found?.suspicion.kind ?? null, expected, what);
    if (expected !== null) t.strictSame(found?.suspicion.first, { term: 1, point: 21 }, what);
  }
});

t.test('however pieces are spread over the points of a minute: above the limit an alarm, below it none', async (t) => {
  const spread = fc.array(fc.nat({ max: 80 }), { minLength: 1, maxLength: 12 });
  fc.assert(fc.property(spread, fc.nat({ max: 100 * mib }), (counts, otherBytes) => {
    const sum = counts.reduce((all, one) => all + one, 0);
    const found = follow(counts.map((one) => pieces(one, otherBytes)));
    // Half of the evidence of an hour ago is long gone; of a minute ago 7 %.
    const isAlarm = found?.suspicion.kind === 'scattered';
    if (sum < 256) assert(!isAlarm, `${sum} pieces`);
    if (sum > 256 / 0.9 && otherBytes > 16 * mib) assert(isAlarm, `${sum} pieces`);
  }), { numRuns: 500 });
});

t.test('it begins with the point before, if that had a little of it, as an attack begins in the midst of one', async (t) => {
  const quiet = Array.from({ length: 20 }, () => changes({ bytes: 200_000 }));
  for (const [before, expected] of [[[], 21], [[turned(8192)], 21], [[turned(8192), turned(8192), turned(8192)], 23], [[turned(8192), changes({ bytes: 200_000 })], 23], [[turned(mib), turned(8192)], 21]] as const) {
    t.strictSame(follow([...quiet, ...before, ...Array.from({ length: 6 }, () => pieces(150))])?.suspicion.first, { term: 1, point: expected });
  }
});

t.test('what a guest scatters as a matter of course is taken off, up to a bound', async (t) => {
  const past = Array.from({ length: 100 }, (_, index) => pieces(40 + index % 7, 50 * mib));
  const usual = usualOf(past, 'normal');
  t.equal(follow(past)?.suspicion.kind, 'scattered');
  t.equal(follow(past, usual), null);
  t.equal(follow([...past, pieces(2000, 50 * mib)], usual)?.at, 101);
  t.ok(usualOf(Array.from({ length: 500 }, () => pieces(10_000)), 'normal').firstBytes <= 64 * shapeBlockBytes);
});

t.test('the sum of many small pools is only taken for a cipher\'s when it could tell', async (t) => {
  const gzip = (pooled: number, pools: number): { chi: number; pooled: number; pools: number } => ({ chi: 255 * pools + 9e-4 * pooled, pooled, pools });
  for (const [pooled, pools] of [[127 * 1024, 1], [mib / 8, 16], [mib / 5, 16], [mib / 4, 16], [mib / 2, 16], [mib, 16], [4 * mib, 16], [2 * mib, 256], [64 * mib, 256]] as const) t.equal(isCipherLike(gzip(pooled, pools)), false, `${pooled} in ${pools}`);
  t.ok(isCipherLike({ chi: 255 * 16, pooled: mib, pools: 16 }));
});
