/**
 * An instant in a log that the kernel is writing. Three things stand between "it was written" and "it is in the log": the target
 * logs a write only with the next flush, its thread puts entries into the log some time later, and their headers and data are
 * requests of their own, so that a header may be there before its data or before the header in front of it (drivers/md/dm-log-writes.c).
 * Hence: flush the device, put a mark of our own behind that, wait until the mark can be reached from entry to entry, and then until
 * the log's device has no write under way. What stands before the mark is then whole, and is all that was written and completed
 * before the flush.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Clock } from '../../../host/clock.ts';
import type { Random } from '../../../host/random.ts';
import { Fault, isFault } from '../../../journal/fault.ts';
import type { LogEntry } from '../writelog/dm-log.ts';
import type { DirectFile } from './direct-file.ts';
import { LogWalk } from './log-walk.ts';

/** `dmsetup` may have to be loaded from a busy disk, ms. */
const markMsMax = 10_000;
/** How long a mark takes at most to come into the log, and the log's device to be without a write under way, ms. */
const arrivalMsMax = 10_000;
const lookMs = 2;

/** Right behind one of our marks: the mark is what makes sure that a log is the one that was noted. */
export interface LogPlace { readonly at: number; readonly markAt: number; readonly mark: string }

export interface Barrier {
  readonly place: LogPlace;
  /** What was logged between the place before and this one, in order; without marks. */
  readonly entries: readonly LogEntry[];
}

export type MarkWriter = (devicePath: string, text: string) => Promise<void>;

/** The target takes marks as messages. Faults: GUEST_UNSUITED. */
export const markByDmsetup: MarkWriter = async (devicePath, text) => {
  try {
    await promisify(execFile)('dmsetup', ['message', devicePath, '0', 'mark', text], { timeout: markMsMax });
  } catch (error) {
    throw new Fault('GUEST_UNSUITED', `dmsetup could not put a mark into the log of ${devicePath}: ${error instanceof Error ? error.message : String(error)}`, { devicePath }, error);
  }
};

export interface BarrierDeps { readonly clock: Clock; readonly random: Random; readonly writeMark: MarkWriter }

/** `from`: null for the log's beginning. Faults: LOG_BROKEN when the mark does not come, GUEST_UNSUITED. */
export async function raiseBarrier(deps: BarrierDeps, device: DirectFile, log: DirectFile, from: LogPlace | null): Promise<Barrier> {
  const mark = `afterimage-${deps.random.bytes(12).toString('hex')}`;
  await device.flush();
  await deps.writeMark(device.path, mark);
  const endMs = deps.clock.monotonicMs() + arrivalMsMax;
  for (;;) {
    const looked = await walkTo(log, from, mark);
    if (looked.place !== null) break;
    if (deps.clock.monotonicMs() > endMs) throw new Fault('LOG_BROKEN', `a mark did not come into the log ${log.path} within ${arrivalMsMax} ms: it is full, or not the log of ${device.path} (${looked.why})`, { log: log.path });
    await deps.clock.delay(lookMs);
  }
  while (await log.writesUnderWay() > 0) {
    if (deps.clock.monotonicMs() > endMs) throw new Fault('LOG_BROKEN', `the log ${log.path} had a write under way whenever it was looked at: its device is slower than what is written`, { log: log.path });
    await deps.clock.delay(lookMs);
  }
  // What was found on the way may have been what the device held before: all has arrived only now.
  const found = await walkTo(log, from, mark);
  if (found.place === null) throw new Fault('LOG_IMPLAUSIBLE', `the log ${log.path} changed behind its end: ${found.why}`, { log: log.path });
  return { place: found.place, entries: found.entries };
}

/** Whether the log is the one that was noted: its mark stands where it stood. */
export async function isPlaceOf(log: DirectFile, place: LogPlace): Promise<boolean> {
  try {
    const walk = await LogWalk.open(log);
    if (place.markAt < walk.sectorBytes || place.markAt % walk.sectorBytes !== 0) return false;
    const step = await (await LogWalk.open(log, { fromAt: place.markAt })).next();
    return step.kind === 'entry' && step.entry.mark?.toString('latin1') === place.mark && step.entry.endAt === place.at;
  } catch (error) {
    if (isFault(error) && error.code === 'LOG_IMPLAUSIBLE') return false;
    throw error;
  }
}

interface Walked { readonly place: LogPlace | null; readonly entries: LogEntry[]; readonly why: string }

async function walkTo(log: DirectFile, from: LogPlace | null, mark: string): Promise<Walked> {
  const entries: LogEntry[] = [];
  try {
    const walk = await LogWalk.open(log, from === null ? {} : { fromAt: from.at });
    for (;;) {
      const step = await walk.next();
      if (step.kind === 'end') return { place: null, entries, why: `it ends at ${step.at}` };
      const { entry } = step;
      if (entry.mark === null) entries.push(entry);
      else if (entry.mark.toString('latin1') === mark) return { place: { at: entry.endAt, markAt: entry.at, mark }, entries, why: '' };
    }
  } catch (error) {
    if (isFault(error) && error.code === 'LOG_IMPLAUSIBLE') return { place: null, entries, why: error.message };
    throw error;
  }
}
