/** The parts of NBD client and server that are pure, against naive models. */
import fc from 'fast-check';
import t from 'tap';
import { NbdBudget } from '../../qemu/nbd-budget.ts';
import { BufferPool } from '../../host/buffer-pool.ts';
import { NbdCover } from '../../qemu/nbd-cover.ts';
import { nbdExtentsOf, type NbdExtent } from '../../qemu/nbd-extents.ts';
import { NbdInlet } from '../../qemu/nbd-inlet.ts';
import { answerOption, type NbdAgreement, type NbdOffer } from '../../qemu/nbd-option-plan.ts';
import {
  decodeGo, decodeMetaQuery, decodeRequest, encodeGo, encodeMetaQuery, encodeRequest, nbdBlockSizesDefault, nbdOption, nbdOptionReplyHeaderBytes,
  nbdReply, readUInt64, writeUInt64,
} from '../../qemu/nbd-protocol.ts';

const KiB = 1024;

t.test('what is encoded decodes to the same', async (t) => {
  const uint = (bits: number): fc.Arbitrary<number> => fc.integer({ min: 0, max: 2 ** bits - 1 });
  fc.assert(fc.property(uint(16), uint(16), uint(53), uint(53), uint(32), (flags, type, cookie, offset, length) => {
    const bytes = Buffer.alloc(28);
    encodeRequest(bytes, flags, type, cookie, offset, length);
    const decoded = decodeRequest(bytes)!;
    return decoded.flags === flags && decoded.type === type && decoded.offset === offset && decoded.length === length
      && readUInt64(bytes, 8) === cookie && bytes.readBigUInt64BE(16) === BigInt(offset);
  }));
  fc.assert(fc.property(fc.string({ unit: 'grapheme' }), fc.array(uint(16)), fc.array(fc.string({ unit: 'grapheme' })), (name, infos, queries) => {
    t.same(decodeGo(encodeGo(name, infos)), { exportName: name, infos });
    t.same(decodeMetaQuery(encodeMetaQuery(name, queries)), { exportName: name, queries });
  }));
  const bytes = Buffer.alloc(8);
  writeUInt64(bytes, Number.MAX_SAFE_INTEGER, 0);
  t.equal(readUInt64(bytes, 0), Number.MAX_SAFE_INTEGER);
  t.equal(readUInt64(bytes.fill(0xff), 0), Infinity);
});

t.test('an inlet delivers the stream in the pieces that were ordered, however it is cut, paused and read', async () => {
  const order = fc.record({ kind: fc.constantFrom('head', 'fill', 'skip'), bytes: fc.oneof(fc.nat(64), fc.integer({ min: 0, max: 100 * KiB })), isPausing: fc.boolean() });
  fc.assert(fc.property(fc.array(order, { minLength: 1, maxLength: 20 }), fc.array(fc.integer({ min: 1, max: 80 * KiB }), { minLength: 1 }), fc.boolean(), (orders, cuts, isDirect) => {
    const lengths = orders.map(({ kind, bytes }) => (kind === 'head' ? bytes % 4096 : bytes));
    const stream = Buffer.alloc(lengths.reduce((a, b) => a + b, 0));
    for (let i = 0; i < stream.length; i++) stream[i] = (i * 31 + (i >> 8)) & 255;
    const inlet = new NbdInlet(4096, 28);
    const got: (Buffer | null)[] = [];
    const orderNext = (i: number): void => {
      if (i === orders.length) return inlet.stop();
      const { kind, isPausing } = orders[i]!;
      const bytes = lengths[i]!;
      const after = (): void => {
        if (isPausing) inlet.pause();
        orderNext(i + 1);
      };
      if (kind === 'head') return inlet.expect(bytes, (head) => { got.push(Buffer.from(head)); after(); });
      if (kind === 'skip') return inlet.skip(bytes, () => { got.push(null); after(); });
      const target = Buffer.alloc(bytes + 10, 0xcc);
      return inlet.fill(target, 5, bytes, () => {
        if (target.subarray(0, 5).every((b) => b === 0xcc) && target.subarray(5 + bytes).every((b) => b === 0xcc)) got.push(target.subarray(5, 5 + bytes));
        after();
      });
    };
    orderNext(0);
    let mayRead = inlet.resume();
    let at = 0;
    for (let i = 0; at < stream.length || got.length < orders.length; i++) {
      if (i > 100_000) return false;
      if (!mayRead) { mayRead = inlet.resume(); if (at === stream.length && got.length === orders.length) break; continue; }
      const cut = cuts[i % cuts.length]!;
      if (isDirect) {
        const buffer = inlet.nextBuffer();
        const bytes = stream.copy(buffer, 0, at, Math.min(at + Math.min(cut, buffer.length), stream.length));
        at += bytes;
        mayRead = inlet.received(bytes, buffer);
      } else {
        const chunk = Buffer.from(stream.subarray(at, at + cut));
        at += chunk.length;
        mayRead = inlet.push(chunk);
      }
      if (got.length === orders.length) break;
    }
    let from = 0;
    return got.length === orders.length && got.every((piece, i) => {
      const expected = stream.subarray(from, from += lengths[i]!);
      return piece === null || piece.equals(expected);
    });
  }), { numRuns: 200 });
});

