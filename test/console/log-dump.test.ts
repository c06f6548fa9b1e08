/** `afterimage log dump` as it is shipped, on logs that a real QEMU wrote and on logs as the kernel writes them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { flag, madeLog, type MadeEntry } from '../capture/support/written-log.ts';
import { BuiltCommand, ended } from './built-command.ts';

const command = await BuiltCommand.build(t);
const folder = await mkdtemp(join(tmpdir(), 'ai-log-'));
t.teardown(() => rm(folder, { recursive: true, force: true }));

interface Check { teardown(after: () => unknown): unknown; strictSame(found: unknown, wanted: unknown, message: string): unknown }
interface Line { readonly kind: 'superblock' | 'entry' | 'summary'; readonly [key: string]: unknown }
interface EntryLine { readonly at: number; readonly offset: number; readonly length: number; readonly flags: readonly string[]; readonly number: number }

async function dumped(path: string, ...args: readonly string[]) {
  const { code, stdout, stderr } = await command.run(['log', 'dump', path, '--json', ...args]);
  const lines = stdout.split('\n').slice(0, -1).map((line) => JSON.parse(line) as Line);
  return { code, stderr, lines, entries: lines.filter(({ kind }) => kind === 'entry') as unknown as EntryLine[], summary: lines.find(({ kind }) => kind === 'summary'), last: lines.at(-1)! };
}

async function writtenTo(name: string, bytes: Buffer): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}

const diskBytes = 4 * 1024 * 1024;

/** A storage daemon with one disk whose writes it logs, written through qemu-io; the log and the disk as they are after it has ended. */
async function loggedByQemu(t: Check, name: string, sectorBytes: number, requests: readonly string[]) {
  const [disk, log, socket] = [join(folder, `${name}.raw`), join(folder, `${name}.log`), join(folder, `${name}.nbd`)];
  for (const [path, bytes] of [[disk, diskBytes], [log, 0]] as const) {
    await writeFile(path, '');
    await truncate(path, bytes);
  }
  const node = { driver: 'blklogwrites', 'node-name': 'logged', discard: 'unmap', 'log-sector-size': sectorBytes, file: { driver: 'file', filename: disk, discard: 'unmap' }, log: { driver: 'file', filename: log } };
  const daemon = spawn('qemu-storage-daemon', ['--blockdev', JSON.stringify(node), '--nbd-server', `addr.type=unix,addr.path=${socket}`, '--export', 'type=nbd,id=e,node-name=logged,name=e,writable=on'], { stdio: ['ignore', 'ignore', 'pipe'] });
  const daemonEnd = ended(daemon);
  const timer = setTimeout(() => daemon.kill('SIGKILL'), 60_000);
  t.teardown(async () => {
    clearTimeout(timer);
    daemon.kill('SIGKILL');
    await daemonEnd;
  });
  for (let tries = 0; !existsSync(socket) && tries < 1000 && daemon.exitCode === null; tries += 1) await new Promise((resolve) => { setTimeout(resolve, 20); });
  const writer = spawn('qemu-io', ['-f', 'raw', '-d', 'unmap', '-t', 'writeback', `nbd+unix:///e?socket=${socket}`, ...requests.flatMap((request) => ['-c', request])], { stdio: ['ignore', 'pipe', 'pipe'] });
  const { code, stderr } = await ended(writer);
  t.strictSame([code, stderr], [0, ''], 'qemu-io wrote');
  daemon.kill('SIGTERM');
  await daemonEnd;
  return { log, diskBytes: await readFile(disk), logBytes: await readFile(log) };
}

