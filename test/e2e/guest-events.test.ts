/**
 * What happens to a guest while it is protected: its QEMU is killed, an older copy of its image is put back with the old
 * bitmap inside, an external snapshot is taken and committed back under load. Each is noticed, healed by comparing hashes
 * where bitmaps cannot be trusted, and no wrong point is sealed meanwhile: the replica ends equal to the guest's disks.
 */
import { copyFile, open } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { LabGuest } from '../../scripts/lab/lab-guest.ts';
import { startPair, type Pair } from '../support/daemons.ts';
import { isLong } from '../support/extent.ts';
import { imageDifference, ourObjects, withQmp } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';

const diskBytes = 96 * 1024 ** 2;

/** Stops the guest's processors, waits until what its disks now hold is applied, takes everything out, ends QEMU. */
async function settle(t: Test, pair: Pair, guest: LabGuest): Promise<void> {
  await withQmp(guest.ownQmpPath, (qmp) => qmp.execute('stop'));
  await pair.newPoint('web1');
  const { newestPoint } = await pair.newPoint('web1');
  await waitFor(async () => ((await pair.group('web1')).applied?.point ?? 0) >= newestPoint!.point, { limitMs: 30_000, what: 'the newest point to be applied' });
  await pair.source.client.unprotect('web1', false);
  t.same(await ourObjects(guest.ownQmpPath), [], 'nothing of ours is left in QEMU');
  await withQmp(guest.ownQmpPath, (qmp) => qmp.execute('quit'));
  await guest.exited;
}

void t.test('the guest’s QEMU is killed: its bitmaps are gone, only what differs moves', { timeout: 200_000 }, async (t) => {
  const folder = t.testdir({});
  const path = await createLabDisk(join(folder, 'a.qcow2'), 'qcow2', diskBytes);
  const pair = await startPair(t);
  const options = { socketFolder: pair.folder, mode: 'raw' as const, churn: 2048, timeLimitMs: 180_000, disks: [{ path, format: 'qcow2' as const, iothread: true }] };
  const first = await startLabGuest(t, options);
  await first.waitForLine(/^AF READY/, 60_000);
  await pair.protect('web1', first.qmpPath);
  await pair.newPoint('web1');
  await first.kill();
  await waitFor(async () => (await pair.guest('web1')).phase === 'connecting', { limitMs: 30_000, what: 'the loss to be noticed' });

  const second = await startLabGuest(t, options);
  await second.waitForLine(/^AF READY/, 60_000);
  const { fullPasses, phase } = await pair.newPoint('web1', 90_000);
  t.equal(phase, 'protected');
  t.equal(fullPasses, 2, 'the first sync and one resync');
  const log = await pair.source.log();
  t.match(log, /resync: /);
  await settle(t, pair, second);
  t.equal(await imageDifference(path, 'qcow2', (await pair.group('web1')).disks[0]!.replicaPath), null, 'replica = guest disk');
});

void t.test('an older copy of the qcow2 is put back, its old bitmap inside', { timeout: 200_000 }, async (t) => {
  const folder = t.testdir({});
  const path = await createLabDisk(join(folder, 'a.qcow2'), 'qcow2', diskBytes);
  const pair = await startPair(t);
  const options = { socketFolder: pair.folder, mode: 'raw' as const, churn: 2048, timeLimitMs: 180_000, disks: [{ path, format: 'qcow2' as const }] };
  const first = await startLabGuest(t, options);
  await first.waitForLine(/^AF READY/, 60_000);
  await pair.protect('web1', first.qmpPath);
  await pair.newPoint('web1');
  await withQmp(first.ownQmpPath, (qmp) => qmp.execute('quit'));
  await first.exited;
  const copy = join(folder, 'old.qcow2');
  await copyFile(path, copy);

  const second = await startLabGuest(t, options);
  await second.waitForLine(/^AF READY/, 60_000);
  const clean = await pair.newPoint('web1', 60_000);
  t.equal(clean.fullPasses, 1, 'a clean shutdown keeps the bitmap in the image: no resync');
  await pair.newPoint('web1');
  await withQmp(second.ownQmpPath, (qmp) => qmp.execute('quit'));
  await second.exited;
  await copyFile(copy, path);

  const third = await startLabGuest(t, options);
  await third.waitForLine(/^AF READY/, 60_000);
  const healed = await pair.newPoint('web1', 90_000);
  t.equal(healed.fullPasses, 2, 'the old bitmap was not believed: the disks were compared');
  await settle(t, pair, third);
  t.equal(await imageDifference(path, 'qcow2', (await pair.group('web1')).disks[0]!.replicaPath), null, 'replica = guest disk');
});

