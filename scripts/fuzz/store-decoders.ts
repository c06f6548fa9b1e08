/** Files of a group that a target reads again: segments of the journal, history, digests, the small files with a checksum. */
import { xxh64 } from '@node-rs/xxhash';
import { isFault } from '../../journal/fault.ts';
import { BlockCache } from '../../replica-target/points/block-cache.ts';
import { digestPageBytes } from '../../replica-target/points/digest-format.ts';
import { DigestReader } from '../../replica-target/points/digest-reader.ts';
import { DigestWriter } from '../../replica-target/points/digest-writer.ts';
import { readPruned } from '../../replica-target/points/history-set.ts';
import type { ImageRun } from '../../replica-target/points/image-runs.ts';
import { OpenFiles } from '../../replica-target/points/open-files.ts';
import { UndoIndex } from '../../replica-target/points/undo-index.ts';
import { replaceChecked } from '../../replica-target/store/checked-json.ts';
import { readFacts, readMark } from '../../replica-target/store/group-facts.ts';
import { GroupFolder, undoFileName } from '../../replica-target/store/group-folder.ts';
import {
  checksumOf, encodeHistoryHeader, encodeHistoryTrailer, HistoryIndex, historyHeaderBytes, historyIndexEntryBytes, historyRunBytes, historyTrailerBytes, writeHistoryRun, type HistoryRun,
} from '../../replica-target/store/history-format.ts';
import { HistoryReader } from '../../replica-target/store/history-reader.ts';
import { recoverJournal } from '../../replica-target/store/journal-recovery.ts';
import { emptyChain } from '../../replica-target/store/record-order-plan.ts';
import { encodeSegmentHeader, encodeWitness, segmentHeaderBytes, witnessAt } from '../../replica-target/store/segment-header.ts';
import { SimulatedDisk } from '../sim/simulated-disk.ts';
import { forgetAsked } from './allocations.ts';
import type { Decoder } from './decoder.ts';
import { reshapeJson } from './reshape-json.ts';
import { deltaRecords, groupId, mendRecords, reshapeRecords } from './wire-decoders.ts';

const folder = new GroupFolder('/g');
const undoName = undoFileName(null, { term: 1, point: 3 });
const digestPath = '/g/history/0.0-1.3.1.digest';

async function diskWith(files: readonly (readonly [string, Buffer])[]): Promise<SimulatedDisk> {
  const disk = new SimulatedDisk();
  for (const path of [folder.path, ...folder.folders]) await disk.makeFolder(path);
  for (const [path, bytes] of files) {
    const file = await disk.open(path, 'create');
    await file.write(bytes, 0);
    await file.close();
  }
  return disk;
}

/** How long the first of two segments is; the second follows it, or nothing. */
const splitBytes = 4;
const segmentBytes = 64 * 1024;

function split(input: Buffer): [Buffer, Buffer] {
  if (input.length < splitBytes) return [input, Buffer.alloc(0)];
  const end = splitBytes + Math.min(input.readUInt32LE(0), input.length - splitBytes);
  return [input.subarray(splitBytes, end), input.subarray(end)];
}

function mendSegment(bytes: Buffer): void {
  if (bytes.length < segmentHeaderBytes) return;
  bytes.writeBigUInt64LE(xxh64(bytes.subarray(8, 512)), 0);
  bytes.writeBigUInt64LE(xxh64(bytes.subarray(witnessAt + 8, witnessAt + 512)), witnessAt);
  mendRecords(bytes, segmentHeaderBytes);
}

function joined(first: Buffer, second: Buffer): Buffer {
  const length = Buffer.alloc(splitBytes);
  length.writeUInt32LE(first.length);
  return Buffer.concat([length, first, second]);
}