t.test('a read is whole when every byte came once', async () => {
  fc.assert(fc.property(fc.array(fc.tuple(fc.nat(40), fc.nat(12)), { maxLength: 12 }), (parts) => {
    const from = 10;
    const length = 20;
    const cover = new NbdCover(from, length);
    const seen = new Set<number>();
    for (const [offset, bytes] of parts) {
      const wanted = Array.from({ length: bytes }, (_, i) => offset + i);
      const isSound = bytes > 0 && wanted.every((at) => at >= from && at < from + length && !seen.has(at));
      if (cover.add(offset, bytes) !== isSound) return false;
      if (isSound) wanted.forEach((at) => seen.add(at));
      if (cover.isWhole !== (seen.size === length)) return false;
    }
    return true;
  }));
});

t.test('a read cut into too many pieces is refused', async (t) => {
  const cover = new NbdCover(0, 100_000);
  let taken = 0;
  for (let at = 0; at < 100_000 && cover.add(at, 1); at += 2) taken += 1;
  t.equal(taken, 4096);
});

t.test('extents come out without gaps, joined, and within their stretch', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.tuple(fc.integer({ min: 1, max: 5 }), fc.nat(1)), { minLength: 1, maxLength: 30 }), fc.integer({ min: 1, max: 7 }), fc.nat(10), async (runs, answerMax, from) => {
    const flagsAt = runs.flatMap(([length, flags]) => Array.from({ length }, () => flags));
    const to = flagsAt.length;
    if (from >= to) return true;
    // A server that answers with at most `answerMax` bytes, in extents of its own making.
    const ask = async (offset: number): Promise<readonly NbdExtent[]> => {
      const answer: NbdExtent[] = [];
      for (let at = offset; at < Math.min(to, offset + answerMax); at++) answer.push({ offset: at, length: 1, flags: flagsAt[at]! });
      return answer;
    };
    let at = from;
    let last = -1;
    for await (const { offset, length, flags } of nbdExtentsOf(ask, from, to)) {
      if (offset !== at || length < 1 || flags === last) return false;
      for (let i = offset; i < offset + length; i++) if (flagsAt[i] !== flags) return false;
      at += length;
      last = flags;
    }
    return at === to;
  }));
});

t.test('the budget is never exceeded, and is first come, first served', async () => {
  fc.assert(fc.property(fc.array(fc.oneof(fc.record({ take: fc.integer({ min: 1, max: 150 }) }), fc.record({ give: fc.nat(10) }))), (steps) => {
    const budget = new NbdBudget(100);
    const held: { id: number; bytes: number }[] = [];
    const asked: number[] = [];
    const granted: number[] = [];
    for (const [id, step] of steps.entries()) {
      if ('take' in step) {
        asked.push(id);
        const grant = (): void => { granted.push(id); held.push({ id, bytes: step.take }); };
        if (budget.take(step.take, grant)) grant();
      } else if (held.length > 0) {
        budget.give(held.splice(step.give % held.length, 1)[0]!.bytes);
      }
      const sum = held.reduce((a, { bytes }) => a + bytes, 0);
      if (sum !== budget.takenBytes || (sum > 100 && held.length > 1)) return false;
    }
    while (held.length > 0) budget.give(held.shift()!.bytes);
    return JSON.stringify(granted) === JSON.stringify(asked) && budget.takenBytes === 0;
  }));
});

t.test('the pool gives what was given back, keeps no more than agreed, and takes nothing twice', async (t) => {
  const pool = new BufferPool(80, 200 * KiB);
  const first = pool.take(64 * KiB);
  t.equal(first.length, 80 + 64 * KiB);
  pool.give(first.subarray(80));
  pool.give(first);
  t.equal(pool.keptBytes, 80 + 64 * KiB, 'once');
  const again = pool.take(40 * KiB);
  t.equal(again.length, 80 + 40 * KiB);
  t.equal(again.buffer, first.buffer);
  t.equal(again.byteOffset, 0);
  pool.give(again);
  pool.give(Buffer.alloc(64 * KiB));
  pool.give(Buffer.allocUnsafe(10));
  t.equal(pool.keptBytes, 80 + 64 * KiB, 'no strangers');
  const small = pool.take(512);
  t.equal(small.length, 592);
  pool.give(small);
  const many = Array.from({ length: 5 }, () => pool.take(64 * KiB));
  t.equal(pool.keptBytes, 0);
  for (const buffer of many) pool.give(buffer);
  t.ok(pool.keptBytes <= 200 * KiB && pool.keptBytes > 100 * KiB, `${pool.keptBytes}`);
  t.equal(pool.takenBytes(100 * KiB), 80 + 128 * KiB);
});

t.test('no option data can trip the server: each gets one final answer, or the end', async () => {
  const offers = new Map<string, NbdOffer>([['', { sizeBytes: 512, flags: 1, sizes: nbdBlockSizesDefault, hasExtents: true }]]);
  const agreement = fc.record<NbdAgreement>({ hasNoZeroes: fc.boolean(), isStructured: fc.boolean(), allocationOf: fc.constantFrom(null, '') });
  const data = fc.oneof(fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)), fc.array(fc.nat(3), { maxLength: 20 }).map((bytes) => Buffer.from(bytes)));
  fc.assert(fc.property(fc.nat(12), data, agreement, (option, bytes, agreed) => {
    const { then, replies } = answerOption(option, bytes, agreed, offers, { listed: [], tls: 'off' });
    if (option === nbdOption.exportName) return then === (bytes.length === 0 ? 'transmission' : 'close');
    const types = replies.map((reply) => reply.readUInt32BE(12));
    const isFinal = (type: number): boolean => type === nbdReply.ack || type >= 0x80000000;
    return types.filter(isFinal).length === 1 && isFinal(types.at(-1)!)
      && replies.every((reply) => reply.readUInt32BE(8) === option && reply.length === nbdOptionReplyHeaderBytes + reply.readUInt32BE(16));
  }), { numRuns: 1000 });
});