// Also in test/capture/operator-acts.test.ts, without a target.
if (isLong) void t.test('an external snapshot is taken and committed back under load', { timeout: 200_000 }, async (t) => {
  const folder = t.testdir({});
  const path = await createLabDisk(join(folder, 'a.qcow2'), 'qcow2', diskBytes);
  const overlay = await createLabDisk(join(folder, 'b.qcow2'), 'qcow2', diskBytes);
  const pair = await startPair(t);
  const guest = await startLabGuest(t, { mode: 'raw', churn: 2048, timeLimitMs: 180_000, disks: [{ path, format: 'qcow2', iothread: true }] });
  await guest.waitForLine(/^AF READY/, 60_000);
  await pair.protect('web1', guest.qmpPath);
  await pair.newPoint('web1');

  await withQmp(guest.ownQmpPath, async (qmp) => {
    await qmp.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'operators-overlay', file: { driver: 'file', filename: overlay }, backing: null });
    await retried(() => qmp.execute('blockdev-snapshot', { node: 'node0', overlay: 'operators-overlay' }));
  });
  await pair.newPoint('web1', 90_000);
  await withQmp(guest.ownQmpPath, async (qmp) => {
    const ready = new Promise<void>((resolve) => { qmp.onEvent(({ event }) => { if (event === 'BLOCK_JOB_READY') resolve(); }); });
    await retried(() => qmp.execute('block-commit', { 'job-id': 'operators-commit', device: 'operators-overlay' }));
    await ready;
    await retried(() => qmp.execute('job-complete', { id: 'operators-commit' }));
    await waitFor(async () => (await qmp.execute<{ id: string }[]>('query-jobs')).every(({ id }) => id !== 'operators-commit'), { limitMs: 30_000, what: 'the commit to end' });
    // As libvirt does: while the overlay stands on the disk's node, QEMU lets no job read that node whole.
    await qmp.execute('blockdev-del', { 'node-name': 'operators-overlay' });
  });
  await pair.newPoint('web1', 90_000);
  await settle(t, pair, guest);
  t.equal(await imageDifference(path, 'qcow2', (await pair.group('web1')).disks[0]!.replicaPath), null, 'replica = guest disk');
});

/** An operator's command may meet a cycle's job, which holds the disk for a moment: then it is given again. */
function retried(act: () => Promise<unknown>): Promise<true> {
  return waitFor(() => act().then(() => true as const, () => false as const), { limitMs: 20_000, what: 'QEMU to take the operator’s command' });
}

if (isLong) void t.test('a block of the replica rots: it is found, and mended by comparing with the guest', { timeout: 200_000 }, async (t) => {
  const folder = t.testdir({});
  const path = await createLabDisk(join(folder, 'a.qcow2'), 'qcow2', diskBytes);
  const pair = await startPair(t);
  const guest = await startLabGuest(t, { socketFolder: pair.folder, mode: 'raw' as const, churn: 2048, timeLimitMs: 180_000, disks: [{ path, format: 'qcow2' as const }] });
  await guest.waitForLine(/^AF READY/, 60_000);
  await pair.protect('web1', guest.qmpPath);
  await pair.newPoint('web1');
  t.same((await pair.target.client.verify('web1', undefined)).findings, [], 'sound, and remembered as it is');

  const { replicaPath } = (await pair.group('web1')).disks[0]!;
  // Beyond what the guest's workload touches.
  const rottenAt = diskBytes - 1024 ** 2;
  const image = await open(replicaPath, 'r+');
  await image.write(Buffer.alloc(4096, 0x5a), 0, 4096, rottenAt);
  await image.close();
  const { findings } = await pair.target.client.verify('web1', undefined);
  t.match(findings, [{ path: replicaPath }], 'one place, in the replica');
  t.ok(findings[0]!.offset <= rottenAt && rottenAt < findings[0]!.offset + 65_536, 'the block is named');

  await pair.source.client.resync('web1');
  await waitFor(async () => { const { fullPasses, phase } = await pair.guest('web1'); return fullPasses === 2 && phase === 'protected'; }, { limitMs: 90_000, what: 'the comparison' });
  await pair.newPoint('web1');
  await settle(t, pair, guest);
  t.equal(await imageDifference(path, 'qcow2', replicaPath), null, 'replica = guest disk');
});
