/**
 * Outages that an operator meets: the target is down, its disk is full; and a first sync that starts from an image which is
 * at the target already. Real source and target processes; the guest is a storage daemon, written to over NBD.
 */
import { execFile, execFileSync } from 'node:child_process';
import { copyFile, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import type { SourceReport } from '../../daemon/report.ts';
import { makeDisks, startStandIn, type StandIn } from '../capture/support/storage-daemon.ts';
import { startPair, type Pair } from '../support/daemons.ts';
import { imageDifference } from '../support/guest-look.ts';
import { waitFor } from '../support/wait.ts';

const run = promisify(execFile);
const mib = 1024 ** 2;
const sizeBytes = 64 * mib;

async function standIn(t: Test): Promise<StandIn> {
  const folder = await mkdtemp(join(tmpdir(), 'af-out-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return startStandIn(t, makeDisks(folder, [{ sizeBytes, format: 'raw' }]), folder);
}

/** A guest's write: `pattern` over [offset, offset + length). Rejects when it fails. */
async function write(guest: StandIn, pattern: number, offset: number, length: number): Promise<void> {
  await run('qemu-io', ['-f', 'raw', '-c', `write -P ${pattern} ${offset} ${length}`, `nbd+unix:///${guest.disks[0]!.name}?socket=${guest.nbdPath}`]);
}

async function protect(pair: Pair, guest: StandIn, isPaused = false): Promise<void> {
  await pair.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000, isPaused, storageDaemonDisks: guest.disks.map(({ node }) => node) });
}

async function isReplicaEqual(t: Test, pair: Pair, guest: StandIn): Promise<void> {
  await pair.newPoint('web1');
  const { newestPoint } = await pair.newPoint('web1');
  await waitFor(async () => ((await pair.group('web1')).applied?.point ?? 0) >= newestPoint!.point, { limitMs: 30_000, what: 'the newest point to be applied' });
  t.equal(await imageDifference(guest.disks[0]!.path, 'raw', (await pair.group('web1')).disks[0]!.replicaPath), null, 'replica = guest disk');
}

void t.test('while the target is down, status says since when and how far behind', { timeout: 100_000 }, async (t) => {
  const guest = await standIn(t);
  const pair = await startPair(t);
  await write(guest, 17, 0, 8 * mib);
  await protect(pair, guest);
  await pair.newPoint('web1');
  const downAtMs = Date.now();
  await pair.target.kill();
  await write(guest, 18, 16 * mib, 4 * mib);
  await waitFor(async () => (await pair.guest('web1')).behindBytes >= 4 * mib, { limitMs: 30_000, what: 'the dirty bytes to be told' });
  const { stdout } = await run(process.execPath, [join(import.meta.dirname, '..', '..', 'dist', 'console', 'main.js'), 'status', '--json', '--config', pair.source.configPath]);
  const report = JSON.parse(stdout) as SourceReport;
  t.not(report.targets[0]!.state, 'up');
  t.ok(report.targets[0]!.sinceMs >= downAtMs - 5000, 'since when');
  t.equal(report.guests[0]!.phase, 'behind');
  t.ok(report.guests[0]!.behindBytes >= 4 * mib, 'how many bytes behind');
  t.ok((report.guests[0]!.clocks.newestPointMs ?? 0) > 0, 'how old the newest point is');
  await pair.source.kill();
  await pair.source.start();
  await waitFor(async () => (await pair.guest('web1')).behindBytes >= 4 * mib, { limitMs: 30_000, what: 'a restarted source to tell the same' });
  t.ok(((await pair.guest('web1')).clocks.newestPointMs ?? 0) > 0, 'also after a restart of the source');
  await pair.target.start();
  await isReplicaEqual(t, pair, guest);
  t.equal((await pair.guest('web1')).fullPasses, 0, 'no full pass: the bitmaps lived');
});

void t.test('a full target disk acknowledges nothing, harms nobody, and goes on when there is space', { timeout: 150_000, skip: process.getuid?.() === 0 ? false : 'needs root to mount a small file system' }, async (t) => {
  const guest = await standIn(t);
  const small = await mkdtemp(join(tmpdir(), 'af-small-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=560m', 'tmpfs', small]);
  t.teardown(async () => {
    execFileSync('umount', ['-l', small]);
    await rm(small, { recursive: true, force: true });
  });
  const pair = await startPair(t, { targetData: join(small, 'target') });
  await write(guest, 33, 0, 8 * mib);
  await protect(pair, guest);
  await pair.newPoint('web1');
  const ballast = join(small, 'ballast');
  await writeFile(ballast, '');
  await run('sh', ['-c', 'dd if=/dev/zero of="$1" bs=1M 2>/dev/null; true', 'sh', ballast]);
  // What is preallocated still takes deltas: write until the target has said that it is full.
  let turn = 0;
  await waitFor(async () => {
    await write(guest, 40 + turn++ % 64, (turn % 6) * 10 * mib, 10 * mib);
    return (await pair.guest('web1')).phase === 'held';
  }, { limitMs: 90_000, what: 'the target to hold the source off' });
  const { point } = (await pair.guest('web1')).newestPoint!;
  t.not((await pair.group('web1')).held, null, 'the target says so itself');
  await write(guest, 77, 0, 4 * mib);
  t.pass('the guest writes on');
  t.equal((await pair.guest('web1')).newestPoint!.point, point, 'nothing more was acknowledged');
  await rm(ballast);
  await isReplicaEqual(t, pair, guest);
  t.equal((await pair.guest('web1')).fullPasses, 1, 'only the first sync');
});

void t.test('a first sync from an image at the target moves only what differs', { timeout: 100_000 }, async (t) => {
  const guest = await standIn(t);
  for (let turn = 0; turn < 6; turn++) await write(guest, 50 + turn, turn * 10 * mib, 10 * mib);
  const pair = await startPair(t);
  const image = join(pair.folder, 'image.raw');
  await copyFile(guest.disks[0]!.path, image);
  await truncate(image, sizeBytes);
  await write(guest, 99, 20 * mib, mib);
  await protect(pair, guest, true);
  await waitFor(async () => (await pair.target.client.report()).groups.length === 1, { limitMs: 30_000, what: 'the group to be announced' });
  await pair.target.client.seedFrom('web1', 0, image);
  await pair.source.client.resume('web1');
  await pair.newPoint('web1');
  const sent = (await pair.source.client.report()).targets[0]!.sentBytes;
  t.ok(sent < 4 * mib, `${sent} bytes were sent for 1 MiB that differs`);
  await isReplicaEqual(t, pair, guest);
});
