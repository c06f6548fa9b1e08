/** That a measured copy is a copy: a benchmark that anyone could win without the work would say nothing. */
import { open } from 'node:fs/promises';

const chunkBytes = 4 * 1024 * 1024;

/** Throws, saying where, when the files differ. */
export async function demandSameContent(path: string, other: string): Promise<void> {
  const [one, two] = [await open(path, 'r'), await open(other, 'r')];
  try {
    const [a, b] = [Buffer.allocUnsafe(chunkBytes), Buffer.allocUnsafe(chunkBytes)];
    for (let at = 0; ; at += chunkBytes) {
      const read = await Promise.all([one.read(a, 0, chunkBytes, at), two.read(b, 0, chunkBytes, at)]);
      if (read[0].bytesRead !== read[1].bytesRead || !a.subarray(0, read[0].bytesRead).equals(b.subarray(0, read[0].bytesRead))) {
        throw new Error(`${other} is not what ${path} is, somewhere within ${chunkBytes} bytes of ${at}`);
      }
      if (read[0].bytesRead < chunkBytes) return;
    }
  } finally {
    await one.close();
    await two.close();
  }
}
