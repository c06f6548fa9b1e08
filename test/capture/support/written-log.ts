/**
 * Logs as the kernel's dm-log-writes target writes them, made by the test from the kernel's own description of the format, apart
 * from the product's decoder. Not a suite.
 */

export const flag = { FLUSH: 1, FUA: 2, DISCARD: 4, MARK: 8, METADATA: 16 } as const;

/** In sectors of the log. `data`: whole sectors of it; without it a discard's, or none. */
export interface MadeEntry { readonly sector?: number; readonly sectors?: number; readonly flags?: number; readonly data?: Buffer; readonly mark?: string | Buffer; readonly daxBytes?: number }

export function madeSuperblock(entries: number, sectorBytes: number): Buffer {
  const bytes = Buffer.alloc(sectorBytes);
  bytes.writeBigUInt64LE(0x6a736677736872n, 0);
  bytes.writeBigUInt64LE(1n, 8);
  bytes.writeBigUInt64LE(BigInt(entries), 16);
  bytes.writeUInt32LE(sectorBytes, 24);
  return bytes;
}

export function madeEntry({ sector = 0, sectors = 0, flags = 0, data = Buffer.alloc(0), mark, daxBytes = 0 }: MadeEntry, sectorBytes: number): Buffer {
  const head = Buffer.alloc(sectorBytes);
  const words = mark === undefined ? Buffer.alloc(0) : Buffer.from(mark as string);
  head.writeBigUInt64LE(BigInt(sector), 0);
  head.writeBigUInt64LE(BigInt(data.length > 0 ? data.length / sectorBytes : sectors), 8);
  head.writeBigUInt64LE(BigInt(mark === undefined ? flags : flags | flag.MARK), 16);
  head.writeBigUInt64LE(BigInt(mark === undefined ? daxBytes : words.length), 24);
  words.copy(head, 32);
  return Buffer.concat([head, data]);
}

export function madeLog(entries: readonly MadeEntry[], sectorBytes = 512, counted = entries.length): Buffer {
  return Buffer.concat([madeSuperblock(counted, sectorBytes), ...entries.map((entry) => madeEntry(entry, sectorBytes))]);
}
