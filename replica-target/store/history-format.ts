/**
 * Bytes of a history file (FORMAT.md, "History"): what applying one batch overwrote, sorted by disk and offset. Encodes and
 * decodes pieces of it; opens no file and keeps no state.
 */
import { xxh64 } from '@node-rs/xxhash';
import { z } from 'zod';
import { pointKinds } from '../../journal/point.ts';
import { cutFacts } from '../../journal/seal.ts';

/** "AIU1" (header), "AIUR" (run), "AIUT" (trailer), little-endian, at byte 8. */
const headerMagic = 0x31554941;
const runMagic = 0x52554941;
const trailerMagic = 0x54554941;
export const historyVersion = 1;

export const historyHeaderBytes = 32;
export const historyRunBytes = 40;
export const historyIndexEntryBytes = 24;
export const historyTrailerBytes = 64;
/** Largest JSON of a header: the facts of a batch's points, some 150 bytes each. */
export const historyFactsBytesMax = 64 * 1024 * 1024;

const count = z.number().int().nonnegative();
const pointId = z.object({ term: count, point: count });
const sizes = z.array(z.object({ disk: count, sizeBytes: count }));

/** `from` null: the replica as the first sync left it. `points`: those of the batch, oldest first; the last is `to`. */
export const historyFacts = z.object({
  groupId: z.string(),
  from: pointId.nullable(),
  to: pointId,
  disksBefore: sizes,
  disksAfter: sizes,
  points: z.array(z.object({
    term: count, point: count, kind: z.enum(pointKinds), cutAtMs: count, arrivedAtMs: count, changedBytes: count, label: z.string().optional(),
    ...cutFacts.shape,
  })).min(1),
});
export type HistoryFacts = z.infer<typeof historyFacts>;

export interface HistoryRun {
  readonly kind: 'data' | 'zero';
  readonly disk: number;
  readonly offset: number;
  readonly length: number;
}

export interface HistoryIndexEntry extends HistoryRun {
  /** Of the run's header in the file. */
  readonly at: number;
}

export interface HistoryTrailer {
  readonly indexAt: number;
  readonly indexCount: number;
  readonly indexChecksum: bigint;
  readonly dataBytes: number;
}

export type HistoryReading<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly fault: 'corrupt' | 'newer'; readonly detail: string };

/** Fixed header and JSON facts, in one piece. */
export function encodeHistoryHeader(facts: HistoryFacts): Buffer {
  const json = Buffer.from(JSON.stringify(facts));
  const bytes = Buffer.alloc(historyHeaderBytes + json.length);
  bytes.writeUInt32LE(headerMagic, 8);
  bytes.writeUInt16LE(historyVersion, 12);
  bytes.writeUInt32LE(json.length, 24);
  json.copy(bytes, historyHeaderBytes);
  bytes.writeBigUInt64LE(xxh64(bytes.subarray(8)), 0);
  return bytes;
}

/** How long header and facts are together, from the fixed part. */
export function readHistoryHeaderLength(bytes: Buffer): HistoryReading<number> {
  if (bytes.length < historyHeaderBytes || bytes.readUInt32LE(8) !== headerMagic) return corruptReading('no history header');
  const version = bytes.readUInt16LE(12);
  const incompatible = bytes.readUInt32LE(16);
  if (version > historyVersion || incompatible !== 0) return { ok: false, fault: 'newer', detail: `history version ${version}, features ${incompatible.toString(16)}` };
  const length = bytes.readUInt32LE(24);
  return length > historyFactsBytesMax ? corruptReading(`facts of ${length} bytes`) : { ok: true, value: historyHeaderBytes + length };
}

export function decodeHistoryHeader(bytes: Buffer): HistoryReading<HistoryFacts> {
  const length = readHistoryHeaderLength(bytes);
  if (!length.ok) return length;
  if (bytes.length < length.value) return corruptReading('the header is cut off');
  const whole = bytes.subarray(0, length.value);
  if (xxh64(whole.subarray(8)) !== whole.readBigUInt64LE(0)) return corruptReading('the header fails its checksum');
  let facts: unknown;
  try {
    facts = JSON.parse(whole.toString('utf8', historyHeaderBytes));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return corruptReading('the header’s facts are no JSON');
  }
  const parsed = historyFacts.safeParse(facts);
  return parsed.success ? { ok: true, value: parsed.data } : corruptReading('the header does not hold the facts of a batch');
}

