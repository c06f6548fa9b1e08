/**
 * Reads which clusters of a delta image (delta-image.ts) QEMU has written: its L1 and L2 tables, straight from the file, once
 * the image's nodes are gone from QEMU. Knows exactly the images that we lay out: fresh, without backing file, compression,
 * snapshots or external data. Anything else, or a table that contradicts itself, is DELTA_BROKEN, never a guess.
 *
 * Invariant: what it returns lies within the disk and within the file, in order of offset, no two at the same place of the file.
 */
import { Fault } from '../../journal/fault.ts';
import { imageClusterBytes, l2CoverBytes, tableEntries, type DeltaImageHead } from './delta-image.ts';

/** Reads all of `into` at `at`, or rejects. */
export type ReadImage = (into: Buffer, at: number) => Promise<void>;

/** Clusters side by side, on the disk and (when data) in the file. */
export interface ImageExtent { readonly offset: number; readonly length: number; readonly hostOffset: number | 'zero' }

const zeroFlag = 1n;
const offsetMask = 0x00fffffffffffe00n;
const copied = 1n << 63n;

/** Compact, as a delta may have a million extents: three numbers each, host offset -1 for zeroes. */
export class ExtentList {
  #numbers = new Float64Array(3 * 64);
  #count = 0;
  #bytes = 0;

  get count(): number { return this.#count; }
  get bytes(): number { return this.#bytes; }

  at(index: number): ImageExtent {
    const hostOffset = this.#numbers[index * 3 + 2]!;
    return { offset: this.#numbers[index * 3]!, length: this.#numbers[index * 3 + 1]!, hostOffset: hostOffset < 0 ? 'zero' : hostOffset };
  }

  /** Joins with the last one where both places continue it. */
  append(offset: number, length: number, hostOffset: number | 'zero'): void {
    const host = hostOffset === 'zero' ? -1 : hostOffset;
    this.#bytes += length;
    if (this.#count > 0) {
      const last = (this.#count - 1) * 3;
      const lastLength = this.#numbers[last + 1]!;
      const lastHost = this.#numbers[last + 2]!;
      const continues = host < 0 ? lastHost < 0 : lastHost >= 0 && lastHost + lastLength === host;
      if (continues && this.#numbers[last]! + lastLength === offset) {
        this.#numbers[last + 1] = lastLength + length;
        return;
      }
    }
    if (this.#count * 3 === this.#numbers.length) {
      const grown = new Float64Array(this.#numbers.length * 2);
      grown.set(this.#numbers);
      this.#numbers = grown;
    }
    this.#numbers.set([offset, length, host], this.#count * 3);
    this.#count += 1;
  }
}

export async function mapDeltaImage(head: DeltaImageHead, read: ReadImage): Promise<ExtentList> {
  const { layout, tailPoison } = head;
  await checkHeader(head, read);
  const found = new ExtentList();
  const taken = new HostClusters(layout.usedClusters, layout.capBytes);
  const l1 = Buffer.alloc(layout.l1Entries * 8);
  await read(l1, layout.l1OffsetBytes);
  const l2 = Buffer.alloc(imageClusterBytes);
  const footerCluster = layout.hasFooter ? Math.floor(layout.diskSizeBytes / imageClusterBytes) : -1;
  let isFooterSeen = false;
  for (let l1Index = 0; l1Index < layout.l1Entries; l1Index += 1) {
    const l2Offset = plainOffset(l1.readBigUInt64BE(l1Index * 8), `L1 entry ${l1Index}`);
    if (l2Offset === 0) continue;
    taken.take(l2Offset, isPreallocated(l1Index, footerCluster), `L1 entry ${l1Index}`);
    await read(l2, l2Offset);
    for (let l2Index = 0; l2Index < tableEntries; l2Index += 1) {
      const entry = l2.readBigUInt64BE(l2Index * 8);
      if (entry === 0n) continue;
      const cluster = l1Index * tableEntries + l2Index;
      const offset = cluster * imageClusterBytes;
      const where = `L2 entry of disk offset ${offset}`;
      if (offset >= layout.virtualSizeBytes) throw broken(`${where} lies beyond the image's end`);
      const host = plainOffset(entry & ~zeroFlag, where);
      if (host !== 0) taken.take(host, cluster === footerCluster, where);
      const length = Math.min(imageClusterBytes, layout.diskSizeBytes - offset);
      if (cluster === footerCluster) {
        if (host === 0 || (entry & zeroFlag) !== 0n) throw broken(`${where} lost the footer's cluster`);
        isFooterSeen = true;
        if (length <= 0) continue; // the footer alone
        const tail = Buffer.alloc(tailPoison.length);
        await read(tail, host);
        if (tail.equals(tailPoison)) continue; // never copied
      }
      found.append(offset, length, (entry & zeroFlag) !== 0n ? 'zero' : host);
    }
  }
  if (layout.hasFooter && !isFooterSeen) throw broken('the footer is gone');
  return found;
}

function isPreallocated(l1Index: number, footerCluster: number): boolean {
  return footerCluster >= 0 && Math.floor(footerCluster * imageClusterBytes / l2CoverBytes) === l1Index;
}

/** The header must be the one that we wrote: QEMU sets a bit in it when it finds the image corrupt. */
async function checkHeader(head: DeltaImageHead, read: ReadImage): Promise<void> {
  const wrote = head.pieces[0]!.bytes;
  const now = Buffer.alloc(104);
  await read(now, 0);
  // Autoclear bits (88) and compatible bits (80) may be touched by QEMU without meaning for us; incompatible ones (72) not.
  if (!now.subarray(0, 80).equals(wrote.subarray(0, 80)) || !now.subarray(96, 104).equals(wrote.subarray(96, 104))) throw broken('the header is not the one that was written');
}

/** The offset in an entry that may have no other flag than "copied". */
function plainOffset(entry: bigint, where: string): number {
  if ((entry & ~(offsetMask | copied)) !== 0n) throw broken(`${where} has flags that this image cannot have: ${entry.toString(16)}`);
  const offset = Number(entry & offsetMask);
  if (offset % imageClusterBytes !== 0) throw broken(`${where} is not aligned: ${entry.toString(16)}`);
  return offset;
}

/** Which clusters of the file are spoken for. */
class HostClusters {
  readonly #bits: Uint8Array;
  readonly #count: number;
  readonly #first: number;

  constructor(usedClusters: number, capBytes: number) {
    this.#count = capBytes / imageClusterBytes;
    this.#first = usedClusters;
    this.#bits = new Uint8Array(Math.ceil(this.#count / 8));
  }

  /** `isOld`: it may be one of those that were there before QEMU wrote. */
  take(offset: number, isOld: boolean, where: string): void {
    const cluster = offset / imageClusterBytes;
    const isWithin = cluster < this.#count && (cluster >= this.#first || isOld);
    if (!isWithin) throw broken(`${where} points to ${offset}, outside the image's data`);
    const bit = 1 << (cluster % 8);
    const byte = cluster >>> 3;
    if ((this.#bits[byte]! & bit) !== 0) throw broken(`${where} points to ${offset}, which another entry has already`);
    this.#bits[byte]! |= bit;
  }
}

function broken(what: string): Fault {
  return new Fault('DELTA_BROKEN', `the delta image's tables cannot be trusted: ${what}`);
}
