/** decode(encode(x)) = x for every record, and any flipped bit of any record is noticed; the same for the store's own headers. */
import fc from 'fast-check';
import t from 'tap';
import { diskBytesMax, runBytesMax, zeroRunBytesMax } from '../../journal/limits.ts';
import { makeRecord, readRecord } from '../../journal/record.ts';
import {
  decodeHistoryHeader, decodeHistoryRun, decodeHistoryTrailer, encodeHistoryHeader, encodeHistoryTrailer, historyRunBytes, writeHistoryRun,
} from '../../replica-target/store/history-format.ts';
import { decodeSegmentHeader, decodeWitness, encodeSegmentHeader, encodeWitness } from '../../replica-target/store/segment-header.ts';

const hex = (bytes: number) => fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((array) => Buffer.from(array).toString('hex'));
const u32 = fc.nat(0xffffffff);
const u64 = fc.bigInt({ min: 0n, max: 0xffffffffffffffffn });
const point = fc.maxSafeNat();
const sectors = (most: number) => fc.integer({ min: 1, max: most / 512 }).map((count) => count * 512);
const place = fc.record({ groupId: hex(16), deltaId: u64, point, term: u32, sequence: u32, disk: fc.nat(255), offset: fc.nat(diskBytesMax / 512 / 2 ** 12).map((count) => count * 512) });

const record = fc.oneof(
  fc.tuple(place, sectors(zeroRunBytesMax)).map(([at, length]) => makeRecord({ ...at, kind: 'zero', codec: 'none', length })),
  fc.tuple(place, fc.integer({ min: 1, max: 6 }), fc.nat(255)).map(([at, count, fill]) => makeRecord({ ...at, kind: 'data', codec: 'none', length: count * 512 }, Buffer.alloc(count * 512, fill))),
  fc.tuple(place, sectors(runBytesMax), fc.uint8Array({ minLength: 1, maxLength: 511 })).map(([at, length, payload]) => makeRecord({ ...at, kind: 'data', codec: 'snappy', length }, payload)),
  fc.tuple(place, fc.constantFrom('open' as const, 'part' as const, 'seal' as const), fc.string({ maxLength: 100 })).map(([at, kind, text]) =>
    makeRecord({ ...at, kind, codec: 'none', disk: 0, offset: 0, length: 0 }, Buffer.from(text))),
);

t.test('records', async (t) => {
  fc.assert(fc.property(record, fc.nat(100), ({ header, bytes }, before) => {
    const reading = readRecord(Buffer.concat([Buffer.alloc(before), bytes, Buffer.from('behind')]), before);
    return reading.ok && reading.record.bytes.equals(bytes) && reading.next === before + bytes.length
      && (Object.keys(header) as (keyof typeof header)[]).every((key) => reading.record.header[key] === header[key]);
  }), { numRuns: 500 });
  fc.assert(fc.property(record, fc.nat(), ({ bytes }, at) => {
    const bit = at % (bytes.length * 8);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    const reading = readRecord(bytes);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    return !reading.ok;
  }), { numRuns: 3000 });
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (garbage) => !readRecord(Buffer.from(garbage)).ok), { numRuns: 500 });
  t.pass();
});

const id = fc.record({ term: u32, point });
const chain = fc.record({
  newest: fc.option(id), newestDeltaId: u64,
  open: fc.option(fc.record({ deltaId: u64, term: u32, point, nextSequence: u32, parts: u32, isAtPart: fc.boolean() })),
});

function flipped(bytes: Buffer, at: number, length: number): Buffer {
  const copy = Buffer.from(bytes);
  const bit = at % (length * 8);
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
}

t.test('headers of segments and history files', async (t) => {
  fc.assert(fc.property(hex(16), u32, point, chain, fc.nat(), (groupId, number, end, chainAt, at) => {
    const header = { groupId, number, previousEnd: end, chain: chainAt };
    const bytes = encodeSegmentHeader(header);
    const reading = decodeSegmentHeader(bytes);
    const witness = encodeWitness(groupId, number, end);
    return reading.ok && JSON.stringify(reading.header, big) === JSON.stringify(header, big) && !decodeSegmentHeader(flipped(bytes, at, 512)).ok
      && decodeWitness(witness, groupId, number) === end && decodeWitness(flipped(witness, at, 512), groupId, number) === 0
      && decodeWitness(witness, groupId, number === 0 ? 1 : number - 1) === 0;
  }), { numRuns: 300 });
  fc.assert(fc.property(hex(16), fc.option(id), id, fc.nat(), fc.integer({ min: 1, max: 6 }), (groupId, from, to, at, count) => {
    const facts = {
      groupId, from, to, disksBefore: [{ disk: 0, sizeBytes: 512 }], disksAfter: [],
      points: Array.from({ length: count }, () => ({ ...to, kind: 'crash' as const, cutAtMs: 1, arrivedAtMs: 2, changedBytes: 3 })),
    };
    const header = encodeHistoryHeader(facts);
    const reading = decodeHistoryHeader(header);
    const trailer = encodeHistoryTrailer({ indexAt: to.point, indexCount: count, indexChecksum: 5n, dataBytes: at });
    const run = Buffer.alloc(historyRunBytes + count, 7);
    writeHistoryRun(run, 0, { kind: 'data', disk: count, offset: at, length: count });
    const decoded = decodeHistoryRun(run);
    return reading.ok && JSON.stringify(reading.value) === JSON.stringify(facts) && !decodeHistoryHeader(flipped(header, at, header.length)).ok
      && decodeHistoryTrailer(trailer).ok && !decodeHistoryTrailer(flipped(trailer, at, trailer.length)).ok
      && decoded.ok && decoded.value.offset === at && decoded.value.length === count && !decodeHistoryRun(flipped(run, at, historyRunBytes)).ok;
  }), { numRuns: 300 });
  t.pass();
});

function big(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
