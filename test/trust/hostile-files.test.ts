/** Files whose checksums hold and whose content does not: what the fuzzer found, each refused by name, without the memory or the time that it asks for. */
import { xxh64 } from '@node-rs/xxhash';
import t, { type Test } from 'tap';
import { BlockCache } from '../../replica-target/points/block-cache.ts';
import { digestPageBytes, pageKinds, sealPage, writeInnerEntry, writeLeafEntry, writeTrailer } from '../../replica-target/points/digest-format.ts';
import { DigestReader } from '../../replica-target/points/digest-reader.ts';
import { OpenFiles } from '../../replica-target/points/open-files.ts';
import { readFacts } from '../../replica-target/store/group-facts.ts';
import { undoFileName } from '../../replica-target/store/group-folder.ts';
import { checksumOf, encodeHistoryHeader, encodeHistoryTrailer, HistoryIndex, historyRunBytes, writeHistoryRun } from '../../replica-target/store/history-format.ts';
import { HistoryReader } from '../../replica-target/store/history-reader.ts';
import { decodePayload, encodePayload, sealPayload } from '../../journal/seal.ts';
import { SimulatedDisk } from '../../scripts/sim/simulated-disk.ts';
import { groupId } from '../store/model-guest.ts';
import { folder, groups } from '../store/store-rig.ts';

const name = undoFileName(null, { term: 1, point: 3 });
const digestPath = `${folder.history}/0.0-1.3.1.digest`;
const corrupt = { code: 'STORE_CORRUPT' };

async function diskWith(path: string, bytes: Buffer): Promise<SimulatedDisk> {
  const disk = new SimulatedDisk();
  for (const made of [groups, folder.path, ...folder.folders]) await disk.makeFolder(made);
  const file = await disk.open(path, 'create');
  await file.write(bytes, 0);
  await file.close();
  return disk;
}

function summed(bytes: Buffer): Buffer {
  bytes.writeBigUInt64LE(xxh64(bytes.subarray(8)), 0);
  return bytes;
}

const facts = {
  groupId, from: null, to: { term: 1, point: 3 }, disksBefore: [], disksAfter: [], points: [{ term: 1, point: 3, kind: 'crash' as const, cutAtMs: 1, arrivedAtMs: 2, changedBytes: 3 }],
};

t.test('a history file whose checksum holds over no JSON, or that is cut off within its facts', async (t) => {
  const header = encodeHistoryHeader(facts);
  header.write('x', 32);
  await t.rejects(HistoryReader.facts(await diskWith(folder.undo(name), summed(header)), folder, name), corrupt);
  const large = encodeHistoryHeader(facts);
  large.writeUInt32LE(60 * 1024 ** 2, 24);
  const before = process.memoryUsage().arrayBuffers;
  await t.rejects(HistoryReader.facts(await diskWith(folder.undo(name), large), folder, name), corrupt);
  t.ok(process.memoryUsage().arrayBuffers - before < 32 * 1024 ** 2, 'nothing was taken for 60 MiB of facts that are not there');
});

t.test('a run of 4 GiB in a history file of some hundred bytes', async (t) => {
  const header = encodeHistoryHeader(facts);
  const run = { kind: 'data', disk: 0, offset: 0, length: 0xfffffe00 } as const;
  const bytes = Buffer.alloc(historyRunBytes);
  // Written as one of the bytes that are there, and lengthened.
  writeHistoryRun(bytes, 0, { ...run, length: 0 });
  bytes.writeUInt32LE(run.length, 24);
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(8)), 0);
  const index = new HistoryIndex();
  index.push({ ...run, at: header.length });
  const disk = await diskWith(folder.undo(name), Buffer.concat([
    header, bytes, index.bytes, encodeHistoryTrailer({ indexAt: header.length + bytes.length, indexCount: 1, indexChecksum: checksumOf(index.bytes), dataBytes: 0 }),
  ]));
  const reader = await HistoryReader.open(disk, folder, name);
  t.teardown(() => reader.close());
  await t.rejects(reader.run(reader.entry(0)), { ...corrupt, message: /beyond the file/ });
});

