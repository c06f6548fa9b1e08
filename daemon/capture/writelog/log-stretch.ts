/**
 * One stretch of one log, from an entry's boundary to another's, read in order. Where it ends is not known beforehand: a cut says
 * how many bytes of the log's node had been written by then (`writtenBytes`, the count of a dirty bitmap of 512 bytes), and as the
 * log is append-only these are its entries, and its superblock's sector if that was written. QEMU writes the superblock with each
 * flush that it logs, and (as we set the interval) at no other time: so a flush among the entries up to the cut says whether the
 * count has that sector in it.
 *
 * Invariant: the entries given out are all that lay before the cut, each whole; else LOG_IMPLAUSIBLE.
 */
import { Fault } from '../../../journal/fault.ts';
import { decodeLogEntry, logFlags, type LogEntry } from './dm-log.ts';

export const logSectorBytes = 512;

/** Where in a log one stands: before the entry at `at`; `hasFlush`: one of the entries before it is a flush. */
export interface LogPosition { readonly at: number; readonly hasFlush: boolean }

export const logStart: LogPosition = { at: logSectorBytes, hasFlush: false };

/** What is read at once; large writes are mostly passed over. */
const windowBytes = 256 * 1024;

export interface LogSource {
  /** All of [at, at + length) into `into` from `intoAt` on. */
  read(into: Buffer, intoAt: number, length: number, at: number): Promise<void>;
  readonly sizeBytes: number;
}

export interface LogWindow { readonly at: number; readonly bytes: Buffer }

/**
 * Calls back with each entry from `from` up to the cut; resolves with where the cut is. `onWindow` is given what was read on the
 * way, in order, without gaps but for data that was passed over.
 */
export async function readStretch(
  log: LogSource, from: LogPosition, writtenBytes: number, diskBytes: number, onEntry: (entry: LogEntry) => void, onWindow?: (window: LogWindow) => void,
): Promise<LogPosition> {
  let { at, hasFlush } = from;
  let window: LogWindow = { at: 0, bytes: Buffer.alloc(0) };
  for (;;) {
    const endAt = hasFlush || writtenBytes === 0 ? Math.max(writtenBytes, logSectorBytes) : writtenBytes + logSectorBytes;
    if (at === endAt) return { at, hasFlush };
    if (at > endAt) throw new Fault('LOG_IMPLAUSIBLE', `the cut at ${endAt} is no entry’s boundary, ${at} is`, { at, endAt });
    if (at + logSectorBytes > log.sizeBytes) throw new Fault('LOG_BROKEN', `the log reaches beyond its bound of ${log.sizeBytes} bytes`, { at, sizeBytes: log.sizeBytes });
    if (at + logSectorBytes > window.at + window.bytes.length || at < window.at) {
      const length = Math.min(windowBytes, Math.max(endAt - at, logSectorBytes), log.sizeBytes - at);
      const bytes = Buffer.allocUnsafe(length);
      await log.read(bytes, 0, length, at);
      window = { at, bytes };
      onWindow?.(window);
    }
    const entry = decodeLogEntry(window.bytes.subarray(at - window.at, at - window.at + logSectorBytes), at, logSectorBytes, diskBytes);
    if (entry === null) throw new Fault('LOG_IMPLAUSIBLE', `the log has no entry at ${at}, before the cut at ${endAt}`, { at, endAt });
    if (entry.endAt > log.sizeBytes) throw new Fault('LOG_BROKEN', `the log reaches beyond its bound of ${log.sizeBytes} bytes`, { at, sizeBytes: log.sizeBytes });
    if (entry.mark !== null || entry.isDax) throw new Fault('LOG_IMPLAUSIBLE', `the entry at ${at} is ${entry.isDax ? 'a DAX write' : 'a mark'}, which QEMU makes none of`, { at });
    if ((entry.flags & logFlags.flush) !== 0) hasFlush = true;
    onEntry(entry);
    at = entry.endAt;
  }
}