/** Writes a run's header at `at`. For data the payload is in place behind it already, and its checksum goes into the header. */
export function writeHistoryRun(bytes: Buffer, at: number, run: HistoryRun): void {
  bytes.fill(0, at, at + historyRunBytes);
  bytes.writeUInt32LE(runMagic, at + 8);
  bytes[at + 12] = run.kind === 'data' ? 1 : 2;
  bytes.writeUInt16LE(run.disk, at + 14);
  bytes.writeBigUInt64LE(BigInt(run.offset), at + 16);
  bytes.writeUInt32LE(run.length, at + 24);
  if (run.kind === 'data') bytes.writeBigUInt64LE(xxh64(bytes.subarray(at + historyRunBytes, at + historyRunBytes + run.length)), at + 32);
  bytes.writeBigUInt64LE(xxh64(bytes.subarray(at + 8, at + historyRunBytes)), at);
}

/** The run whose header is at `at`; `payload` is the checksum of the data that follows, 0 for a zero run. */
export function decodeHistoryRun(bytes: Buffer, at = 0): HistoryReading<HistoryRun & { readonly payload: bigint }> {
  if (bytes.length - at < historyRunBytes || bytes.readUInt32LE(at + 8) !== runMagic) return corruptReading('no run starts here');
  if (xxh64(bytes.subarray(at + 8, at + historyRunBytes)) !== bytes.readBigUInt64LE(at)) return corruptReading('a run’s header fails its checksum');
  const kind = bytes[at + 12];
  if (kind !== 1 && kind !== 2) return corruptReading(`a run of kind ${kind}`);
  return {
    ok: true,
    value: {
      kind: kind === 1 ? 'data' : 'zero', disk: bytes.readUInt16LE(at + 14), offset: Number(bytes.readBigUInt64LE(at + 16)),
      length: bytes.readUInt32LE(at + 24), payload: bytes.readBigUInt64LE(at + 32),
    },
  };
}

export function checksumOf(bytes: Uint8Array): bigint {
  return xxh64(bytes);
}

/** A piece of the index, packed as it is written: memory is 24 bytes a run. */
export class HistoryIndex {
  #bytes = Buffer.alloc(historyIndexEntryBytes * 256);
  #count = 0;

  get count(): number { return this.#count; }
  get bytes(): Buffer { return this.#bytes.subarray(0, this.#count * historyIndexEntryBytes); }

  /** What was gathered has been put away. */
  clear(): void { this.#count = 0; }

  push({ kind, disk, offset, length, at }: HistoryIndexEntry): void {
    const position = this.#count * historyIndexEntryBytes;
    if (position === this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes, Buffer.alloc(this.#bytes.length)]);
    this.#bytes.writeBigUInt64LE(BigInt(offset), position);
    this.#bytes.writeBigUInt64LE(BigInt(at), position + 8);
    this.#bytes.writeUInt32LE(length, position + 16);
    this.#bytes.writeUInt16LE(disk, position + 20);
    this.#bytes.writeUInt16LE(kind === 'data' ? 1 : 2, position + 22);
    this.#count++;
  }
}

export function decodeHistoryIndexEntry(bytes: Buffer, entry: number): HistoryIndexEntry {
  const position = entry * historyIndexEntryBytes;
  return {
    offset: Number(bytes.readBigUInt64LE(position)), at: Number(bytes.readBigUInt64LE(position + 8)), length: bytes.readUInt32LE(position + 16),
    disk: bytes.readUInt16LE(position + 20), kind: bytes.readUInt16LE(position + 22) === 1 ? 'data' : 'zero',
  };
}

export function encodeHistoryTrailer({ indexAt, indexCount, indexChecksum, dataBytes }: HistoryTrailer): Buffer {
  const bytes = Buffer.alloc(historyTrailerBytes);
  bytes.writeUInt32LE(trailerMagic, 8);
  bytes.writeBigUInt64LE(BigInt(indexAt), 16);
  bytes.writeBigUInt64LE(BigInt(indexCount), 24);
  bytes.writeBigUInt64LE(indexChecksum, 32);
  bytes.writeBigUInt64LE(BigInt(dataBytes), 40);
  bytes.writeBigUInt64LE(xxh64(bytes.subarray(8)), 0);
  return bytes;
}

/** `bytes`: the last {@link historyTrailerBytes} of a file. */
export function decodeHistoryTrailer(bytes: Buffer): HistoryReading<HistoryTrailer> {
  if (bytes.length < historyTrailerBytes || bytes.readUInt32LE(8) !== trailerMagic) return corruptReading('no trailer: the file is not sealed');
  if (xxh64(bytes.subarray(8, historyTrailerBytes)) !== bytes.readBigUInt64LE(0)) return corruptReading('the trailer fails its checksum');
  return {
    ok: true,
    value: {
      indexAt: Number(bytes.readBigUInt64LE(16)), indexCount: Number(bytes.readBigUInt64LE(24)),
      indexChecksum: bytes.readBigUInt64LE(32), dataBytes: Number(bytes.readBigUInt64LE(40)),
    },
  };
}

function corruptReading(detail: string): { readonly ok: false; readonly fault: 'corrupt'; readonly detail: string } {
  return { ok: false, fault: 'corrupt', detail };
}