const segments: Decoder = {
  name: 'segments', faults: ['STORE_CORRUPT', 'STORE_NEWER'], inputBytesMax: 128 * 1024,
  bufferBytesMax: (inputBytes) => 4 * 1024 ** 2 + 32 * inputBytes,
  seeds() {
    const records = deltaRecords();
    const first = Buffer.concat([encodeSegmentHeader({ groupId, number: 1, previousEnd: 0, chain: emptyChain }), ...records]);
    encodeWitness(groupId, 1, first.length).copy(first, witnessAt);
    const second = encodeSegmentHeader({ groupId, number: 2, previousEnd: first.length, chain: { newest: { term: 1, point: 1 }, newestDeltaId: 1n, open: null } });
    return [joined(first, Buffer.alloc(0)), joined(first, second)];
  },
  reshape(input, dice) {
    const [first, second] = split(input);
    const records = reshapeRecords(first.subarray(segmentHeaderBytes), dice);
    return records === null ? null : joined(Buffer.concat([first.subarray(0, segmentHeaderBytes), records]), second);
  },
  mend(input) { for (const segment of split(input)) mendSegment(segment); },
  async decode(input) {
    const [first, second] = split(input);
    const disk = await diskWith([[folder.segment(1), first], ...(second.length === 0 ? [] : [[folder.segment(2), second] as const])]);
    await recoverJournal({ disk, folder, groupId, applied: null, segmentBytes, onRun: () => undefined });
  },
};

function historyFile(runs: readonly (HistoryRun & { readonly fill: number })[]): Buffer {
  const header = encodeHistoryHeader({
    groupId, from: null, to: { term: 1, point: 3 }, disksBefore: [{ disk: 0, sizeBytes: 1024 ** 2 }], disksAfter: [{ disk: 0, sizeBytes: 1024 ** 2 }],
    points: [{ term: 1, point: 3, kind: 'crash', cutAtMs: 1, arrivedAtMs: 2, changedBytes: 3, label: 'x' }],
  });
  const index = new HistoryIndex();
  const pieces = [header];
  let at = header.length;
  let dataBytes = 0;
  for (const { fill, ...run } of runs) {
    const bytes = Buffer.alloc(historyRunBytes + (run.kind === 'data' ? run.length : 0), fill);
    writeHistoryRun(bytes, 0, run);
    index.push({ ...run, at });
    pieces.push(bytes);
    at += bytes.length;
    if (run.kind === 'data') dataBytes += run.length;
  }
  return Buffer.concat([...pieces, index.bytes, encodeHistoryTrailer({ indexAt: at, indexCount: index.count, indexChecksum: checksumOf(index.bytes), dataBytes })]);
}

/** Checksums of header, runs, index and trailer, wherever these now say that they lie. */
function mendHistory(bytes: Buffer): void {
  if (bytes.length < historyHeaderBytes + historyTrailerBytes) return;
  const factsEnd = Math.min(bytes.length, historyHeaderBytes + bytes.readUInt32LE(24));
  const trailer = bytes.length - historyTrailerBytes;
  bytes.writeUInt32LE(0x54554941, trailer + 8);
  const indexAt = Number(bytes.readBigUInt64LE(trailer + 16));
  if (indexAt <= trailer && (trailer - indexAt) % historyIndexEntryBytes === 0) {
    bytes.writeBigUInt64LE(BigInt((trailer - indexAt) / historyIndexEntryBytes), trailer + 24);
    for (let entry = indexAt; entry < trailer; entry += historyIndexEntryBytes) mendRun(bytes, entry, trailer);
    bytes.writeBigUInt64LE(checksumOf(bytes.subarray(indexAt, trailer)), trailer + 32);
  }
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(trailer + 8)), trailer);
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(8, factsEnd)), 0);
}