for (const sectorBytes of [512, 4096]) {
  t.test(`a log of QEMU’s, sectors of ${sectorBytes} bytes`, async (t) => {
    const many = Array.from({ length: 60 }, (_, index) => `write -P ${index + 1} ${(index * 37 % 200) * 4096} ${(index % 5 + 1) * 4096}`);
    const requests = ['write -P 1 0 8k', 'write -z 16k 64k', 'discard 1M 64k', 'flush', 'write -f -P 3 64k 4k', 'write -zu 512k 4k', ...many, 'discard 128k 64k', 'write -P 200 3M 1M', 'flush'];
    const { log, logBytes, diskBytes: disk } = await loggedByQemu(t, `q${sectorBytes}`, sectorBytes, requests);
    const { code, stderr, lines, entries, summary } = await dumped(log);
    t.strictSame([code, stderr], [0, '']);
    const counted = lines[0]!['entries'] as number;
    t.match(lines[0], { kind: 'superblock', isWritten: true, sectorBytes, entries: Number });
    t.strictSame(entries.map(({ number }) => number), entries.map((_, index) => index));
    const changes = entries.filter(({ length }) => length > 0);
    t.strictSame(changes.map(({ offset, length, flags }) => `${flags.includes('DISCARD') ? 'discard' : 'write'} ${offset} ${length}`), requests.filter((request) => request !== 'flush').map(asChange), 'every request, in order');
    t.ok(entries.length - changes.length >= 2 && entries.every(({ length, flags }) => (length === 0) === flags.includes('FLUSH')), 'the flushes');
    t.match(summary, {
      entries: entries.length, writes: requests.length - 4, discards: 2, discardedBytes: 128 * 1024, flushes: entries.length - changes.length, marks: 0,
      writtenBytes: changes.reduce((sum, { length, flags }) => sum + (flags.includes('DISCARD') ? 0 : length), 0),
      endedBy: entries.length === counted ? 'count' : 'file-end', endAt: logBytes.length,
    });

    const replayed = Buffer.alloc(diskBytes);
    for (const { at, offset, length, flags } of entries) {
      if (flags.includes('DISCARD')) replayed.fill(0, offset, offset + length);
      else logBytes.copy(replayed, offset, at + sectorBytes, at + sectorBytes + length);
    }
    t.ok(replayed.equals(disk), 'what the places say is what the disk holds');

    const part = await dumped(log, '--from', String(entries[5]!.at), '--limit', '3');
    t.strictSame(part.entries.map(({ at }) => at), entries.slice(5, 8).map(({ at }) => at), 'from a place, so many');
    t.match(part.summary, { entries: 3, endedBy: 'limit', endAt: entries[8]!.at });
    const cut = await dumped(await writtenTo(`cut${sectorBytes}`, logBytes.subarray(0, entries[7]!.at + sectorBytes + 1)));
    t.match(cut, { code: 1, last: { error: { code: 'LOG_IMPLAUSIBLE', facts: { at: entries[7]!.at } } }, summary: { entries: 7, endedBy: 'implausible', endAt: entries[7]!.at } }, 'cut off: what came before, then the place');
  });
}

function asChange(request: string): string {
  const words = request.split(' ');
  const [length, offset] = [words.pop()!, words.pop()!].map((text) => parseInt(text, 10) * ({ k: 1024, M: 1024 ** 2 }[text.at(-1)!] ?? 1)) as [number, number];
  return `${words[0]} ${offset} ${length}`;
}

/** Documentation/admin-guide/device-mapper/log-writes.rst, "Log Ordering": Wa Wb Wc Cc Ca FLUSH FUAd Cb CFLUSH CFUAd. */
const ordering: readonly MadeEntry[] = [
  { sector: 30, data: Buffer.alloc(512, 'c') }, { sector: 10, data: Buffer.alloc(1024, 'a'), flags: flag.METADATA }, { flags: flag.FLUSH }, { sector: 40, data: Buffer.alloc(512, 'd'), flags: flag.FUA },
  { sector: 1024, sectors: 2048, flags: flag.DISCARD }, { mark: 'fsync 1' }, { mark: '\u001b[2J\u009b31m\u202eevil\nwords' }, { mark: 'dm-log-writes-end' },
];

t.test('a log of the kernel’s, marks included', async (t) => {
  const path = await writtenTo('kernel', Buffer.concat([madeLog(ordering), Buffer.alloc(65536)]));
  const { code, stdout, stderr } = await command.run(['log', 'dump', path]);
  t.strictSame([code, stderr], [0, '']);
  t.equal(stdout, `the superblock counts 8 entries; sectors of 512 bytes
   NUMBER             AT          OFFSET      LENGTH  FLAGS
        0            512           15360         512  -
        1           1536            5120        1024  METADATA
        2           3072               0           0  FLUSH
        3           3584           20480         512  FUA
        4           4608          524288     1048576  DISCARD
        5           5120                              MARK “fsync 1”
        6           5632                              MARK “ [2J 31m evil words”
        7           6144                              MARK “dm-log-writes-end”
8 entries, as many as the superblock counts, up to 6656: 3 writes of 2.0 KiB, 1 discards of 1.0 MiB, 1 flushes, 1 FUA, 1 metadata, 3 marks
`);
  const json = await command.run(['log', 'dump', path, '--json']);
  t.notMatch(json.stdout, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/, 'nothing in it steers a terminal');
  t.strictSame((await dumped(path)).lines.filter((line) => 'mark' in line).map(({ mark }) => mark), ['fsync 1', '\u001b[2J\u009b31m\u202eevil\nwords', 'dm-log-writes-end'], 'and yet marks are as they were');
  const odd = await dumped(await writtenTo('odd', madeLog([{ mark: Buffer.from([0x61, 0xff]) }])));
  t.match(odd.entries[0], { mark: 'a\ufffd', markBase64: 'Yf8=' }, 'of one that is no UTF-8 the bytes as well');
});

