/** Files that QEMU or the kernel write for us and a guest has a hand in: write logs, delta images. */
import { mapDeltaImage } from '../../daemon/capture/delta-image-map.ts';
import { capForData, copiedFlag, imageClusterBytes, makeDeltaImage } from '../../daemon/capture/delta-image.ts';
import { LogWalk } from '../../daemon/capture/dm-log/log-walk.ts';
import { decodeLogEntry, logFlags, logMagic, logVersion } from '../../daemon/capture/writelog/dm-log.ts';
import { Fault } from '../../journal/fault.ts';
import type { Decoder } from './decoder.ts';

function superblock(entries: number, sectorBytes: number): Buffer {
  const bytes = Buffer.alloc(sectorBytes);
  bytes.writeBigUInt64LE(logMagic, 0);
  bytes.writeBigUInt64LE(logVersion, 8);
  bytes.writeBigUInt64LE(BigInt(entries), 16);
  bytes.writeUInt32LE(sectorBytes, 24);
  return bytes;
}

function entry(sectorBytes: number, sector: number, sectors: number, flags: number, more = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(sectorBytes);
  [sector, sectors, flags, (flags & logFlags.mark) === 0 ? 0 : more.length].forEach((value, index) => head.writeBigUInt64LE(BigInt(value), 8 * index));
  if ((flags & logFlags.mark) === 0) return Buffer.concat([head, more]);
  more.copy(head, 32);
  return head;
}

const diskBytes = 1024 ** 2;

const dmLog: Decoder = {
  name: 'dm-log', faults: ['LOG_IMPLAUSIBLE'], inputBytesMax: 256 * 1024, bufferBytesMax: (inputBytes) => 8.5 * 1024 ** 2 + 8 * inputBytes,
  seeds: () => [512, 4096].map((sectorBytes) => Buffer.concat([
    superblock(4, sectorBytes), entry(sectorBytes, 8, 1, 0, Buffer.alloc(sectorBytes, 1)), entry(sectorBytes, 0, 0, logFlags.flush), entry(sectorBytes, 0, 0, logFlags.mark, Buffer.from('cut 1')),
    entry(sectorBytes, 16, 4, logFlags.discard),
  ])),
  async decode(input) {
    const walk = await LogWalk.open({ async read(into, at) { return at >= input.length ? 0 : input.copy(into, 0, at); } });
    for (let last = 0; ;) {
      const step = await walk.next();
      if (step.kind === 'end') return;
      if (step.entry.endAt <= last) throw new Error('the walk does not go on');
      last = step.entry.endAt;
      decodeLogEntry(input.subarray(step.entry.at, step.entry.at + walk.sectorBytes), step.entry.at, walk.sectorBytes, diskBytes);
    }
  },
};

const imageHead = makeDeltaImage({ diskSizeBytes: diskBytes, hasFooter: false, capBytes: capForData(diskBytes, diskBytes), randomBytes: (count) => Buffer.alloc(count, 5) });
const headerBytes = 104;
const l1Bytes = imageHead.layout.l1Entries * 8;

/** Header, L1 and the beginning of one L2 table, which stands wherever an L1 entry points. */
const deltaImage: Decoder = {
  name: 'delta-image', faults: ['DELTA_BROKEN'], inputBytesMax: headerBytes + l1Bytes + 8192, bufferBytesMax: () => 1024 ** 2,
  seeds() {
    const { layout, pieces } = imageHead;
    const tables = Buffer.alloc(l1Bytes + 16 * 8);
    tables.writeBigUInt64BE(BigInt(layout.usedClusters * imageClusterBytes) | copiedFlag, 0);
    for (const [at, cluster] of [1, 2, 4].entries()) tables.writeBigUInt64BE(BigInt((layout.usedClusters + cluster) * imageClusterBytes) | copiedFlag, l1Bytes + at * 16);
    tables.writeBigUInt64BE(1n, l1Bytes + 8);
    return [Buffer.concat([pieces[0]!.bytes.subarray(0, headerBytes), tables])];
  },
  async decode(input) {
    const { layout } = imageHead;
    const found = await mapDeltaImage(imageHead, async (into, at) => {
      const from = at === 0 ? 0 : at === layout.l1OffsetBytes ? headerBytes : headerBytes + l1Bytes;
      if (at + into.length > layout.capBytes) throw new Fault('DELTA_BROKEN', 'beyond the file');
      into.fill(0);
      input.copy(into, 0, from, at === layout.l1OffsetBytes ? from + l1Bytes : from + into.length);
    });
    for (let index = 0, last = 0; index < found.count; index += 1) {
      const { offset, length, hostOffset } = found.at(index);
      if (offset < last || length <= 0 || offset + length > diskBytes) throw new Error(`an extent of ${length} at ${offset}`);
      if (hostOffset !== 'zero' && hostOffset + length > layout.capBytes) throw new Error(`an extent at ${hostOffset} of the file`);
      last = offset + length;
    }
  },
};

export const captureDecoders: readonly Decoder[] = [dmLog, deltaImage];