/** The run's header says what its index entry says. */
function mendRun(bytes: Buffer, entry: number, end: number): void {
  const at = Number(bytes.readBigUInt64LE(entry + 8));
  if (!Number.isSafeInteger(at) || at < historyHeaderBytes || at + historyRunBytes > end) return;
  bytes.writeUInt32LE(0x52554941, at + 8);
  bytes[at + 12] = bytes.readUInt16LE(entry + 22) === 1 ? 1 : 2;
  bytes.copy(bytes, at + 16, entry, entry + 8);
  bytes.copy(bytes, at + 24, entry + 16, entry + 20);
  bytes.copy(bytes, at + 14, entry + 20, entry + 22);
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(at + historyRunBytes, Math.min(bytes.length, at + historyRunBytes + bytes.readUInt32LE(at + 24)))), at + 32);
  bytes.writeBigUInt64LE(checksumOf(bytes.subarray(at + 8, at + historyRunBytes)), at);
}

/** All of the disk, and places at its ends. */
const lookups: readonly (readonly [number, number, number])[] = [[0, 0, 1024 ** 2], [0, 4096, 8192], [1, 0, 512], [0, 2 ** 45, 2 ** 46]];

const history: Decoder = {
  name: 'history', faults: ['STORE_CORRUPT', 'STORE_NEWER'], inputBytesMax: 128 * 1024,
  // Of pieces that are given back after each other, each by itself.
  bufferBytesMax: (inputBytes) => 1024 ** 2 + 8 * inputBytes,
  seeds: () => [
    historyFile([{ kind: 'data', disk: 0, offset: 0, length: 4096, fill: 1 }, { kind: 'zero', disk: 0, offset: 8192, length: 65_536, fill: 0 }, { kind: 'data', disk: 1, offset: 512, length: 512, fill: 3 }]),
    historyFile([]),
  ],
  reshape(input, dice) {
    if (input.length < historyHeaderBytes) return null;
    const end = historyHeaderBytes + input.readUInt32LE(24);
    const text = reshapeJson(input.toString('utf8', historyHeaderBytes, end), dice);
    if (text === null) return null;
    const changed = Buffer.concat([input.subarray(0, historyHeaderBytes), Buffer.from(text), input.subarray(end)]);
    changed.writeUInt32LE(Buffer.byteLength(text), 24);
    mendHistory(changed);
    return changed;
  },
  mend: mendHistory,
  async decode(input) {
    const disk = await diskWith([[folder.undo(undoName), input]]);
    await HistoryReader.facts(disk, folder, undoName);
    forgetAsked();
    const reader = await HistoryReader.open(disk, folder, undoName);
    for (let index = 0; index < reader.count; index += 1) {
      forgetAsked();
      await reader.run(reader.entry(index));
    }
    await reader.close();
    forgetAsked();
    const open = new OpenFiles(disk, 4);
    const undo = await UndoIndex.open({ open, cache: new BlockCache(1024 ** 2) }, folder.undo(undoName));
    const found: ImageRun[] = [];
    for (const [diskIndex, start, end] of lookups) await undo.lookup(diskIndex, start, end, found);
    const cursor = undo.cursor();
    while (await cursor.next()) forgetAsked();
    await open.close();
  },
};

function mendPages(bytes: Buffer): void {
  for (let at = 0; at + digestPageBytes <= bytes.length; at += digestPageBytes) {
    bytes.writeUInt32LE(at / digestPageBytes, at + 8);
    bytes.writeBigUInt64LE(xxh64(bytes.subarray(at + 8, at + digestPageBytes)), at);
  }
}

async function digestFile(entries: number): Promise<Buffer> {
  const disk = await diskWith([]);
  const writer = await DigestWriter.begin(disk, digestPath);
  for (let entry = 0; entry < entries; entry += 1) await writer.add({ disk: entry % 300 === 299 ? 1 : 0, start: entry * 8192, end: entry * 8192 + 4096, isZero: entry % 5 === 0, file: entry % 3, at: 4096 + entry * 5000 });
  const sizeBytes = await writer.seal({ groupId, level: 1, from: null, files: [1, 2, 3].map((point) => ({ to: { term: 1, point }, sizeBytes: 100_000 })) });
  const bytes = Buffer.alloc(sizeBytes);
  const file = await disk.open(digestPath, 'read');
  await file.read(bytes, 0, sizeBytes, 0);
  return bytes;
}

