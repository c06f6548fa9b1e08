/**
 * The log of the kernel's dm-log-writes target (Documentation/admin-guide/device-mapper/log-writes.rst; the structures are in
 * drivers/md/dm-log-writes.c), which QEMU's `blklogwrites` filter writes as well (block/blklogwrites.c). All numbers are
 * little-endian. Sector 0 is the superblock; entries follow each other from sector 1 on, each one sector, then its data:
 *
 *   superblock  0 magic u64 | 8 version u64 | 16 entries u64 | 24 bytes of a sector u32 | zeroes
 *   entry       0 sector u64 | 8 sectors u64 | 16 flags u64 | 24 bytes of the mark u64 | the mark | zeroes
 *
 * A mark writes nothing. Kernels from 4.15 to 5.17 log a DAX write with its length in bytes at 24, which fills its sectors.
 *
 * Pure: decodes bytes, opens nothing. Whatever cannot be one of these is LOG_IMPLAUSIBLE, never a guess.
 */
import { Fault } from '../../../journal/fault.ts';

export const logMagic = 0x6a736677736872n;
export const logVersion = 1n;

/** Bits of an entry's flags. QEMU writes the first three. */
export const logFlags = { flush: 1, fua: 2, discard: 4, mark: 8, metadata: 16 } as const;
const knownFlags = 31n;

const superblockBytes = 28;
const entryBytes = 32;
/** A sector of a log: QEMU takes powers of two from 512 up to this (`log-sector-size`), the kernel the logical block's size. */
const logSectorBytesMax = 8 * 1024 * 1024;
/** QEMU splits nothing before the log, and takes requests below 2 GiB; the kernel's are far smaller. */
const dataBytesMax = 2 ** 31;

export interface LogSuperblock {
  /** Entries that there are at least: it is written now and then only. */
  readonly entries: number;
  readonly sectorBytes: number;
}

export interface LogEntry {
  /** Where in the log the entry begins, and where the next one does. */
  readonly at: number;
  readonly endAt: number;
  /** Where in the log its data begins; equal to `endAt` when it has none. */
  readonly dataAt: number;
  /** On the disk, bytes. */
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
  /** The words of a mark, as they were written; null for any other entry. */
  readonly mark: Buffer | null;
  /** A DAX write of older kernels, whose data is told in bytes as well. QEMU makes none. */
  readonly isDax: boolean;
}

/** Fault LOG_IMPLAUSIBLE. */
export function decodeLogSuperblock(bytes: Buffer): LogSuperblock {
  if (bytes.length < superblockBytes) throw implausible('the log is shorter than its superblock');
  if (bytes.readBigUInt64LE(0) !== logMagic) throw implausible('no superblock of a write log stands at its start');
  const version = bytes.readBigUInt64LE(8);
  if (version !== logVersion) throw implausible(`the log is of version ${version}, not ${logVersion}`);
  const entries = bytes.readBigUInt64LE(16);
  const sectorBytes = bytes.readUInt32LE(24);
  const isPower = sectorBytes >= 512 && sectorBytes <= logSectorBytesMax && (sectorBytes & (sectorBytes - 1)) === 0;
  if (!isPower || entries > BigInt(Number.MAX_SAFE_INTEGER)) throw implausible(`the superblock says ${entries} entries, sectors of ${sectorBytes} bytes`);
  return { entries: Number(entries), sectorBytes };
}

/**
 * `bytes`: at least the entry's whole sector, which stands in the log at `at`. `diskBytes`: of the disk that is logged; without it
 * places are checked against nothing. Null: nothing was written here (the sector is all zeroes). Fault LOG_IMPLAUSIBLE.
 */
export function decodeLogEntry(bytes: Buffer, at: number, sectorBytes: number, diskBytes?: number): LogEntry | null {
  const sector = bytes.readBigUInt64LE(0);
  const sectors = bytes.readBigUInt64LE(8);
  const flags = bytes.readBigUInt64LE(16);
  const markBytes = bytes.readBigUInt64LE(24);
  if (flags > knownFlags) throw implausible(`the entry at ${at} has flags ${flags.toString(16)}`, at);
  const isMark = (Number(flags) & logFlags.mark) !== 0;
  if (isMark && (sector !== 0n || sectors !== 0n)) throw implausible(`the entry at ${at} is a mark of ${sectors} sectors`, at);
  const isDax = !isMark && markBytes > 0n;
  const isDaxFitting = markBytes <= sectors * BigInt(sectorBytes) && markBytes > (sectors - 1n) * BigInt(sectorBytes);
  if (isDax ? !isDaxFitting : markBytes > BigInt(sectorBytes - entryBytes)) throw implausible(`the entry at ${at} has ${markBytes} bytes of a mark`, at);
  const bodyEnd = entryBytes + (isMark ? Number(markBytes) : 0);
  if (!isZero(bytes, bodyEnd, sectorBytes)) throw implausible(`the entry at ${at} is not followed by zeroes`, at);
  if (flags === 0n && sectors === 0n) {
    if (sector === 0n) return null;
    throw implausible(`the entry at ${at} writes nothing`, at);
  }
  const [offset, length] = [Number(sector) * sectorBytes, Number(sectors) * sectorBytes];
  const isDiscard = (Number(flags) & logFlags.discard) !== 0;
  const isWithin = diskBytes === undefined ? Number.isSafeInteger(offset + length) : offset + length <= diskBytes;
  if (!isWithin) throw implausible(`the entry at ${at} lies at ${offset} + ${length}, beyond the disk`, at);
  const dataBytes = isDiscard ? 0 : length;
  if (dataBytes > dataBytesMax) throw implausible(`the entry at ${at} writes ${dataBytes} bytes at once`, at);
  const dataAt = at + sectorBytes;
  return {
    at, dataAt, endAt: dataAt + dataBytes, offset, length, flags: Number(flags),
    mark: isMark ? Buffer.from(bytes.subarray(entryBytes, bodyEnd)) : null, isDax,
  };
}

function isZero(bytes: Buffer, from: number, to: number): boolean {
  for (let at = from; at < to; at += 1) if (bytes[at] !== 0) return false;
  return true;
}

function implausible(what: string, at?: number): Fault {
  return new Fault('LOG_IMPLAUSIBLE', what, at === undefined ? {} : { at });
}
