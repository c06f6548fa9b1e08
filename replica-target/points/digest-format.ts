/**
 * Bytes of a digest (FORMAT.md, "Digest"): for a run of neighbouring history files, where the oldest before-image of every byte
 * lies. A tree of pages, each with its own checksum and number, so that a page can be believed by itself. Encodes and decodes
 * pages; opens no file.
 */
import { xxh64 } from '@node-rs/xxhash';
import type { PointId } from '../../journal/point.ts';
import type { ImageRun } from './image-runs.ts';

export const digestPageBytes = 4096;
export const digestPageHeaderBytes = 16;
const leafEntryBytes = 28;
const innerEntryBytes = 16;
const tableEntryBytes = 20;
export const leafEntriesMax = Math.floor((digestPageBytes - digestPageHeaderBytes) / leafEntryBytes);
export const innerEntriesMax = Math.floor((digestPageBytes - digestPageHeaderBytes) / innerEntryBytes);
export const tableEntriesMax = Math.floor((digestPageBytes - digestPageHeaderBytes) / tableEntryBytes);

/** "AID1", little-endian, in the last page. */
const digestMagic = 0x31444941;
export const digestVersion = 1;
export const pageKinds = { leaf: 1, inner: 2, table: 3, trailer: 4 } as const;

export interface DigestTrailer {
  readonly groupId: string;
  readonly level: number;
  readonly from: PointId | null;
  readonly fileCount: number;
  readonly entryCount: number;
  readonly leafCount: number;
  /** Page at which a search begins; equal to 0 when there is one leaf or none. */
  readonly rootPage: number;
  readonly tablePage: number;
}

export interface DigestTableEntry { readonly to: PointId; readonly sizeBytes: number }

/** Header and checksum over entries that are in place. */
export function sealPage(page: Buffer, kind: number, number: number, count: number): void {
  page.writeUInt32LE(number, 8);
  page.writeUInt16LE(count, 12);
  page[14] = kind;
  page[15] = 0;
  page.writeBigUInt64LE(xxh64(page.subarray(8, digestPageBytes)), 0);
}

/** Entries that a page of each kind may have. A page of another kind has none. */
const entriesMaxOf: readonly number[] = [0, leafEntriesMax, innerEntriesMax, tableEntriesMax, 0];

/** The page is whole, stands in its place, and has no more entries than fit into it. */
export function isSoundPage(page: Buffer, number: number): boolean {
  return page.length === digestPageBytes && page.readUInt32LE(8) === number && xxh64(page.subarray(8)) === page.readBigUInt64LE(0)
    && pageCount(page, 0) <= (entriesMaxOf[pageKind(page, 0)] ?? 0);
}

export function pageCount(bytes: Buffer, page: number): number { return bytes.readUInt16LE(page + 12); }
export function pageKind(bytes: Buffer, page: number): number { return bytes[page + 14]!; }

export function writeLeafEntry(page: Buffer, index: number, run: ImageRun): void {
  const at = digestPageHeaderBytes + index * leafEntryBytes;
  writeNumber(page, at, run.start);
  writeNumber(page, at + 8, run.at);
  page.writeUInt32LE(run.end - run.start, at + 16);
  page.writeUInt32LE(run.file, at + 20);
  page.writeUInt16LE(run.disk, at + 24);
  page.writeUInt16LE(run.isZero ? 2 : 1, at + 26);
}

/** `page`: where the page begins in `bytes`, as below. */
export function readLeafEntry(bytes: Buffer, page: number, index: number): ImageRun {
  const at = page + digestPageHeaderBytes + index * leafEntryBytes;
  const start = readNumber(bytes, at);
  return {
    disk: bytes.readUInt16LE(at + 24), start, end: start + bytes.readUInt32LE(at + 16), isZero: bytes.readUInt16LE(at + 26) === 2,
    file: bytes.readUInt32LE(at + 20), at: readNumber(bytes, at + 8),
  };
}