const digests: Decoder = {
  name: 'digests', faults: ['STORE_CORRUPT'], inputBytesMax: 64 * 1024, bufferBytesMax: (inputBytes) => 1024 ** 2 + 16 * inputBytes,
  seeds: () => Promise.all([digestFile(0), digestFile(5), digestFile(299)]),
  mend: mendPages,
  async decode(input) {
    const open = new OpenFiles(await diskWith([[digestPath, input]]), 4);
    const reader = await DigestReader.open({ open, cache: new BlockCache(1024 ** 2) }, digestPath);
    if (reader === null) return;
    await reader.table();
    const found: ImageRun[] = [];
    for (const [disk, start, end] of lookups) await reader.lookup(disk, start, end, found);
    const cursor = reader.cursor();
    while (await cursor.next()) forgetAsked();
    await open.close();
  },
};

const bodyAt = '{"checksum":"0123456789abcdef","body":'.length;

async function smallFile(value: object): Promise<Buffer> {
  const disk = await diskWith([]);
  await replaceChecked(disk, folder.facts, value);
  const file = await disk.open(folder.facts, 'read');
  const bytes = Buffer.alloc(await file.sizeBytes());
  await file.read(bytes, 0, bytes.length, 0);
  return bytes;
}

function mendSmall(bytes: Buffer): void {
  if (bytes.length < bodyAt + 2) return;
  const sum = xxh64(bytes.subarray(bodyAt, bytes.length - 2)).toString(16).padStart(16, '0');
  bytes.write(`{"checksum":"${sum}","body":`, 0, 'latin1');
  bytes.write('}\n', bytes.length - 2, 'latin1');
}

const point = { term: 1, point: 3 };
const pointFacts = { ...point, kind: 'crash', cutAtMs: 1, arrivedAtMs: 2, changedBytes: 3 };

const smallFiles: Decoder = {
  name: 'small-files', faults: ['STORE_CORRUPT', 'STORE_NEWER'], inputBytesMax: 128 * 1024, bufferBytesMax: (inputBytes) => 1024 ** 2 + 32 * inputBytes,
  seeds: () => Promise.all([
    smallFile({
      version: 1, incompatible: [], groupId, name: 'web1', sourceId: '11'.repeat(16), formerSourceIds: [], term: 1, fencedBelow: 1, state: 'protected', seed: 'done', reclaimed: { point },
      seedDeltaId: null, isSeedDistrusted: false, rpoMs: 1000, createdAtMs: 1, disks: [{ disk: 0, name: 'vda', sizeBytes: 1024 ** 2 }], hardware: {},
    }),
    smallFile({ version: 1, applied: point, disks: [{ disk: 0, sizeBytes: 1024 ** 2 }], point: pointFacts }),
    smallFile({ version: 1, prunedTo: point, point: pointFacts }),
  ]),
  reshape(input, dice) {
    const text = reshapeJson(input.toString('utf8', bodyAt, Math.max(bodyAt, input.length - 2)), dice);
    if (text === null) return null;
    const changed = Buffer.concat([input.subarray(0, bodyAt), Buffer.from(text), Buffer.from('}\n')]);
    mendSmall(changed);
    return changed;
  },
  mend: mendSmall,
  async decode(input) {
    // Each file is read as what it is and as each of the others: one of them takes it, or all refuse it.
    const disk = await diskWith([folder.facts, folder.mark, folder.pruned].map((path) => [path, input]));
    const readings = await Promise.allSettled([readFacts(disk, folder), readMark(disk, folder), readPruned(disk, folder)]);
    const refusals = readings.flatMap((reading) => (reading.status === 'rejected' ? [reading.reason as unknown] : []));
    const bug = refusals.find((reason) => !isFault(reason));
    if (bug instanceof Error) throw bug;
    if (refusals.length === readings.length) throw refusals[0];
  },
};

export const storeDecoders: readonly Decoder[] = [segments, history, digests, smallFiles];
