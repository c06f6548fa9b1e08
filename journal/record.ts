/**
 * The record: the one unit of the journal and of the wire (FORMAT.md, "Record").
 *
 * A record is made once, by the source, in a buffer of its own: header first, payload behind it. The
 * checksum spans all bytes after itself, so one call covers both. Nobody re-encodes it: the same bytes
 * travel, are checked on arrival, and are appended to the target's journal. This file packs and checks;
 * it compresses nothing and knows no file and no socket.
 */
import { xxh64 } from '@node-rs/xxhash';
import {
  payloadBytesMax, recordHeaderBytes, runBytesMax, sealPayloadBytesMax, sectorBytes, zeroRunBytesMax, diskBytesMax, diskCountMax,
} from './limits.ts';

/** "AIR1", little-endian, at byte 8. */
export const recordMagic = 0x31524941;

/** Kinds. `open` starts a delta, `part` ends a durable part of an unsealed delta, `seal` makes the delta a point. */
export const recordKinds = { open: 1, data: 2, zero: 3, part: 4, seal: 5 } as const;
export type RecordKind = keyof typeof recordKinds;
const kindNames: Readonly<Record<number, RecordKind>> = { 1: 'open', 2: 'data', 3: 'zero', 4: 'part', 5: 'seal' };

export const recordCodecs = { none: 0, snappy: 1 } as const;
export type RecordCodec = keyof typeof recordCodecs;
const codecNames: Readonly<Record<number, RecordCodec>> = { 0: 'none', 1: 'snappy' };

/** What a header says. `groupId` is 32 lower-case hex digits; `deltaId` 64 random bits drawn when the delta was opened. */
export interface RecordHeader {
  readonly kind: RecordKind;
  readonly codec: RecordCodec;
  /** Disk index in the group; 0 for open, part and seal. */
  readonly disk: number;
  readonly groupId: string;
  readonly deltaId: bigint;
  /** The point that this record's delta leads to. 0 while a first sync is under way. */
  readonly point: number;
  readonly term: number;
  /** 0 for open, then one more for each record of the delta. */
  readonly sequence: number;
  /** Byte offset on the disk, a multiple of 512. */
  readonly offset: number;
  /** Bytes of the run on the disk, uncompressed. 0 for open, part and seal. */
  readonly length: number;
  /** Bytes that follow the header. 0 for zero records. */
  readonly payloadBytes: number;
}

/** A record inside a larger buffer: its header, and all its bytes (header and payload) without a copy. */
export interface RecordView {
  readonly header: RecordHeader;
  readonly bytes: Buffer;
}

export type RecordFault =
  | 'truncated' | 'blank' | 'magic' | 'checksum' | 'kind' | 'codec' | 'bounds';

/** Why bytes are no record. `blank`: the header is all zeroes, which is how an unwritten rest of a segment reads. */
export interface RecordRefusal {
  readonly fault: RecordFault;
  readonly detail: string;
}

export type RecordReading =
  | { readonly ok: true; readonly record: RecordView; readonly next: number }
  | ({ readonly ok: false } & RecordRefusal);

/**
 * Writes the header into the first 80 bytes of `bytes` and the checksum over the rest.
 * `bytes` is exactly header plus payload; the payload is already in place behind byte 80.
 */
export function sealRecordBytes(bytes: Buffer, header: Omit<RecordHeader, 'payloadBytes'>): RecordView {
  const payloadBytes = bytes.length - recordHeaderBytes;
  if (payloadBytes < 0 || payloadBytes > payloadBytesMax) throw new RangeError(`payload of ${payloadBytes} bytes`);
  bytes.writeUInt32LE(recordMagic, 8);
  bytes[12] = recordKinds[header.kind];
  bytes[13] = recordCodecs[header.codec];
  bytes.writeUInt16LE(header.disk, 14);
  bytes.write(header.groupId, 16, 16, 'hex');
  bytes.writeBigUInt64LE(header.deltaId, 32);
  bytes.writeBigUInt64LE(BigInt(header.point), 40);
  bytes.writeBigUInt64LE(BigInt(header.offset), 48);
  bytes.writeUInt32LE(header.term, 56);
  bytes.writeUInt32LE(header.sequence, 60);
  bytes.writeUInt32LE(header.length, 64);
  bytes.writeUInt32LE(payloadBytes, 68);
  bytes.writeBigUInt64LE(0n, 72);
  bytes.writeBigUInt64LE(xxh64(bytes.subarray(8)), 0);
  return { header: { ...header, payloadBytes }, bytes };
}

