/** Copies a raw image into a replica, sparsely: what is a hole there stays a hole here. Cut or grown to the disk's size. */
import { Fault } from '../../journal/fault.ts';
import type { Disk, DiskFile } from '../../host/disk.ts';
import type { Replica } from './replica.ts';
import { errorCode } from './store-fault.ts';

const chunkBytes = 1024 * 1024;

/** Faults: REQUEST_INVALID when the image cannot be opened. */
export async function copyImage(disk: Disk, imagePath: string, replica: Replica, index: number, sizeBytes: number): Promise<void> {
  let from: DiskFile;
  try {
    from = await disk.open(imagePath, 'read');
  } catch (error) {
    const code = errorCode(error);
    if (code !== null) throw new Fault('REQUEST_INVALID', `${imagePath} cannot be read (${code})`, { path: imagePath }, error);
    throw error;
  }
  try {
    await replica.resize(index, 0);
    await replica.resize(index, sizeBytes);
    const to = await replica.file(index);
    const buffer = Buffer.allocUnsafe(chunkBytes);
    for (let data = await from.nextData(0); data !== null && data.start < sizeBytes; data = await from.nextData(data.end)) {
      const end = Math.min(data.end, sizeBytes);
      for (let at = data.start; at < end; at += chunkBytes) {
        const read = await from.read(buffer, 0, Math.min(chunkBytes, end - at), at);
        await to.write(buffer.subarray(0, read), at);
      }
    }
  } finally {
    await from.close();
  }
}
