/**
 * Where the kernel's log does not tell which of two writes came last. The target logs a write with FUA or FLUSH as soon as it is
 * completed, any other with the next flush: of two over each other, the one that is logged later may be the older one
 * (drivers/md/dm-log-writes.c, `normal_end_io`). Across a barrier there is no such doubt. Pure.
 */
import { logFlags, type LogEntry } from '../writelog/dm-log.ts';

export interface Stretch { readonly offset: number; readonly length: number }

const chunkBytes = 256 * 1024;
const atOnce = logFlags.fua | logFlags.flush;
const notWritten = logFlags.discard | logFlags.mark;

/** `entries`: between two barriers, in order. */
export function findDoubtful(entries: readonly LogEntry[]): Stretch[] {
  const logged = new Map<number, Stretch[]>();
  const found: Stretch[] = [];
  for (const { offset, length, flags } of entries) {
    if (length === 0 || (flags & notWritten) !== 0) continue;
    const end = offset + length;
    for (let chunk = Math.floor(offset / chunkBytes); chunk * chunkBytes < end; chunk += 1) {
      const earlier = logged.get(chunk);
      if ((flags & atOnce) !== 0) {
        if (earlier === undefined) logged.set(chunk, [{ offset, length }]);
        else earlier.push({ offset, length });
        continue;
      }
      for (const one of earlier ?? []) {
        const [from, to] = [Math.max(offset, one.offset, chunk * chunkBytes), Math.min(end, one.offset + one.length, (chunk + 1) * chunkBytes)];
        if (from < to) found.push({ offset: from, length: to - from });
      }
    }
  }
  return found;
}