/** A record whose payload is given apart: for the small ones (open, part, seal, zero). Data records use {@link sealRecordBytes} and spare the copy. */
export function makeRecord(header: Omit<RecordHeader, 'payloadBytes'>, payload?: Uint8Array): RecordView {
  const bytes = Buffer.allocUnsafe(recordHeaderBytes + (payload?.length ?? 0));
  if (payload !== undefined) bytes.set(payload, recordHeaderBytes);
  return sealRecordBytes(bytes, header);
}

/**
 * Reads the record at `at`. Checks magic, bounds, then the checksum; whether it belongs here (group, term,
 * point, sequence) is the caller's question. Never throws on any input, never allocates for the payload.
 */
export function readRecord(buffer: Buffer, at = 0): RecordReading {
  const size = readRecordSize(buffer, at);
  if (!size.ok) return size;
  if (buffer.length - at < size.recordBytes) return refuse('truncated', `record of ${size.recordBytes} bytes, ${buffer.length - at} at hand`);
  const bytes = buffer.subarray(at, at + size.recordBytes);
  if (xxh64(bytes.subarray(8)) !== bytes.readBigUInt64LE(0)) return refuse('checksum', 'checksum differs');
  const kind = kindNames[bytes[12]!];
  if (kind === undefined) return refuse('kind', `unknown kind ${bytes[12]}`);
  const codec = codecNames[bytes[13]!];
  if (codec === undefined) return refuse('codec', `unknown codec ${bytes[13]}`);
  const point = bytes.readBigUInt64LE(40);
  const offset = bytes.readBigUInt64LE(48);
  if (point > BigInt(Number.MAX_SAFE_INTEGER) || offset > BigInt(diskBytesMax)) return refuse('bounds', 'point or offset out of range');
  const header: RecordHeader = {
    kind, codec,
    disk: bytes.readUInt16LE(14),
    groupId: bytes.toString('hex', 16, 32),
    deltaId: bytes.readBigUInt64LE(32),
    point: Number(point),
    offset: Number(offset),
    term: bytes.readUInt32LE(56),
    sequence: bytes.readUInt32LE(60),
    length: bytes.readUInt32LE(64),
    payloadBytes: size.recordBytes - recordHeaderBytes,
  };
  const wrong = boundsFault(header, bytes.readBigUInt64LE(72));
  if (wrong !== null) return refuse('bounds', wrong);
  return { ok: true, record: { header, bytes }, next: at + size.recordBytes };
}

/** Only how long the record at `at` claims to be, from its header alone: what a reader of a file needs before it reads the payload. */
export function readRecordSize(buffer: Buffer, at = 0): { readonly ok: true; readonly recordBytes: number } | ({ readonly ok: false } & RecordRefusal) {
  if (buffer.length - at < recordHeaderBytes) return refuse('truncated', `${buffer.length - at} bytes are no header`);
  if (buffer.readUInt32LE(at + 8) !== recordMagic) {
    return isBlank(buffer, at) ? refuse('blank', 'unwritten') : refuse('magic', 'no record starts here');
  }
  const payloadBytes = buffer.readUInt32LE(at + 68);
  if (payloadBytes > payloadBytesMax) return refuse('bounds', `payload of ${payloadBytes} bytes`);
  return { ok: true, recordBytes: recordHeaderBytes + payloadBytes };
}

function boundsFault(header: RecordHeader, reserved: bigint): string | null {
  if (reserved !== 0n) return 'reserved bytes are set';
  if (header.disk >= diskCountMax) return `disk ${header.disk}`;
  switch (header.kind) {
    case 'data':
      if (header.length === 0 || header.length > runBytesMax) return `run of ${header.length} bytes`;
      if (header.codec === 'none' ? header.payloadBytes !== header.length : header.payloadBytes === 0 || header.payloadBytes >= header.length) {
        return `payload of ${header.payloadBytes} bytes for a run of ${header.length}`;
      }
      break;
    case 'zero':
      if (header.length === 0 || header.length > zeroRunBytesMax) return `zero run of ${header.length} bytes`;
      if (header.payloadBytes !== 0 || header.codec !== 'none') return 'zero record with a payload';
      break;
    case 'open': case 'part': case 'seal':
      if (header.length !== 0 || header.offset !== 0 || header.disk !== 0 || header.codec !== 'none') return `${header.kind} record with a run`;
      if (header.payloadBytes > sealPayloadBytesMax) return `${header.kind} payload of ${header.payloadBytes} bytes`;
      break;
    default: header.kind satisfies never;
  }
  if (header.offset % sectorBytes !== 0 || header.length % sectorBytes !== 0) return 'not on sectors';
  return null;
}

function isBlank(buffer: Buffer, at: number): boolean {
  for (let i = at; i < at + recordHeaderBytes; i++) if (buffer[i] !== 0) return false;
  return true;
}

function refuse(fault: RecordFault, detail: string): { readonly ok: false } & RecordRefusal {
  return { ok: false, fault, detail };
}
