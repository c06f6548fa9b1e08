/**
 * Kills at random instants: source, target, both, and the link, under a guest with two disks, each on its own I/O thread.
 * In the end the replica equals the guest's disks byte for byte, QEMU holds nothing of ours, and no full pass was needed.
 */
import { join } from 'node:path';
import t from 'tap';
import { limitMs, turns } from '../support/extent.ts';
import { seededFractions } from '../support/seeded.ts';
import { imageDifference, ourObjects, withQmp } from '../support/guest-look.ts';
import { startPair } from '../support/daemons.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';

const rounds = turns('AFTERIMAGE_KILL_ROUNDS', 3, 12);

void t.test('kills of source, target and link at random instants heal without a full pass', { timeout: limitMs(280_000) }, async (t) => {
  const folder = t.testdir({});
  const raw = await createLabDisk(join(folder, 'a.raw'), 'raw', 128 * 1024 ** 2);
  const qcow2 = await createLabDisk(join(folder, 'b.qcow2'), 'qcow2', 96 * 1024 ** 2);
  const pair = await startPair(t, { isLinkCuttable: true });
  const guest = await startLabGuest(t, {
    mode: 'raw', churn: 4096, timeLimitMs: limitMs(270_000),
    disks: [{ path: raw, format: 'raw', iothread: true }, { path: qcow2, format: 'qcow2', iothread: true }],
  });
  await guest.waitForLine(/^AF READY/, 60_000);
  await pair.protect('web1', guest.qmpPath);
  await pair.newPoint('web1', 60_000);

  const seed = Number(process.env['AFTERIMAGE_SEED'] ?? Date.now() % 1_000_000);
  t.comment(`seed ${seed}`);
  const fraction = seededFractions(seed);
  for (let round = 0; round < rounds; round++) {
    // The instant of the kill is what is drawn, not something waited for.
    await new Promise((resolve) => setTimeout(resolve, fraction() * 1500));
    const victim = ['source', 'target', 'both', 'link'][Math.floor(fraction() * 4)]!;
    t.comment(`round ${round}: ${victim}`);
    if (victim === 'source' || victim === 'both') await pair.source.kill();
    if (victim === 'target' || victim === 'both') await pair.target.kill();
    if (victim === 'link') pair.link!.cut();
    if (victim === 'target' || victim === 'both') await pair.target.start();
    if (victim === 'source' || victim === 'both') await pair.source.start();
    if (victim === 'link') pair.link!.mend();
    await pair.newPoint('web1');
    const { fullPasses, phase } = await pair.guest('web1');
    t.ok(fullPasses <= 1 && phase !== 'resync', `round ${round}: no full pass after the first sync`);
  }

  t.equal(await withQmp(guest.ownQmpPath, async (qmp) => { await qmp.execute('stop'); return 'stopped'; }), 'stopped');
  await pair.newPoint('web1');
  const { newestPoint } = await pair.newPoint('web1');
  await waitFor(async () => ((await pair.group('web1')).applied?.point ?? 0) >= newestPoint!.point, { limitMs: 30_000, what: 'the newest point to be applied' });
  await pair.source.client.unprotect('web1', false);
  t.same(await ourObjects(guest.ownQmpPath), [], 'nothing of ours is left in QEMU');
  t.same(guest.qemuLog.map((line) => line.text), [], 'QEMU had nothing to say');
  t.notOk(guest.serial.some((line) => line.text.includes('FAILED')), 'no guest write failed');
  const disks = (await pair.group('web1')).disks;
  await withQmp(guest.ownQmpPath, (qmp) => qmp.execute('quit'));
  await guest.exited;
  t.equal(await imageDifference(raw, 'raw', disks[0]!.replicaPath), null, 'first disk: replica = guest disk');
  t.equal(await imageDifference(qcow2, 'qcow2', disks[1]!.replicaPath), null, 'second disk: replica = guest disk');
});
