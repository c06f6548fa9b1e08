/**
 * Backups as Proxmox VE takes them, beside the protection of the same guest: a backup job on the node beneath the throttle node, whose copy-before-write filter comes between the two,
 * and fleecing, in which the guest's old data goes to an image of its own and the backup is read from there. Points go on, and the backup is exactly what the disks held at its start.
 * The nodes are those of Proxmox VE 9; the commands are QEMU's own, as `backup` of Proxmox VE's QEMU makes the same of them (pve-qemu, `pve-backup.c`).
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { startPair, type Pair } from '../support/daemons.ts';
import { isLong } from '../support/extent.ts';
import { imageDifference, withQmp } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';

const run = promisify(execFile);
const mib = 1024 ** 2;
const diskBytes = 48 * mib;
/** A disk takes some 12 s of a backup, so that several cuts fall into it, bytes per second. */
const slowly = 4 * mib;

interface Site { readonly pair: Pair; readonly folder: string; readonly disk: string; act<T>(does: (qmp: QmpConnection) => Promise<T>): Promise<T> }

/** A guest with one disk; `top`: the node that its device has. */
async function protectedGuest(t: Test, top: 'throttle' | 'format'): Promise<Site> {
  const folder = t.testdir({});
  const disk = await createLabDisk(join(folder, 'vm-103-disk-0.raw'), 'raw', diskBytes);
  const format = { driver: 'raw', 'node-name': 'f72b86ca87ba6bc7e90fffd586061fc', discard: 'unmap', file: { driver: 'file', filename: disk, 'node-name': 'e72b86ca87ba6bc7e90fffd586061fc', discard: 'unmap' } };
  const throttle = { driver: 'throttle', 'node-name': 'drive-virtio0', 'throttle-group': 'throttle-drive-virtio0', discard: 'unmap', file: format };
  const pair = await startPair(t);
  const guest = await startLabGuest(t, {
    mode: 'raw', churn: 400, timeLimitMs: 200_000, disks: [],
    extraArgs: [
      '-object', '{"id":"throttle-drive-virtio0","limits":{},"qom-type":"throttle-group"}', '-blockdev', JSON.stringify(top === 'throttle' ? throttle : format),
      '-device', `virtio-blk-pci,drive=${top === 'throttle' ? throttle['node-name'] : format['node-name']},id=virtio0`,
    ],
  });
  await guest.waitForLine(/^AF READY/, 60_000);
  await pair.protect('web1', guest.qmpPath, 1000);
  await pair.newPoint('web1');
  return { pair, folder, disk, act: (does) => withQmp(guest.ownQmpPath, does) };
}

/** What the disk holds while `start` begins a backup, in a file of its own. */
async function begin({ folder, disk, act }: Site, start: (qmp: QmpConnection) => Promise<void>): Promise<string> {
  const reference = join(folder, 'reference.raw');
  await act(async (qmp) => {
    await qmp.execute('stop');
    await run('qemu-img', ['convert', '-U', '-f', 'raw', '-O', 'raw', disk, reference]);
    await start(qmp);
    await qmp.execute('cont');
  });
  return reference;
}

const addFile = (qmp: QmpConnection, node: string, path: string): Promise<unknown> => qmp.execute('blockdev-add', { driver: 'raw', 'node-name': node, file: { driver: 'file', filename: path } });

