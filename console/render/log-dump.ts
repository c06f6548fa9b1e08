/**
 * A write log as text and as JSON: its superblock, a line for each entry, and what they come to. Pure. Places and lengths are plain
 * bytes, to be copied into other tools; entries are numbered from 0, as the kernel's tools for such logs do.
 */
import { logFlags, type LogEntry, type LogSuperblock } from '../../daemon/capture/writelog/dm-log.ts';
import type { LogEndKind } from '../../daemon/capture/dm-log/log-walk.ts';
import { tint, type Look } from './look.ts';
import { formatBytes, printable } from './units.ts';

/** `limit`: as many as were asked for. `implausible`: the log cannot be read any further. */
export type DumpEnd = LogEndKind | 'limit' | 'implausible';

export class LogTotals {
  entries = 0;
  /** Entries that write, and their bytes. */
  writes = 0;
  writtenBytes = 0;
  discards = 0;
  discardedBytes = 0;
  /** By flag, whatever else the entry is. */
  flushes = 0;
  fua = 0;
  metadata = 0;
  marks = 0;

  add({ flags, length }: LogEntry): void {
    const isDiscard = (flags & logFlags.discard) !== 0;
    this.entries += 1;
    if (isDiscard) {
      this.discards += 1;
      this.discardedBytes += length;
    } else if (length > 0) {
      this.writes += 1;
      this.writtenBytes += length;
    }
    if ((flags & logFlags.flush) !== 0) this.flushes += 1;
    if ((flags & logFlags.fua) !== 0) this.fua += 1;
    if ((flags & logFlags.metadata) !== 0) this.metadata += 1;
    if ((flags & logFlags.mark) !== 0) this.marks += 1;
  }
}

export function flagNames(flags: number): string[] {
  return Object.entries(logFlags).filter(([, bit]) => (flags & bit) !== 0).map(([name]) => name.toUpperCase());
}

const widths = [9, 14, 15, 11] as const;

function row(cells: readonly [string, string, string, string], flags: string): string {
  return `${cells.map((cell, index) => cell.padStart(widths[index]!)).join(' ')}  ${flags}`;
}

export function formatDumpHead(look: Look, superblock: LogSuperblock | null, sectorBytes: number): string {
  const told = superblock === null ? 'no superblock yet' : `the superblock counts ${entriesOf(superblock.entries)}`;
  return `${told}; sectors of ${sectorBytes} bytes\n${tint(look, 'strong', row(['NUMBER', 'AT', 'OFFSET', 'LENGTH'], 'FLAGS'))}\n`;
}

export function formatDumpEntry(number: number, { at, offset, length, flags, mark }: LogEntry): string {
  const names = flagNames(flags).join(' ');
  const said = mark === null ? '' : ` “${printable(mark.toString('utf8'))}”`;
  return `${row([String(number), String(at), mark === null ? String(offset) : '', mark === null ? String(length) : ''], `${names === '' ? '-' : names}${said}`)}\n`;
}

/** `at`: where the next entry would stand, or where the log cannot be read any further. */
export function formatDumpSummary(look: Look, totals: LogTotals, endedBy: DumpEnd, at: number): string {
  return `${tint(look, endedBy === 'implausible' ? 'bad' : 'good', `${entriesOf(totals.entries)}, ${endWords[endedBy]}, up to ${at}`)}: ${[
    `${totals.writes} writes of ${formatBytes(totals.writtenBytes)}`, `${totals.discards} discards of ${formatBytes(totals.discardedBytes)}`,
    `${totals.flushes} flushes`, `${totals.fua} FUA`, `${totals.metadata} metadata`, `${totals.marks} marks`,
  ].join(', ')}\n`;
}

const endWords: Readonly<Record<DumpEnd, string>> = {
  count: 'as many as the superblock counts', zeroes: 'ended by a sector of zeroes', 'file-end': 'ended by the end of the file',
  limit: 'ended by --limit', implausible: 'broken off',
};

function entriesOf(count: number): string {
  return `${count} ${count === 1 ? 'entry' : 'entries'}`;
}

export function dumpHeadJson(superblock: LogSuperblock | null, sectorBytes: number): string {
  return line({ kind: 'superblock', isWritten: superblock !== null, entries: superblock?.entries ?? null, sectorBytes });
}

/** A mark that is no UTF-8 comes as its bytes as well. */
export function dumpEntryJson(number: number, { at, offset, length, flags, mark }: LogEntry): string {
  const text = mark?.toString('utf8');
  const isExact = mark === null || Buffer.from(text ?? '', 'utf8').equals(mark);
  return line({
    kind: 'entry', number, at, offset, length, flags: flagNames(flags),
    ...(mark === null ? {} : { mark: text }), ...(isExact ? {} : { markBase64: mark.toString('base64') }),
  });
}

export function dumpSummaryJson(totals: LogTotals, endedBy: DumpEnd, endAt: number): string {
  return line({ kind: 'summary', ...totals, endedBy, endAt });
}

/** One line; what JSON leaves as it is and a terminal would obey is escaped, which reads back the same. */
function line(value: object): string {
  const text = JSON.stringify(value).replace(/[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
  return `${text}\n`;
}
