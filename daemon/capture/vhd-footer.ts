/**
 * The 512-byte footer of a fixed VHD ("Virtual Hard Disk Image Format Specification" 1.0, "Hard Disk Footer Format"), as
 * `qemu-img create -f vpc -o subformat=fixed,force_size=on` writes it. It stands behind the disk's bytes, which begin at 0.
 * We have no use for VHD itself: see delta-target.ts for why a layer of it is in the way of a copy. Pure.
 */
import assert from 'node:assert/strict';
import { sectorBytes } from '../../journal/limits.ts';

export const vhdFooterBytes = 512;

/** QEMU's limit (block/vpc.c, VHD_MAX_SECTORS): 2,040 GiB. */
export const vhdDiskBytesMax = 0xff000000 * 512;

export function makeVhdFooter(diskSizeBytes: number): Buffer {
  assert(diskSizeBytes > 0 && diskSizeBytes <= vhdDiskBytesMax && diskSizeBytes % sectorBytes === 0);
  const footer = Buffer.alloc(vhdFooterBytes);
  footer.write('conectix', 0, 'latin1');
  footer.writeUInt32BE(2, 8); // features: reserved, always set
  footer.writeUInt32BE(0x00010000, 12); // version 1.0
  footer.writeBigUInt64BE(0xffffffffffffffffn, 16); // data offset: none, as the image is fixed
  // Creator "qem2": QEMU takes the size from the field below, not from the geometry, which cannot express most sizes.
  footer.write('qem2', 28, 'latin1');
  footer.writeUInt32BE(0x00050003, 32);
  footer.write('Wi2k', 36, 'latin1');
  footer.writeBigUInt64BE(BigInt(diskSizeBytes), 40);
  footer.writeBigUInt64BE(BigInt(diskSizeBytes), 48);
  footer.writeUInt32BE(0xffff10ff, 56); // largest geometry, as QEMU writes it with force_size
  footer.writeUInt32BE(2, 60); // fixed
  let sum = 0;
  for (const byte of footer) sum += byte;
  footer.writeUInt32BE(~sum >>> 0, 64);
  return footer;
}
