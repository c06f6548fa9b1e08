/** Segment and history bytes lie where FORMAT.md's tables say, read here by those tables alone. */
import { xxh64 } from '@node-rs/xxhash';
import t from 'tap';
import { innerEntriesMax, leafEntriesMax, sealPage, tableEntriesMax, writeInnerEntry, writeLeafEntry, writeTableEntry, writeTrailer } from '../../replica-target/points/digest-format.ts';
import { encodeHistoryHeader, encodeHistoryTrailer, writeHistoryRun } from '../../replica-target/store/history-format.ts';
import { encodeSegmentHeader, encodeWitness } from '../../replica-target/store/segment-header.ts';

const groupId = '00112233445566778899aabbccddeeff';

t.test('a segment’s header and witness', async (t) => {
  const bytes = encodeSegmentHeader({
    groupId, number: 5, previousEnd: 0x123456,
    chain: { newest: { term: 2, point: 40 }, newestDeltaId: 0xaaaan, open: { deltaId: 0xbbbbn, term: 3, point: 1, nextSequence: 7, parts: 2, isAtPart: true } },
  });
  t.equal(bytes.length, 4096);
  t.equal(bytes.readBigUInt64LE(0), xxh64(bytes.subarray(8, 512)));
  t.equal(bytes.toString('latin1', 8, 12), 'AIS1');
  t.equal(bytes.readUInt16LE(12), 1);
  t.equal(bytes.toString('hex', 24, 40), groupId);
  t.same([40, 44, 88, 92, 96, 100].map((at) => bytes.readUInt32LE(at)), [5, 7, 2, 3, 7, 2]);
  t.same([48, 56, 64, 72, 80].map((at) => Number(bytes.readBigUInt64LE(at))), [0x123456, 40, 0xaaaa, 1, 0xbbbb]);
  t.ok(bytes.subarray(104).every((byte) => byte === 0));
  // Written down once: a change of these bytes is a new format.
  t.equal(bytes.toString('hex', 0, 16), '157ff4e2cd8d5d8b4149533101000000');
  const witness = encodeWitness(groupId, 5, 9000);
  t.equal(witness.length, 512);
  t.equal(witness.readBigUInt64LE(0), xxh64(witness.subarray(8)));
  t.equal(witness.toString('latin1', 8, 12), 'AIW1');
  t.equal(witness.readUInt32LE(12), 5);
  t.equal(witness.toString('hex', 16, 32), groupId);
  t.equal(Number(witness.readBigUInt64LE(32)), 9000);
});

t.test('a history file’s pieces', async (t) => {
  const facts = {
    groupId, from: null, to: { term: 1, point: 2 }, disksBefore: [{ disk: 0, sizeBytes: 4096 }], disksAfter: [{ disk: 0, sizeBytes: 8192 }],
    points: [{ term: 1, point: 2, kind: 'crash' as const, cutAtMs: 10, arrivedAtMs: 11, changedBytes: 512 }],
  };
  const header = encodeHistoryHeader(facts);
  t.equal(header.readBigUInt64LE(0), xxh64(header.subarray(8)));
  t.equal(header.toString('latin1', 8, 12), 'AIU1');
  t.equal(header.readUInt16LE(12), 1);
  t.equal(header.readUInt32LE(24), header.length - 32);
  t.same(JSON.parse(header.toString('utf8', 32)), facts);
  t.equal(header.toString('hex', 0, 8), '8f25b37b59efe386');
  const run = Buffer.alloc(40 + 512, 6);
  writeHistoryRun(run, 0, { kind: 'data', disk: 3, offset: 1024, length: 512 });
  t.equal(run.readBigUInt64LE(0), xxh64(run.subarray(8, 40)));
  t.equal(run.toString('latin1', 8, 12), 'AIUR');
  t.same([run[12], run.readUInt16LE(14), Number(run.readBigUInt64LE(16)), run.readUInt32LE(24)], [1, 3, 1024, 512]);
  t.equal(run.readBigUInt64LE(32), xxh64(run.subarray(40)));
  const trailer = encodeHistoryTrailer({ indexAt: 100, indexCount: 2, indexChecksum: 3n, dataBytes: 4 });
  t.equal(trailer.length, 64);
  t.equal(trailer.toString('latin1', 8, 12), 'AIUT');
  t.same([16, 24, 32, 40].map((at) => Number(trailer.readBigUInt64LE(at))), [100, 2, 3, 4]);
});

t.test('a digest’s pages', async (t) => {
  const pageOf = (fill: (page: Buffer) => void, kind: number, number: number, count: number): Buffer => {
    const page = Buffer.alloc(4096);
    fill(page);
    sealPage(page, kind, number, count);
    t.equal(page.readBigUInt64LE(0), xxh64(page.subarray(8)));
    t.same([page.readUInt32LE(8), page.readUInt16LE(12), page[14], page[15]], [number, count, kind, 0]);
    return page;
  };
  const leaf = pageOf((page) => writeLeafEntry(page, 1, { disk: 3, start: 2 ** 40, end: 2 ** 40 + 1024, isZero: true, file: 7, at: 99 }), 1, 0, 2);
  t.same([Number(leaf.readBigUInt64LE(44)), Number(leaf.readBigUInt64LE(52)), leaf.readUInt32LE(60), leaf.readUInt32LE(64), leaf.readUInt16LE(68), leaf.readUInt16LE(70)], [2 ** 40, 99, 1024, 7, 3, 2]);
  const inner = pageOf((page) => writeInnerEntry(page, 1, 3, 4096, 5), 2, 6, 2);
  t.same([Number(inner.readBigUInt64LE(32)), inner.readUInt32LE(40), inner.readUInt16LE(44)], [4096, 5, 3]);
  const table = pageOf((page) => writeTableEntry(page, 1, { to: { term: 2, point: 9 }, sizeBytes: 1234 }), 3, 7, 2);
  t.same([table.readUInt32LE(36), Number(table.readBigUInt64LE(40)), Number(table.readBigUInt64LE(48))], [2, 9, 1234]);
  const trailer = pageOf((page) => writeTrailer(page, { groupId, level: 2, from: { term: 4, point: 5 }, fileCount: 256, entryCount: 1000, leafCount: 7, rootPage: 8, tablePage: 9 }), 4, 10, 0);
  t.equal(trailer.toString('latin1', 16, 20), 'AID1');
  t.same([trailer.readUInt16LE(20), trailer.readUInt16LE(22), trailer.toString('hex', 24, 40)], [1, 2, groupId]);
  t.same([40, 44, 64, 68, 72].map((at) => trailer.readUInt32LE(at)), [4, 256, 7, 8, 9]);
  t.same([48, 56].map((at) => Number(trailer.readBigUInt64LE(at))), [5, 1000]);
  t.same([leafEntriesMax, innerEntriesMax, tableEntriesMax], [145, 255, 204]);
});
