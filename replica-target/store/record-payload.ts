/**
 * A data record's run of bytes, decompressed. What snappy claims to unpack to is checked before memory is taken for it, so that
 * no record can make the target allocate more than a run.
 */
import { uncompress, uncompressSync } from 'snappy';
import type { RecordHeader, RecordView } from '../../journal/record.ts';
import { recordHeaderBytes } from '../../journal/limits.ts';

/** Below this a thread costs more than the work. */
const inlineBytesMax = 16 * 1024;

/** Null when the payload of a data record is what its header says; else why not. Reads five bytes at most. */
export function payloadFault({ header, bytes }: RecordView): string | null {
  if (header.kind !== 'data' || header.codec !== 'snappy') return null;
  const unpacked = snappyLength(bytes, recordHeaderBytes);
  return unpacked === header.length ? null : `compressed data of ${unpacked ?? 'unknown'} bytes in a run of ${header.length}`;
}

/** The run's bytes; null when the payload cannot be unpacked. `bytes`: the whole record. The result may be a view of it. */
export async function runBytes(header: RecordHeader, bytes: Buffer): Promise<Buffer | null> {
  const payload = bytes.subarray(recordHeaderBytes);
  if (header.codec === 'none') return payload;
  if (snappyLength(payload, 0) !== header.length) return null;
  let run: string | Buffer;
  try {
    run = header.length <= inlineBytesMax ? uncompressSync(payload, { asBuffer: true }) : await uncompress(payload, { asBuffer: true });
  } catch (error) {
    // Snappy throws plain errors, and only for bytes that are not its own.
    if (error instanceof Error) return null;
    throw error;
  }
  return Buffer.isBuffer(run) && run.length === header.length ? run : null;
}

/** The length at the start of a snappy block: a little-endian base-128 number (format_description.txt, section 1). */
function snappyLength(bytes: Buffer, at: number): number | null {
  let value = 0;
  for (let i = 0; i < 5; i++) {
    const byte = bytes[at + i];
    if (byte === undefined) return null;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return value;
  }
  return null;
}
