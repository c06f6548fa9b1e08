/**
 * The delta image as it is before QEMU sees it: an empty qcow2 (QEMU's docs/interop/qcow2.txt, version 3, 64 KiB clusters)
 * that we lay out ourselves, because its end may have to hold a VHD footer already, and because all its refcount blocks are laid
 * down at once, so that QEMU allocates nothing but data clusters and L2 tables in it. Pure: makes bytes, opens no file.
 * delta-image-map.ts reads the image back.
 *
 * Invariant: at first nothing is allocated but the footer's cluster. What is allocated later is exactly what was copied.
 * Where the disk's length is no multiple of a cluster, its tail shares the footer's cluster; the tail is then filled with
 * random bytes, so that a tail that was copied can be told from one that was not.
 */
import assert from 'node:assert/strict';
import { diskBytesMax, sectorBytes } from '../../journal/limits.ts';
import { makeVhdFooter, vhdFooterBytes } from './vhd-footer.ts';

export const imageClusterBits = 16;
export const imageClusterBytes = 2 ** imageClusterBits;
/** Entries of 8 bytes in one cluster. */
export const tableEntries = imageClusterBytes / 8;
/** Bytes of the disk that one L2 table maps: 512 MiB. */
export const l2CoverBytes = tableEntries * imageClusterBytes;
/** Refcounts of 16 bits in one block: 32,768 clusters, 2 GiB of file. */
const refcountsPerBlock = imageClusterBytes / 2;
/** One cluster of refcount table is enough: 16 TiB of file. */
export const imageFileBytesMax = tableEntries * refcountsPerBlock * imageClusterBytes;

/** Bit 63 of an L1 or L2 entry: its cluster's refcount is exactly one (always so here). */
export const copiedFlag = 1n << 63n;

export interface DeltaImageLayout {
  readonly diskSizeBytes: number;
  /** Whether a VHD footer follows the disk's bytes. */
  readonly hasFooter: boolean;
  readonly virtualSizeBytes: number;
  readonly l1OffsetBytes: number;
  readonly l1Entries: number;
  /** Clusters in use before QEMU adds any. */
  readonly usedClusters: number;
  /** Length of the file, which it never exceeds. */
  readonly capBytes: number;
}

export interface DeltaImageHead {
  readonly layout: DeltaImageLayout;
  /** What the empty image holds other than zeroes. */
  readonly pieces: readonly { readonly at: number; readonly bytes: Buffer }[];
  /** The random bytes of the disk's tail in the footer's cluster; empty when they share none. */
  readonly tailPoison: Buffer;
}

/** Bytes of file that hold `dataBytes` of copied clusters, whatever their places on the disk. */
export function capForData(diskSizeBytes: number, dataBytes: number): number {
  const clusters = Math.min(Math.ceil(dataBytes / imageClusterBytes), Math.ceil(diskSizeBytes / imageClusterBytes));
  const l2Tables = Math.min(clusters, Math.ceil(diskSizeBytes / l2CoverBytes));
  const l1Clusters = Math.ceil(Math.ceil((diskSizeBytes + vhdFooterBytes) / l2CoverBytes) / tableEntries);
  // Header, refcount table, L1, the footer's L2 table and cluster; then one refcount block for each 32,767 clusters.
  const plain = 2 + l1Clusters + 2 + clusters + l2Tables;
  const blocks = Math.ceil(plain / (refcountsPerBlock - 1));
  return (plain + blocks) * imageClusterBytes;
}

export function makeDeltaImage(
  options: { readonly diskSizeBytes: number; readonly hasFooter: boolean; readonly capBytes: number; readonly randomBytes: (count: number) => Buffer },
): DeltaImageHead {
  const { diskSizeBytes, hasFooter, capBytes } = options;
  assert(diskSizeBytes > 0 && diskSizeBytes <= diskBytesMax && diskSizeBytes % sectorBytes === 0);
  assert(capBytes % imageClusterBytes === 0 && capBytes <= imageFileBytesMax);
  const virtualSizeBytes = diskSizeBytes + (hasFooter ? vhdFooterBytes : 0);
  const l1Entries = Math.ceil(virtualSizeBytes / l2CoverBytes);
  const blockCount = Math.ceil(capBytes / imageClusterBytes / refcountsPerBlock);
  const l1Cluster = 2 + blockCount;
  const footerL2Cluster = l1Cluster + Math.ceil(l1Entries / tableEntries);
  const usedClusters = footerL2Cluster + (hasFooter ? 2 : 0);
  assert(usedClusters * imageClusterBytes <= capBytes, 'the cap must hold the empty image');
  const layout: DeltaImageLayout = {
    diskSizeBytes, hasFooter, virtualSizeBytes, l1OffsetBytes: l1Cluster * imageClusterBytes, l1Entries, usedClusters, capBytes,
  };

  const refcountTable = Buffer.alloc(blockCount * 8);
  for (let block = 0; block < blockCount; block += 1) refcountTable.writeBigUInt64BE(BigInt((2 + block) * imageClusterBytes), block * 8);
  // At most 8,192 blocks, 2 other clusters, 16 of L1 and the footer's 2: all counted within the first block.
  assert(usedClusters <= refcountsPerBlock);
  const refcounts = Buffer.alloc(usedClusters * 2);
  for (let cluster = 0; cluster < usedClusters; cluster += 1) refcounts.writeUInt16BE(1, cluster * 2);
  const pieces = [
    { at: 0, bytes: makeHeader(layout) },
    { at: imageClusterBytes, bytes: refcountTable },
    { at: 2 * imageClusterBytes, bytes: refcounts },
  ];
  if (!hasFooter) return { layout, pieces, tailPoison: Buffer.alloc(0) };

  const tailBytes = diskSizeBytes % imageClusterBytes;
  const tailPoison = options.randomBytes(tailBytes);
  const footerL2 = footerL2Cluster * imageClusterBytes;
  const footerData = footerL2 + imageClusterBytes;
  pieces.push(
    { at: layout.l1OffsetBytes + Math.floor(diskSizeBytes / l2CoverBytes) * 8, bytes: tableEntry(footerL2) },
    { at: footerL2 + (Math.floor(diskSizeBytes / imageClusterBytes) % tableEntries) * 8, bytes: tableEntry(footerData) },
    { at: footerData, bytes: Buffer.concat([tailPoison, makeVhdFooter(diskSizeBytes)]) },
  );
  return { layout, pieces, tailPoison };
}

function tableEntry(offset: number): Buffer {
  const entry = Buffer.alloc(8);
  entry.writeBigUInt64BE(BigInt(offset) | copiedFlag);
  return entry;
}

function makeHeader(layout: DeltaImageLayout): Buffer {
  const header = Buffer.alloc(112); // 104 bytes, then the end of the header extensions
  header.write('QFI\xfb', 0, 'latin1');
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(imageClusterBits, 20);
  header.writeBigUInt64BE(BigInt(layout.virtualSizeBytes), 24);
  header.writeUInt32BE(layout.l1Entries, 36);
  header.writeBigUInt64BE(BigInt(layout.l1OffsetBytes), 40);
  header.writeBigUInt64BE(BigInt(imageClusterBytes), 48); // refcount table
  header.writeUInt32BE(1, 56); // its clusters
  header.writeUInt32BE(4, 96); // refcounts of 16 bits
  header.writeUInt32BE(104, 100); // header length
  return header;
}
