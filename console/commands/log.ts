/** `log dump`: prints a write log, the kernel's or QEMU's, as far as it can be read. Needs no daemon and no config. */
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { InvalidArgumentError, type Command } from 'commander';
import { LogWalk, type LogBytes, type LogWalkOptions } from '../../daemon/capture/dm-log/log-walk.ts';
import { isFault } from '../../journal/fault.ts';
import { exitCodes, UsageError } from '../exit-code.ts';
import { dumpEntryJson, dumpHeadJson, dumpSummaryJson, formatDumpEntry, formatDumpHead, formatDumpSummary, LogTotals, type DumpEnd } from '../render/log-dump.ts';
import { printable } from '../render/units.ts';
import { lookOf, printAside, printJson } from '../terminal.ts';

interface DumpOptions {
  readonly json?: true;
  readonly from?: number;
  readonly limit?: number;
  readonly counted?: true;
  readonly sectorSize?: number;
}

/** Lines are gathered up to this before they are written. */
const chunkCharsMax = 64 * 1024;

export function addLogCommand(program: Command): void {
  program.command('log').description('write logs, as files or devices')
    .command('dump').description('print a log of the kernel’s dm-log-writes or of QEMU’s blklogwrites').argument('<log>', 'a file or device')
    .option('--json', 'an object a line: superblock, entries, summary')
    .option('--from <bytes>', 'begin at the entry at this place in the log', readNumber)
    .option('--limit <entries>', 'so many at most', readNumber)
    .option('--counted', 'no further than the superblock’s count')
    .option('--sector-size <bytes>', 'of a log that has no superblock yet (QEMU writes it with the first flush)', readSectorSize)
    .action(dump);
}

function readNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw new InvalidArgumentError('Expected a whole number.');
  return value;
}

function readSectorSize(text: string): number {
  const value = readNumber(text);
  if (value < 512 || value > 8 * 1024 * 1024 || !Number.isInteger(Math.log2(value))) throw new InvalidArgumentError('Expected a power of two from 512 to 8388608.');
  return value;
}

async function dump(path: string, option: DumpOptions): Promise<void> {
  const file = await open(path, 'r');
  try {
    const out = new Lines();
    try {
      await dumpLog({ read: (into, at) => readUpTo(file, into, at) }, option, out);
    } catch (error) {
      if (!isFault(error) || error.code !== 'LOG_IMPLAUSIBLE') throw error;
      await out.end();
      // What the table of faults says of this code is what a daemon does about a guest's log.
      if (option.json === true) printJson({ error: { code: error.code, message: error.message, facts: error.facts } }, false);
      printAside(`${error.code}: ${printable(path)}: ${printable(error.message)}\n`);
      process.exitCode = exitCodes.failed;
    }
  } finally {
    await file.close();
  }
}

/** As much as there is, in as many reads as it takes. */
async function readUpTo(file: Awaited<ReturnType<typeof open>>, into: Buffer, at: number): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await file.read(into, done, into.length - done, at + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

async function dumpLog(log: LogBytes, option: DumpOptions, out: Lines): Promise<void> {
  const isJson = option.json === true;
  const walkOptions: LogWalkOptions = {
    ...(option.from === undefined ? {} : { fromAt: option.from }), ...(option.sectorSize === undefined ? {} : { sectorBytes: option.sectorSize }), isCountedOnly: option.counted === true,
  };
  if (option.from !== undefined && option.counted === true) throw new UsageError('--from and --counted exclude each other: how many entries lie before a place is not known');
  const walk = await LogWalk.open(log, walkOptions);
  const { superblock, sectorBytes } = walk;
  if (option.from !== undefined && (option.from < sectorBytes || option.from % sectorBytes !== 0)) throw new UsageError(`--from: entries stand at multiples of ${sectorBytes} bytes, the first one at ${sectorBytes}`);
  const look = lookOf(process.stdout);
  const totals = new LogTotals();
  const sumUp = (endedBy: DumpEnd, at: number): Promise<void> => out.add(isJson ? dumpSummaryJson(totals, endedBy, at) : formatDumpSummary(look, totals, endedBy, at));

  await out.add(isJson ? dumpHeadJson(superblock, sectorBytes) : formatDumpHead(look, superblock, sectorBytes));
  let at = option.from ?? sectorBytes;
  try {
    for (;;) {
      if (totals.entries === option.limit) return await sumUp('limit', at);
      const step = await walk.next();
      if (step.kind === 'end') return await sumUp(step.endedBy, step.at);
      totals.add(step.entry);
      await out.add(isJson ? dumpEntryJson(step.number, step.entry) : formatDumpEntry(step.number, step.entry));
      at = step.entry.endAt;
    }
  } catch (error) {
    if (isFault(error)) await sumUp('implausible', at);
    throw error;
  } finally {
    await out.end();
  }
}

/** Stdout in large pieces, no faster than it is taken. */
class Lines {
  #text = '';

  async add(text: string): Promise<void> {
    this.#text += text;
    if (this.#text.length >= chunkCharsMax) await this.end();
  }

  /** Resolves when all has been handed over. */
  async end(): Promise<void> {
    const text = this.#text;
    this.#text = '';
    if (text !== '' && !process.stdout.write(text)) await once(process.stdout, 'drain');
  }
}
