/** Any bytes that a log may be: each entry is found whole, and where a log ends is never a guess. */
import fc from 'fast-check';
import t from 'tap';
import { LogWalk, type LogBytes, type LogWalkOptions } from '../../daemon/capture/dm-log/log-walk.ts';
import type { LogEntry } from '../../daemon/capture/writelog/dm-log.ts';
import { isFault } from '../../journal/fault.ts';
import { flag, madeEntry, madeLog, madeSuperblock, type MadeEntry } from './support/written-log.ts';

class Bytes implements LogBytes {
  reads = 0;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  read(into: Buffer, at: number): Promise<number> {
    this.reads += 1;
    return Promise.resolve(this.#bytes.copy(into, 0, Math.min(at, this.#bytes.length)));
  }
}

interface Walked { readonly entries: readonly LogEntry[]; readonly endedBy: string; readonly at: number | undefined }

async function walked(bytes: Buffer, options: LogWalkOptions = {}): Promise<Walked> {
  const entries: LogEntry[] = [];
  try {
    const walk = await LogWalk.open(new Bytes(bytes), options);
    for (;;) {
      const step = await walk.next();
      if (step.kind === 'end') {
        const again = await walk.next();
        if (again.kind !== 'end' || again.endedBy !== step.endedBy) throw new Error('the end did not stay');
        return { entries, endedBy: step.endedBy, at: step.at };
      }
      if (step.number !== entries.length) throw new Error('numbered wrongly');
      entries.push(step.entry);
    }
  } catch (error) {
    if (!isFault(error) || error.code !== 'LOG_IMPLAUSIBLE') throw error;
    return { entries, endedBy: 'implausible', at: error.facts['at'] as number | undefined };
  }
}

const write = (sector: number, count: number, flags = 0): MadeEntry => ({ sector, data: Buffer.alloc(count * 512, 0x5a), flags });

t.test('where a log ends', async (t) => {
  const log = madeLog([write(8, 2), { flags: flag.FLUSH }, { mark: 'here' }, write(0, 1, flag.FUA | flag.METADATA)]);
  const zeroes = Buffer.alloc(512);
  const more = madeEntry(write(3, 1), 512);
  const endAt = log.length;
  const garbage = Buffer.alloc(1024, 0xee);
  const cases: readonly [string, Buffer, LogWalkOptions, number, string, number][] = [
    ['at its count, at the end of the file', log, {}, 4, 'count', endAt],
    ['at its count, before zeroes', Buffer.concat([log, zeroes]), {}, 4, 'count', endAt],
    ['at its count, before what the device held earlier', Buffer.concat([log, garbage]), {}, 4, 'count', endAt],
    ['at its count, within a sector', Buffer.concat([log, garbage.subarray(0, 100)]), {}, 4, 'count', endAt],
    ['behind its count, at zeroes', Buffer.concat([log, more, zeroes]), {}, 5, 'zeroes', endAt + 1024],
    ['behind its count, at the end of the file', Buffer.concat([log, more]), {}, 5, 'file-end', endAt + 1024],
    ['behind its count, where nothing can be told', Buffer.concat([log, more, garbage]), {}, 5, 'implausible', endAt + 1024],
    ['at its count as asked for, before more', Buffer.concat([log, more]), { isCountedOnly: true }, 4, 'count', endAt],
    ['from a place, whatever the count', log, { fromAt: 512 + 3 * 512 }, 3, 'file-end', endAt],
    ['within the data', log.subarray(0, endAt - 1), {}, 3, 'implausible', 512 + 5 * 512],
    ['within an entry', log.subarray(0, 512 + 1536 + 40), {}, 1, 'implausible', 512 + 1536],
    ['before its count, at the end of the file', log.subarray(0, 512 + 1536), {}, 1, 'implausible', 512 + 1536],
    ['before its count, at zeroes', Buffer.concat([log.subarray(0, 512 + 1536), zeroes, zeroes]), {}, 1, 'implausible', 512 + 1536],
    ['before the first entry', madeSuperblock(0, 512), {}, 0, 'count', 512],
    ['garbage where the superblock counts none', Buffer.concat([madeSuperblock(0, 512), garbage]), {}, 0, 'implausible', 512],
    ['without a superblock yet', Buffer.concat([zeroes, log.subarray(512), zeroes]), { sectorBytes: 512 }, 4, 'zeroes', endAt],
  ];
  for (const [name, bytes, options, count, endedBy, at] of cases) {
    const found = await walked(bytes, options);
    t.strictSame([found.entries.length, found.endedBy, found.at], [count, endedBy, at], name);
  }
});

t.test('no log at all', async (t) => {
  const wrong = (change: (bytes: Buffer) => unknown): Buffer => {
    const bytes = madeLog([write(0, 1)]);
    change(bytes);
    return bytes;
  };
  for (const [name, bytes] of [
    ['nothing', Buffer.alloc(0)], ['shorter than a superblock', madeLog([]).subarray(0, 27)], ['zeroes', Buffer.alloc(4096)], ['another magic', wrong((b) => b.writeUInt8(0, 0))],
    ['a version to come', wrong((b) => b.writeUInt8(2, 8))], ['sectors of 0 bytes', wrong((b) => b.writeUInt32LE(0, 24))], ['of 513', wrong((b) => b.writeUInt32LE(513, 24))],
    ['of 256', wrong((b) => b.writeUInt32LE(256, 24))], ['of 2 GiB', wrong((b) => b.writeUInt32LE(2 ** 31, 24))], ['more entries than can be', wrong((b) => b.writeBigUInt64LE(2n ** 60n, 16))],
  ] as const) t.strictSame(await walked(bytes), { entries: [], endedBy: 'implausible', at: undefined }, name);
});

t.test('what an entry cannot be', async (t) => {
  const changed = (entry: MadeEntry, change: (bytes: Buffer) => unknown): Buffer => {
    const bytes = madeEntry(entry, 512);
    change(bytes);
    return Buffer.concat([madeSuperblock(2, 512), madeEntry(write(1, 1), 512), bytes, Buffer.alloc(2048)]);
  };
  for (const [name, bytes] of [
    ['an unknown flag', changed(write(0, 1), (b) => b.writeUInt8(32, 16))],
    ['bytes behind it', changed(write(0, 1), (b) => b.writeUInt8(1, 511))],
    ['neither flags nor sectors', changed({ sector: 7 }, () => undefined)],
    ['a mark longer than its sector', changed({ mark: 'x' }, (b) => b.writeUInt32LE(481, 24))],
    ['a mark that writes', changed({ mark: 'x', sectors: 1 }, () => undefined)],
    ['a place beyond all disks', changed(write(0, 1), (b) => b.writeBigUInt64LE(2n ** 63n, 0))],
    ['a length beyond all disks', changed({ flags: flag.DISCARD, sectors: 1 }, (b) => b.writeBigUInt64LE(2n ** 64n - 1n, 8))],
    ['more data than a request has', changed(write(0, 1), (b) => b.writeBigUInt64LE(2n ** 23n, 8))],
    ['a DAX write that does not fill its sectors', changed({ ...write(0, 2), daxBytes: 512 }, () => undefined)],
    ['a DAX write larger than its sectors', changed({ ...write(0, 2), daxBytes: 1025 }, () => undefined)],
  ] as const) {
    const { entries, endedBy, at } = await walked(bytes);
    t.strictSame([entries.length, endedBy, at], [1, 'implausible', 1536], name);
  }
  const longest = await walked(madeLog([{ mark: 'm'.repeat(480) }, { mark: '' }, { sector: 3, data: Buffer.alloc(1024), daxBytes: 600 }, { sector: 9, sectors: 2 ** 30, flags: flag.DISCARD }]));
  t.strictSame(longest.entries.map(({ mark, offset, length, isDax }) => [mark?.length, offset, length, isDax]), [
    [480, 0, 0, false], [0, 0, 0, false], [undefined, 1536, 1024, true], [undefined, 4608, 2 ** 39, false],
  ], 'what they can be');
  t.equal(longest.endedBy, 'count');
});

const made = (sectorBytes: number): fc.Arbitrary<MadeEntry> => fc.oneof(
  fc.record({ sector: fc.nat(2 ** 30), data: fc.integer({ min: 1, max: 5 }).chain((count) => fc.nat(255).map((fill) => Buffer.alloc(count * sectorBytes, fill))), flags: fc.constantFrom(0, 1, 2, 3, 16, 18) }),
  fc.record({ sector: fc.nat(2 ** 30), sectors: fc.integer({ min: 1, max: 2 ** 31 }), flags: fc.constant(flag.DISCARD) }),
  fc.constant({ flags: flag.FLUSH }),
  fc.string({ maxLength: 100, unit: 'binary-ascii' }).map((mark) => ({ mark })),
);
const log = fc.constantFrom<number[]>(512, 1024, 4096, 65536).chain((sectorBytes) => fc.record({ sectorBytes: fc.constant(sectorBytes), entries: fc.array(made(sectorBytes), { maxLength: 12 }) }));

t.test('any log of the kernel’s is found as it was made', async (t) => {
  await fc.assert(fc.asyncProperty(log, async ({ sectorBytes, entries }) => {
    const found = await walked(madeLog(entries, sectorBytes));
    let at = sectorBytes;
    const wanted = entries.map(({ sector = 0, sectors = 0, data, flags = 0, mark }) => {
      const length = data?.length ?? sectors * sectorBytes;
      const here = { at, dataAt: at + sectorBytes, endAt: at + sectorBytes + (data?.length ?? 0), offset: sector * sectorBytes, length, flags: mark === undefined ? flags : flag.MARK, mark: mark ?? null };
      at = here.endAt;
      return here;
    });
    const got = found.entries.map(({ isDax: _isDax, mark, ...rest }) => ({ ...rest, mark: mark === null ? null : mark.toString('latin1') }));
    return JSON.stringify(sorted(got)) === JSON.stringify(sorted(wanted)) && found.endedBy === 'count' && found.at === at;
  }), { numRuns: 200 });
  t.pass();
});

const sorted = (all: readonly object[]): unknown => all.map((one) => Object.entries(one).sort(([a], [b]) => (a < b ? -1 : 1)));

t.test('whatever the bytes: whole entries, then an end or LOG_IMPLAUSIBLE', async (t) => {
  const cut = fc.record({ log, counted: fc.nat(12), changes: fc.array(fc.record({ at: fc.nat(), byte: fc.nat(255) }), { maxLength: 4 }), tail: fc.oneof(fc.uint8Array({ maxLength: 2000 }), fc.constantFrom(new Uint8Array(65536), new Uint8Array(0))), share: fc.double({ min: 0, max: 1, noNaN: true }), isCut: fc.boolean() });
  const ends = new Set<string>();
  await fc.assert(fc.asyncProperty(cut, async ({ log: { sectorBytes, entries }, counted, changes, tail, share, isCut }) => {
    const whole = Buffer.concat([madeLog(entries, sectorBytes, Math.min(counted, entries.length)), tail]);
    for (const { at, byte } of changes) whole[at % whole.length] = byte;
    const bytes = isCut ? whole.subarray(0, Math.floor(share * whole.length)) : whole;
    const found = await walked(bytes);
    ends.add(found.endedBy);
    return found.entries.every(({ at, dataAt, endAt, flags, length }, index) => (
      endAt <= bytes.length && dataAt - at === found.entries[0]!.at && (index === 0 || at === found.entries[index - 1]!.endAt) && endAt - dataAt === ((flags & flag.DISCARD) === 0 ? length : 0)));
  }), { numRuns: 600 });
  await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), async (bytes) => {
    await walked(Buffer.from(bytes));
    await walked(Buffer.concat([madeSuperblock(3, 512), bytes]));
    await walked(Buffer.concat([madeSuperblock(0, 512), bytes]), { fromAt: 1024 });
  }), { numRuns: 300 });
  t.strictSame([...ends].sort(), ['count', 'file-end', 'implausible', 'zeroes'], 'all of them came about');
});

t.test('small writes are found without a read for each', async (t) => {
  const small = new Bytes(madeLog(Array.from({ length: 1000 }, () => write(5, 1))));
  const walk = await LogWalk.open(small);
  while ((await walk.next()).kind === 'entry');
  t.ok(small.reads < 20, `1,000 entries in ${small.reads} reads`);
});
