/**
 * The first 4,096 bytes of a journal segment (FORMAT.md, "Segment"): who it belongs to, where the chain of records stood
 * when it began, where its predecessor ended, and the witness of what is durable. Encodes and decodes; opens no file.
 */
import { xxh64 } from '@node-rs/xxhash';
import { sectorBytes } from '../../journal/limits.ts';
import type { Chain } from './record-order-plan.ts';

/** Records begin here. */
export const segmentHeaderBytes = 4096;
/** The witness has a sector of its own: a sector lands whole or not at all. */
export const witnessAt = sectorBytes;

/** "AIS1" and "AIW1", little-endian, at byte 8. */
const segmentMagic = 0x31534941;
const witnessMagic = 0x31574941;
export const segmentVersion = 1;
/** Bits of `flags`. */
const flagNewest = 1;
const flagOpen = 2;
const flagAtPart = 4;

export interface SegmentHeader {
  readonly groupId: string;
  readonly number: number;
  /** Where the records of segment `number - 1` end, known to be durable; 0 for a segment that has no predecessor. */
  readonly previousEnd: number;
  readonly chain: Chain;
}

export type SegmentHeaderReading =
  | { readonly ok: true; readonly header: SegmentHeader }
  | { readonly ok: false; readonly fault: 'corrupt' | 'newer'; readonly detail: string };

export function encodeSegmentHeader({ groupId, number, previousEnd, chain }: SegmentHeader): Buffer {
  const { newest, newestDeltaId, open } = chain;
  const bytes = Buffer.alloc(segmentHeaderBytes);
  bytes.writeUInt32LE(segmentMagic, 8);
  bytes.writeUInt16LE(segmentVersion, 12);
  bytes.write(groupId, 24, 16, 'hex');
  bytes.writeUInt32LE(number, 40);
  bytes.writeUInt32LE((newest === null ? 0 : flagNewest) | (open === null ? 0 : flagOpen) | (open?.isAtPart === true ? flagAtPart : 0), 44);
  bytes.writeBigUInt64LE(BigInt(previousEnd), 48);
  bytes.writeBigUInt64LE(BigInt(newest?.point ?? 0), 56);
  bytes.writeBigUInt64LE(newestDeltaId, 64);
  bytes.writeBigUInt64LE(BigInt(open?.point ?? 0), 72);
  bytes.writeBigUInt64LE(open?.deltaId ?? 0n, 80);
  bytes.writeUInt32LE(newest?.term ?? 0, 88);
  bytes.writeUInt32LE(open?.term ?? 0, 92);
  bytes.writeUInt32LE(open?.nextSequence ?? 0, 96);
  bytes.writeUInt32LE(open?.parts ?? 0, 100);
  bytes.writeBigUInt64LE(xxh64(bytes.subarray(8, sectorBytes)), 0);
  return bytes;
}

/** `bytes`: at least the first sector of a segment. */
export function decodeSegmentHeader(bytes: Buffer): SegmentHeaderReading {
  if (bytes.length < sectorBytes) return { ok: false, fault: 'corrupt', detail: `${bytes.length} bytes are no segment header` };
  if (bytes.readUInt32LE(8) !== segmentMagic) return { ok: false, fault: 'corrupt', detail: 'no segment header' };
  if (xxh64(bytes.subarray(8, sectorBytes)) !== bytes.readBigUInt64LE(0)) return { ok: false, fault: 'corrupt', detail: 'the segment header fails its checksum' };
  const version = bytes.readUInt16LE(12);
  const incompatible = bytes.readUInt32LE(16);
  if (version > segmentVersion || incompatible !== 0) return { ok: false, fault: 'newer', detail: `segment version ${version}, features ${incompatible.toString(16)}` };
  const flags = bytes.readUInt32LE(44);
  return {
    ok: true,
    header: {
      groupId: bytes.toString('hex', 24, 40),
      number: bytes.readUInt32LE(40),
      previousEnd: Number(bytes.readBigUInt64LE(48)),
      chain: {
        newest: (flags & flagNewest) === 0 ? null : { term: bytes.readUInt32LE(88), point: Number(bytes.readBigUInt64LE(56)) },
        newestDeltaId: bytes.readBigUInt64LE(64),
        open: (flags & flagOpen) === 0 ? null : {
          deltaId: bytes.readBigUInt64LE(80), term: bytes.readUInt32LE(92), point: Number(bytes.readBigUInt64LE(72)),
          nextSequence: bytes.readUInt32LE(96), parts: bytes.readUInt32LE(100), isAtPart: (flags & flagAtPart) !== 0,
        },
      },
    },
  };
}

/** Says that all records up to `end` were synced. Written after the sync that it speaks of, and itself not waited for. */
export function encodeWitness(groupId: string, number: number, end: number): Buffer {
  const bytes = Buffer.alloc(sectorBytes);
  bytes.writeUInt32LE(witnessMagic, 8);
  bytes.writeUInt32LE(number, 12);
  bytes.write(groupId, 16, 16, 'hex');
  bytes.writeBigUInt64LE(BigInt(end), 32);
  bytes.writeBigUInt64LE(xxh64(bytes.subarray(8)), 0);
  return bytes;
}

/** Where durable records end according to the witness; 0 when there is none for this segment. */
export function decodeWitness(bytes: Buffer, groupId: string, number: number): number {
  if (bytes.length < sectorBytes || bytes.readUInt32LE(8) !== witnessMagic) return 0;
  if (xxh64(bytes.subarray(8, sectorBytes)) !== bytes.readBigUInt64LE(0)) return 0;
  if (bytes.readUInt32LE(12) !== number || bytes.toString('hex', 16, 32) !== groupId) return 0;
  return Number(bytes.readBigUInt64LE(32));
}
