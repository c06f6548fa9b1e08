/**
 * A database under load, at twenty points picked at random: each passes SQLite's integrity check with all its money there. Some
 * are booted, and the guest's own SQLite judges; the others are read through NBD, and the host's does.
 */
import { execFile } from 'node:child_process';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { pointExportName } from '../../replica-target/points/nbd-exports.ts';
import type { StoredPoint } from '../../replica-target/store/store.ts';
import { isLong } from '../support/extent.ts';
import { startPair } from '../support/daemons.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { seededFractions } from '../support/seeded.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';

const run = promisify(execFile);
const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` };
const pointCount = isLong ? 20 : 8;
const bootCount = isLong ? 3 : 2;

/** SQLite's verdict, the sum of all money, the last transaction. */
const question = 'PRAGMA integrity_check; SELECT sum(balance) FROM ledger; SELECT coalesce(max(n), 0) FROM log;';

async function judge(folder: string, socketPath: string, exportName: string): Promise<string[]> {
  await mkdir(folder);
  const raw = join(folder, 'disk.raw');
  await run('qemu-img', ['convert', '-O', 'raw', '--image-opts', `driver=nbd,server.type=unix,server.path=${socketPath},export=${exportName}`, raw]);
  // As any guest's boot does after a power cut: the journal first, then the check.
  await run('e2fsck', ['-y', '-E', 'journal_only', raw], { env });
  await run('e2fsck', ['-f', '-n', raw], { env });
  for (const file of ['db', 'db-wal']) await run('debugfs', ['-R', `dump /${file} ${join(folder, file)}`, raw], { env });
  const { stdout } = await run('sqlite3', [join(folder, 'db'), question]);
  await rm(folder, { recursive: true });
  return stdout.trim().split('\n');
}

void t.test('a database under load is whole at every point', { timeout: 240_000 }, async (t) => {
  const folder = t.testdir({});
  const path = await createLabDisk(join(folder, 'a.qcow2'), 'qcow2', 96 << 20);
  const pair = await startPair(t);
  const guest = await startLabGuest(t, { mode: 'sqlite', timeLimitMs: 230_000, disks: [{ path, format: 'qcow2', iothread: true }] });
  await guest.waitForLine(/^AF COUNTER 20 /, 60_000);
  await pair.protect('db1', guest.qmpPath);
  await pair.newPoint('db1', 60_000);
  await waitFor(async () => (await pair.target.client.points('db1')).length >= pointCount, { limitMs: 120_000, what: 'enough points' });
  const points = [...await pair.target.client.points('db1')];

  const seed = Number(process.env['AFTERIMAGE_SEED'] ?? Date.now() % 1_000_000);
  t.comment(`seed ${seed}`);
  const fraction = seededFractions(seed);
  const chosen: StoredPoint[] = [];
  while (chosen.length < pointCount) chosen.push(...points.splice(Math.floor(fraction() * points.length), 1));
  const socketPath = join(pair.folder, 'target', 'points.sock');
  const { disks } = await pair.group('db1');
  const numbers: { point: StoredPoint; number: number }[] = [];
  for (const [at, point] of chosen.entries()) {
    const name = `${point.term}.${point.point}`;
    let said: string[];
    if (at < bootCount) {
      const test = await pair.target.client.testFailover({ group: 'db1', at: name, accel: 'tcg' });
      said = (await watchFile(test.logPath, /^AF SQLITE (.*?) *$/m, 60_000))[1]!.split(' ');
      await watchFile(test.logPath, /^AF COUNTER \d+ /m, 60_000);
      t.notMatch(await readFile(test.logPath, 'utf8'), /FAILED/, `point ${name}: the database is written on`);
      await pair.target.client.stopTest('db1');
    } else {
      said = await judge(join(folder, name), socketPath, pointExportName('db1', disks, disks[0]!, point));
    }
    t.strictSame(said.slice(0, 2), ['ok', '10000'], `point ${name}, ${at < bootCount ? 'booted' : 'read'}: ${said.join(' ')}`);
    numbers.push({ point, number: Number(said[2]) });
  }
  numbers.sort((a, b) => a.point.point - b.point.point);
  t.ok(numbers.every(({ number }, at) => number > (numbers[at - 1]?.number ?? 19)), 'each point holds more than the one before');
  t.notOk(guest.serial.some(({ text }) => text.includes('FAILED')), 'no write of the guest failed');
});
