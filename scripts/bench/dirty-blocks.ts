/** Writes scattered whole blocks to the stand-in's disk, as a guest would: other ones and other bytes in each round, the same in each run. */
import { connectNbd } from '../../qemu/nbd-client.ts';
import { Content, seededDraw } from './disk-image.ts';
import { exportName } from './stand-in.ts';

export const blockBytes = 64 * 1024;
const underWayMax = 16;

/** Returns how many bytes were made dirty: `share` of the disk, no block twice. */
export async function writeDirtyBlocks(nbdPath: string, sizeBytes: number, share: number, round: number): Promise<number> {
  const count = Math.floor(sizeBytes / blockBytes * share);
  const blocks = chooseBlocks(sizeBytes / blockBytes, count, round + 1);
  const content = new Content(1000 + round);
  const client = await connectNbd({ path: nbdPath, exportName, requestsMax: underWayMax });
  const waiting = blocks.values();
  // Two thirds random, one third text: the image's proportions without its holes.
  const write = async (): Promise<void> => {
    for (const block of waiting) await client.write(block % 3 === 0 ? content.text(blockBytes) : content.random(blockBytes), block * blockBytes);
  };
  await Promise.all(Array.from({ length: underWayMax }, write));
  await client.flush();
  await client.close();
  return count * blockBytes;
}

/** `count` different numbers below `limit`, in no order (Fisher and Yates, as far as needed). */
export function chooseBlocks(limit: number, count: number, seed: number): number[] {
  const draw = seededDraw(seed * 0x9e3779b1);
  const all = Array.from({ length: limit }, (_, index) => index);
  for (let at = 0; at < count; at++) {
    const other = at + draw(limit - at);
    [all[at], all[other]] = [all[other]!, all[at]!];
  }
  return all.slice(0, count);
}