t.test('an index that names a place beyond the file', async (t) => {
  for (const at of [1024 ** 2, 2 ** 63]) {
    const header = encodeHistoryHeader(facts);
    const index = new HistoryIndex();
    index.push({ kind: 'data', disk: 0, offset: 0, length: 512, at });
    const disk = await diskWith(folder.undo(name), Buffer.concat([header, index.bytes, encodeHistoryTrailer({ indexAt: header.length, indexCount: 1, indexChecksum: checksumOf(index.bytes), dataBytes: 512 })]));
    const reader = await HistoryReader.open(disk, folder, name);
    await t.rejects(reader.run(reader.entry(0)), { ...corrupt, message: /beyond the file/ });
    await reader.close();
  }
});

t.test('a small file whose checksum holds over no JSON', async (t) => {
  const body = '{"version":1,';
  const disk = await diskWith(folder.facts, Buffer.from(`{"checksum":"${xxh64(Buffer.from(body)).toString(16).padStart(16, '0')}","body":${body}}\n`));
  await t.rejects(readFacts(disk, folder), corrupt);
});

/** A leaf, an inner page that leads to `child`, a trailer. */
async function digest(t: Test, child: number, change: (pages: readonly [Buffer, Buffer, Buffer]) => void = () => undefined): Promise<DigestReader | null> {
  const pages = [0, 1, 2].map(() => Buffer.alloc(digestPageBytes)) as [Buffer, Buffer, Buffer];
  writeLeafEntry(pages[0], 0, { disk: 0, start: 0, end: 4096, isZero: false, file: 0, at: 32 });
  sealPage(pages[0], pageKinds.leaf, 0, 1);
  writeInnerEntry(pages[1], 0, 0, 0, child);
  sealPage(pages[1], pageKinds.inner, 1, 1);
  writeTrailer(pages[2], { groupId, level: 1, from: null, fileCount: 1, entryCount: 1, leafCount: 1, rootPage: 1, tablePage: 0 });
  sealPage(pages[2], pageKinds.trailer, 2, 0);
  change(pages);
  const open = new OpenFiles(await diskWith(digestPath, Buffer.concat(pages)), 4);
  t.teardown(() => open.close());
  return DigestReader.open({ open, cache: new BlockCache(1024 ** 2) }, digestPath);
}

t.test('digests whose pages lead in a circle, nowhere, or have more entries than fit', async (t) => {
  const sound = (await digest(t, 0))!;
  const found: unknown[] = [];
  await sound.lookup(0, 0, 4096, found as never);
  t.equal(found.length, 1);
  for (const [what, child] of [['itself', 1], ['a page that is not there', 77]] as const) {
    const reader = (await digest(t, child))!;
    await t.rejects(async () => reader.lookup(0, 0, 4096, []), corrupt, `an inner page that leads to ${what}`);
  }
  const crowded = (await digest(t, 0, ([leaf]) => sealPage(leaf, pageKinds.leaf, 0, 5000)))!;
  await t.rejects(async () => crowded.lookup(0, 0, 4096, []), corrupt);
  await t.rejects(async () => crowded.cursor().next(), corrupt);
  const empty = (await digest(t, 0, ([leaf]) => sealPage(leaf, pageKinds.leaf, 0, 0)))!;
  await t.rejects(async () => empty.cursor().next(), corrupt);
  const many = (await digest(t, 0, ([, , trailer]) => {
    writeTrailer(trailer, { groupId, level: 1, from: null, fileCount: 1, entryCount: 1, leafCount: 0xffffffff, rootPage: 1, tablePage: 0 });
    sealPage(trailer, pageKinds.trailer, 2, 0);
  }))!;
  const cursor = many.cursor();
  t.ok(await cursor.next());
  await t.rejects(async () => cursor.next(), corrupt, 'leaves are counted by the trailer, and end before');
  await t.rejects((await digest(t, 0))!.table(), corrupt, 'a table that is none');
});

t.test('a point that was cut at no time that has a date', async (t) => {
  const seal = { base: null, kind: 'crash' as const, cutAtMs: 8_640_000_000_000_000, records: 2, changedBytes: 0, disks: [{ disk: 0, sizeBytes: 512 }] };
  t.equal(new Date(decodePayload(sealPayload, encodePayload(seal))!.cutAtMs).toISOString(), '+275760-09-13T00:00:00.000Z');
  t.equal(decodePayload(sealPayload, encodePayload({ ...seal, cutAtMs: seal.cutAtMs + 1 })), undefined, 'it could be listed by nobody');
});