/** Whether the leaf entry comes at or before (disk, offset). */
export function isLeafEntryAtOrBefore(bytes: Buffer, page: number, index: number, disk: number, offset: number): boolean {
  const at = page + digestPageHeaderBytes + index * leafEntryBytes;
  const itsDisk = bytes.readUInt16LE(at + 24);
  return itsDisk < disk || (itsDisk === disk && readNumber(bytes, at) <= offset);
}

export function writeInnerEntry(page: Buffer, index: number, disk: number, start: number, child: number): void {
  const at = digestPageHeaderBytes + index * innerEntryBytes;
  writeNumber(page, at, start);
  page.writeUInt32LE(child, at + 8);
  page.writeUInt16LE(disk, at + 12);
  page.writeUInt16LE(0, at + 14);
}

export function innerChild(bytes: Buffer, page: number, index: number): number {
  return bytes.readUInt32LE(page + digestPageHeaderBytes + index * innerEntryBytes + 8);
}

export function isInnerEntryAtOrBefore(bytes: Buffer, page: number, index: number, disk: number, offset: number): boolean {
  const at = page + digestPageHeaderBytes + index * innerEntryBytes;
  const itsDisk = bytes.readUInt16LE(at + 12);
  return itsDisk < disk || (itsDisk === disk && readNumber(bytes, at) <= offset);
}

export function writeTableEntry(page: Buffer, index: number, { to, sizeBytes }: DigestTableEntry): void {
  const at = digestPageHeaderBytes + index * tableEntryBytes;
  page.writeUInt32LE(to.term, at);
  writeNumber(page, at + 4, to.point);
  writeNumber(page, at + 12, sizeBytes);
}

export function readTableEntry(bytes: Buffer, page: number, index: number): DigestTableEntry {
  const at = page + digestPageHeaderBytes + index * tableEntryBytes;
  return { to: { term: bytes.readUInt32LE(at), point: readNumber(bytes, at + 4) }, sizeBytes: readNumber(bytes, at + 12) };
}

/** The last page, to be sealed. */
export function writeTrailer(page: Buffer, trailer: DigestTrailer): void {
  page.fill(0);
  page.writeUInt32LE(digestMagic, 16);
  page.writeUInt16LE(digestVersion, 20);
  page.writeUInt16LE(trailer.level, 22);
  page.write(trailer.groupId, 24, 16, 'hex');
  page.writeUInt32LE(trailer.from?.term ?? 0, 40);
  page.writeUInt32LE(trailer.fileCount, 44);
  writeNumber(page, 48, trailer.from?.point ?? 0);
  writeNumber(page, 56, trailer.entryCount);
  page.writeUInt32LE(trailer.leafCount, 64);
  page.writeUInt32LE(trailer.rootPage, 68);
  page.writeUInt32LE(trailer.tablePage, 72);
}

/** Null when it is none, or of another version: a digest that is not understood is made anew. `page` is sound. */
export function readTrailer(page: Buffer): DigestTrailer | null {
  if (page.readUInt32LE(16) !== digestMagic || page.readUInt16LE(20) !== digestVersion || pageKind(page, 0) !== pageKinds.trailer) return null;
  const term = page.readUInt32LE(40);
  return {
    groupId: page.toString('hex', 24, 40), level: page.readUInt16LE(22), from: term === 0 ? null : { term, point: readNumber(page, 48) },
    fileCount: page.readUInt32LE(44), entryCount: readNumber(page, 56), leafCount: page.readUInt32LE(64), rootPage: page.readUInt32LE(68), tablePage: page.readUInt32LE(72),
  };
}

/** 64 bits as two halves: a search reads many, and every one as BigInt would be an object. Exact up to 2^53. */
export function readNumber(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at + 4) * 0x1_0000_0000 + bytes.readUInt32LE(at);
}

function writeNumber(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value % 0x1_0000_0000, at);
  bytes.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
}
