/** A disk in memory behind the NBD server, which checks what the server promises of each run. Not a suite. */
import { recordHeaderBytes, runBytesMax, zeroRunBytesMax } from '../../journal/limits.ts';
import type { NbdAllocation, NbdHandler } from '../../qemu/nbd-handler.ts';

export interface MemoryDisk {
  readonly bytes: Buffer;
  readonly handler: Required<NbdHandler>;
  readonly calls: { writes: number; zeroes: number; flushes: number; reads: number; zeroedBytes: number; writtenBytes: number };
}

export function memoryDisk(sizeBytes: number, fillByte = 0xee): MemoryDisk {
  const bytes = Buffer.alloc(sizeBytes, fillByte);
  const zeroes = Buffer.alloc(65536);
  const calls = { writes: 0, zeroes: 0, flushes: 0, reads: 0, zeroedBytes: 0, writtenBytes: 0 };
  const handler: Required<NbdHandler> = {
    async write(offset, buffer, headroomBytes) {
      const length = buffer.length - headroomBytes;
      if (headroomBytes !== recordHeaderBytes || length <= 0 || length > runBytesMax || offset + length > sizeBytes) throw new Error(`a run of ${length} bytes at ${offset}`);
      calls.writes += 1;
      calls.writtenBytes += length;
      // The header is the caller's to overwrite.
      buffer.fill(0xaa, 0, headroomBytes);
      await new Promise((resolve) => { setImmediate(resolve); });
      buffer.copy(bytes, offset, headroomBytes);
    },
    async zero(offset, length) {
      if (length <= 0 || length > zeroRunBytesMax || offset + length > sizeBytes) throw new Error(`zeroes of ${length} bytes at ${offset}`);
      calls.zeroes += 1;
      calls.zeroedBytes += length;
      bytes.fill(0, offset, offset + length);
    },
    async flush() { calls.flushes += 1; },
    async read(into, offset) {
      calls.reads += 1;
      await new Promise((resolve) => { setImmediate(resolve); });
      bytes.copy(into, 0, offset, offset + into.length);
    },
    async extents(offset, length) {
      const found: NbdAllocation[] = [];
      for (let at = offset; at < offset + length; at += 65536) {
        found.push({ lengthBytes: Math.min(65536, sizeBytes - at), isHole: bytes.subarray(at, at + 65536).equals(zeroes.subarray(0, Math.min(65536, sizeBytes - at))) });
      }
      return found;
    },
  };
  return { bytes, handler, calls };
}