/** Points go on while the backup runs; then it ends, is what it should be, and so is the replica. */
async function finish(t: Test, { pair, disk, act }: Site, reference: string, backup: string, tidy: (qmp: QmpConnection) => Promise<void>): Promise<void> {
  for (let points = 0; points < 3; points += 1) await pair.newPoint('web1');
  const jobs = await act((qmp) => qmp.execute<{ id: string; status: string }[]>('query-jobs'));
  t.ok(jobs.some(({ id, status }) => id === 'backup-virtio0' && status === 'running'), 'three points came while the backup ran');
  await act((qmp) => qmp.execute('block-job-set-speed', { device: 'backup-virtio0', speed: 0 }));
  await waitFor(async () => (await act((qmp) => qmp.execute<{ id: string; status: string; error?: string }[]>('query-jobs'))).find(({ id }) => id === 'backup-virtio0')?.status === 'concluded', { limitMs: 60_000, what: 'the backup to end' });
  const [ended] = (await act((qmp) => qmp.execute<{ id: string; error?: string }[]>('query-jobs'))).filter(({ id }) => id === 'backup-virtio0');
  t.equal(ended?.error, undefined, 'the backup met no error');
  await act(async (qmp) => {
    await qmp.execute('job-dismiss', { id: 'backup-virtio0' });
    await tidy(qmp);
  });
  t.equal(await imageDifference(backup, 'raw', reference), null, 'the backup holds what the disk held at its start');
  await act((qmp) => qmp.execute('stop'));
  await pair.newPoint('web1');
  const { newestPoint, fullPasses } = await pair.newPoint('web1');
  t.equal(fullPasses, 1, 'no comparison was needed');
  await waitFor(async () => ((await pair.group('web1')).applied?.point ?? 0) >= newestPoint!.point, { limitMs: 30_000, what: 'the newest point to be applied' });
  t.equal(await imageDifference(disk, 'raw', (await pair.group('web1')).disks[0]!.replicaPath), null, 'replica = guest disk');
}

if (isLong) void t.test('a backup job beneath the throttle node', { timeout: 200_000 }, async (t) => {
  const site = await protectedGuest(t, 'throttle');
  const backup = await createLabDisk(join(site.folder, 'backup.raw'), 'raw', diskBytes);
  const reference = await begin(site, async (qmp) => {
    await addFile(qmp, 'backup', backup);
    await qmp.execute('blockdev-backup', { 'job-id': 'backup-virtio0', device: 'f72b86ca87ba6bc7e90fffd586061fc', target: 'backup', sync: 'full', speed: slowly, 'auto-dismiss': false });
  });
  await finish(t, site, reference, backup, async (qmp) => { await qmp.execute('blockdev-del', { 'node-name': 'backup' }); });
});

if (isLong) void t.test('a backup with a fleecing image', { timeout: 200_000 }, async (t) => {
  const site = await protectedGuest(t, 'format');
  const [backup, fleece] = [await createLabDisk(join(site.folder, 'backup.raw'), 'raw', diskBytes), await createLabDisk(join(site.folder, 'vm-103-fleece-0.raw'), 'raw', diskBytes)];
  const reference = await begin(site, async (qmp) => {
    await addFile(qmp, 'drive-virtio0-fleecing', fleece);
    await addFile(qmp, 'backup', backup);
    await qmp.execute('blockdev-add', { driver: 'copy-before-write', 'node-name': 'cbw-virtio0', file: 'f72b86ca87ba6bc7e90fffd586061fc', target: 'drive-virtio0-fleecing' });
    await qmp.execute('qom-set', { path: '/machine/peripheral/virtio0', property: 'drive', value: 'cbw-virtio0' });
    await qmp.execute('blockdev-add', { driver: 'snapshot-access', 'node-name': 'snapshot-virtio0', file: 'cbw-virtio0' });
    await qmp.execute('blockdev-backup', { 'job-id': 'backup-virtio0', device: 'snapshot-virtio0', target: 'backup', sync: 'full', speed: slowly, 'auto-dismiss': false });
  });
  await finish(t, site, reference, backup, async (qmp) => {
    await qmp.execute('blockdev-del', { 'node-name': 'snapshot-virtio0' });
    await qmp.execute('qom-set', { path: '/machine/peripheral/virtio0', property: 'drive', value: 'f72b86ca87ba6bc7e90fffd586061fc' });
    for (const node of ['cbw-virtio0', 'drive-virtio0-fleecing', 'backup']) await qmp.execute('blockdev-del', { 'node-name': node });
  });
});
