/**
 * A domain of a real libvirtd is protected, through libvirt's monitor and through one of its own. What its operator does with libvirt meanwhile (snapshots, commits, backups with
 * checkpoints, resizes, a restart of libvirtd) works as if we were not there, and no wrong point is sealed: the replica ends equal to the guest's disks.
 */
import { join } from 'node:path';
import { writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { connectGuest } from '../../qemu/connect-guest.ts';
import { discoverGuests } from '../../qemu/discover-guests.ts';
import { addMonitor } from '../../qemu/libvirt/add-monitor.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { startPair, type Pair } from '../support/daemons.ts';
import { isLong } from '../support/extent.ts';
import { imageDifference } from '../support/guest-look.ts';
import { createLabDisk } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';
import { startLibvirt, type PrivateLibvirt } from './support/private-libvirt.ts';

const diskBytes = 48 * 1024 ** 2;

interface Site { readonly libvirt: PrivateLibvirt; readonly pair: Pair; readonly raw: string; readonly qcow2: string; readonly place: string }

async function protectedDomain(t: Test): Promise<Site> {
  const libvirt = await startLibvirt(t);
  const raw = await createLabDisk(join(libvirt.folder, 'a.raw'), 'raw', diskBytes);
  const qcow2 = await createLabDisk(join(libvirt.folder, 'b.qcow2'), 'qcow2', diskBytes);
  await libvirt.define({ name: 'web1', disks: [{ path: raw, format: 'raw' }, { path: qcow2, format: 'qcow2' }], append: 'af.mode=raw af.churn=500' });
  const pair = await startPair(t);
  await libvirt.virsh('start', 'web1');
  await libvirt.waitForLine('web1', /^AF READY/m, 60_000);
  const place = libvirt.place('web1');
  await pair.protect('web1', place, 2000);
  await pair.newPoint('web1');
  return { libvirt, pair, raw, qcow2, place };
}

async function through<T>({ place }: Site, act: (qmp: QmpConnection) => Promise<T>): Promise<T> {
  const { qmp } = await connectGuest(place);
  try {
    return await act(qmp);
  } finally {
    qmp.close();
  }
}

/** Stops the guest's processors, waits until what its disks now hold is applied, takes everything out, and ends it. */
async function settle(t: Test, { libvirt, pair, raw, qcow2, ...site }: Site): Promise<void> {
  await libvirt.virsh('suspend', 'web1');
  await pair.newPoint('web1', 90_000);
  const { newestPoint } = await pair.newPoint('web1');
  await waitFor(async () => ((await pair.group('web1')).applied?.point ?? 0) >= newestPoint!.point, { limitMs: 30_000, what: 'the newest point to be applied' });
  await pair.source.client.unprotect('web1', false);
  const left = await through({ libvirt, pair, raw, qcow2, ...site }, async (qmp) => JSON.stringify([await qmp.execute('query-named-block-nodes', { flat: true }), await qmp.execute('query-block-exports')]));
  t.notMatch(left, /afterimage/, 'nothing of ours is left in QEMU');
  await libvirt.virsh('destroy', 'web1');
  const { disks } = await pair.group('web1');
  t.equal(await imageDifference(raw, 'raw', disks[0]!.replicaPath), null, 'replica = guest disk (raw)');
  t.equal(await imageDifference(qcow2, 'qcow2', disks[1]!.replicaPath), null, 'replica = guest disk (qcow2)');
}

void t.test('through libvirt, over a restart of libvirtd, and through its own monitor after the domain’s', { timeout: 280_000, skip: isLong ? false : 'with --long' }, async (t) => {
  const site = await protectedDomain(t);
  const { libvirt, pair, place } = site;
  t.match((await discoverGuests({ uri: libvirt.uri, pveRoot: libvirt.folder })).guests, [{ manager: 'libvirt', name: 'web1', place, isRunning: true, monitor: 'manager' }], 'it is listed');
  t.equal((await pair.guest('web1')).phase, 'protected');

  await libvirt.restart();
  await pair.newPoint('web1', 90_000);
  t.equal((await pair.guest('web1')).fullPasses, 1, 'a restart of libvirtd costs no comparison');

  const own = join(libvirt.folder, 'web1.afterimage.qmp');
  t.match(await addMonitor({ kind: 'libvirt', uri: libvirt.uri, domain: 'web1' }, own), { path: own, wasThere: false, isRunningWithout: true });
  await libvirt.virsh('destroy', 'web1');
  await waitFor(async () => (await pair.guest('web1')).phase === 'connecting', { limitMs: 30_000, what: 'the end of the domain to be noticed' });
  await libvirt.virsh('start', 'web1');
  await pair.newPoint('web1', 90_000);
  t.match(await discoverGuests({ uri: libvirt.uri, pveRoot: libvirt.folder }), { guests: [{ monitor: 'own' }] });
  t.match(await connectGuest(place, { connectTimeoutMs: 300 }).catch((error: unknown) => error), { code: 'QMP_UNREACHABLE' }, 'the source is connected to its own monitor');
  await settle(t, site);
});

if (isLong) void t.test('an overlay that libvirt lays over a disk has our bitmap’s name, and not what it held', { timeout: 280_000 }, async (t) => {
  const site = await protectedDomain(t);
  const { libvirt, pair } = site;
  const overlay = join(libvirt.folder, 'b.overlay');
  await retried(() => libvirt.virsh('snapshot-create-as', 'web1', '--disk-only', '--no-metadata', '--diskspec', 'vda,snapshot=no', '--diskspec', `vdb,file=${overlay}`));
  await waitFor(async () => { const { fullPasses, phase } = await pair.guest('web1'); return fullPasses === 2 && phase === 'protected'; }, { limitMs: 90_000, what: 'a comparison after the snapshot' });
  await pair.newPoint('web1', 90_000);
  await retried(() => libvirt.virsh('blockcommit', 'web1', 'vdb', '--active', '--pivot', '--wait'));
  await pair.newPoint('web1', 90_000);
  await settle(t, site);
});

if (isLong) void t.test('what an operator does with libvirt meanwhile', { timeout: 280_000 }, async (t) => {
  const site = await protectedDomain(t);
  const { libvirt, pair } = site;
  await retried(() => libvirt.virsh('blockresize', 'web1', 'vda', `${diskBytes / 1024 + 4096}KiB`));
  await pair.newPoint('web1', 90_000);

  const backup = join(libvirt.folder, 'backup.xml');
  await writeFile(backup, `<domainbackup><disks><disk name='vda' backup='no'/><disk name='vdb' type='file'><target file='${join(libvirt.folder, 'b.backup')}'/><driver type='qcow2'/></disk></disks></domainbackup>`);
  const checkpoint = join(libvirt.folder, 'checkpoint.xml');
  await writeFile(checkpoint, '<domaincheckpoint><name>theirs</name><disks><disk name=\'vda\' checkpoint=\'no\'/><disk name=\'vdb\' checkpoint=\'bitmap\'/></disks></domaincheckpoint>');
  await retried(() => libvirt.virsh('backup-begin', 'web1', backup, checkpoint));
  await waitFor(async () => /None/.test(await libvirt.virsh('domjobinfo', 'web1')), { limitMs: 60_000, what: 'libvirt’s backup to end' });
  await pair.newPoint('web1', 90_000);
  t.match(await through(site, async (qmp) => JSON.stringify(await qmp.execute('query-named-block-nodes', { flat: true }))), /"name":"theirs"/, 'libvirt’s bitmap is there');
  await libvirt.virsh('checkpoint-delete', 'web1', 'theirs');

  await retried(() => libvirt.virsh('snapshot-create-as', 'web1', '--disk-only', '--no-metadata', '--diskspec', `vda,file=${join(libvirt.folder, 'a.overlay')}`, '--diskspec', `vdb,file=${join(libvirt.folder, 'b.overlay')}`));
  await pair.newPoint('web1', 90_000);
  for (const disk of ['vda', 'vdb']) await retried(() => libvirt.virsh('blockcommit', 'web1', disk, '--active', '--pivot', '--wait'));
  await pair.newPoint('web1', 90_000);
  await settle(t, site);
});

/** An operator's command may meet a cycle's job, which holds the disk for a moment: then it is given again. */
function retried(act: () => Promise<unknown>): Promise<true> {
  let last: unknown;
  return waitFor(() => act().then(() => true as const, (error: unknown) => { last = error; return false as const; }), { limitMs: 30_000, what: 'libvirt to take the operator’s command', everyMs: 200 })
    .catch((error: unknown) => { throw new Error(`${String(error)}: ${String(last)}`); });
}