t.test('entries behind the count, and what the device held before', async (t) => {
  const behind = await dumped(await writtenTo('behind', Buffer.concat([madeLog(ordering, 512, 5), Buffer.alloc(512)])));
  t.match(behind, { code: 0, summary: { entries: 8, endedBy: 'zeroes', endAt: 6656 } });
  const counted = await dumped(await writtenTo('counted', madeLog(ordering, 512, 5)), '--counted');
  t.match(counted, { code: 0, summary: { entries: 5, endedBy: 'count', endAt: 5120 } });
  const stale = await dumped(await writtenTo('stale', Buffer.concat([madeLog(ordering), Buffer.alloc(4096, 0xa5)])));
  t.match(stale, { code: 0, summary: { entries: 8, endedBy: 'count', endAt: 6656 } });
  const bad = await command.run(['log', 'dump', await writtenTo('bad', Buffer.concat([madeLog(ordering, 512, 5), Buffer.alloc(4096, 0xa5)]))]);
  t.equal(bad.code, 1);
  t.match(bad.stdout, /MARK “dm-log-writes-end”\n8 entries, broken off, up to 6656: /, 'all that came before, and how much it was');
  t.match(bad.stderr, /^LOG_IMPLAUSIBLE: .*bad: the entry at 6656 has flags a5a5a5a5a5a5a5a5\n$/);
});

t.test('a log without a superblock yet', async (t) => {
  const { log, logBytes } = await loggedByQemu(t, 'fresh', 512, ['write -P 1 0 8k', 'flush']);
  const path = await writtenTo('unflushed', Buffer.concat([Buffer.alloc(512), logBytes.subarray(512)]));
  t.match(await dumped(path), { code: 1, last: { error: { code: 'LOG_IMPLAUSIBLE' } } });
  const told = await dumped(path, '--sector-size', '512');
  t.match(told, { code: 0, lines: [{ kind: 'superblock', isWritten: false, entries: null }] });
  t.strictSame(told.entries, (await dumped(log)).entries);
});

t.test('what is refused', async (t) => {
  const path = await writtenTo('small', madeLog(ordering));
  await Promise.all(([
    [[path, '--from', '100'], 64, /multiples of 512/], [[path, '--from', '0'], 64, /the first one at 512/], [[path, '--from', 'x'], 64, /whole number/], [[path, '--limit', '-1'], 64, /./],
    [[path, '--from', '512', '--counted'], 64, /exclude/], [[path, '--sector-size', '1000'], 64, /power of two/], [[], 64, /missing required argument/],
    [[join(folder, 'absent')], 1, /ENOENT/], [[folder], 1, /EISDIR/],
  ] as const).map(async ([args, wanted, said]) => {
    const { code, stdout, stderr } = await command.run(['log', 'dump', ...args]);
    t.strictSame([code, stdout], [wanted, ''], args.slice(1).join(' '));
    t.match(stderr, said);
  }));
  for (const [name, bytes] of [['empty', Buffer.alloc(0)], ['noise', Buffer.alloc(10_000, 'noise')]] as const) {
    const { code, stdout, stderr } = await command.run(['log', 'dump', await writtenTo(name, bytes)]);
    t.strictSame([code, stdout], [1, ''], name);
    t.match(stderr, /^LOG_IMPLAUSIBLE: /);
  }
});

t.test('a reader that goes away, and one that takes its time', async (t) => {
  const path = await writtenTo('long', madeLog(Array.from({ length: 100_000 }, () => ({ flags: flag.FLUSH }))));
  for (const json of [[], ['--json']]) {
    const child = command.start(['log', 'dump', path, ...json]);
    t.teardown(() => child.kill('SIGKILL'));
    let said = '';
    child.stderr!.on('data', (chunk: Buffer) => { said += chunk.toString(); });
    child.stdout!.once('data', () => { child.stdout!.destroy(); });
    const [code, signal] = await once(child, 'close') as [number | null, string | null];
    t.strictSame([code, signal, said], [0, null, ''], 'a broken pipe is quiet');
  }
  // A heap in which the lines of the whole log have no room, but the command has.
  const { code, stdout } = await command.run(['log', 'dump', path, '--json'], { NODE_OPTIONS: '--max-old-space-size=24' });
  const lines = stdout.split('\n').slice(0, -1);
  t.strictSame([code, lines.length], [0, 100_002]);
  t.match(JSON.parse(lines.at(-1)!), { kind: 'summary', entries: 100_000, flushes: 100_000, endedBy: 'count' });
});
