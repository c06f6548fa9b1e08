/** The inventory of disks and the probe of features, on real QEMU and a real storage daemon. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { listGuestDisks, listStorageDaemonDisks, takeDiskInventory, takeStorageDaemonInventory } from '../../qemu/guest-disks.ts';
import { probeFeatures, unsuited } from '../../qemu/features.ts';
import { connect, shortFolder, startQemu, startStorageDaemon } from './real-qemu.ts';

const mib = 1024 * 1024;

function image(folder: string, name: string, sizeMib: number, ...options: string[]): string {
  const path = join(folder, name);
  execFileSync('qemu-img', ['create', '-q', '-f', name.slice(name.lastIndexOf('.') + 1), ...options, path, `${sizeMib}M`]);
  return path;
}

t.test('a guest with every kind of drive', async (t) => {
  const folder = shortFolder(t);
  const [a, b, c, d, e, f] = [
    image(folder, 'a.qcow2', 16), image(folder, 'b.raw', 8), image(folder, 'c.raw', 4), image(folder, 'd.qcow2', 4, '-o', 'compat=0.10'), image(folder, 'e.raw', 2), image(folder, 'f.raw', 1),
  ];
  const overlay = join(folder, 'overlay.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', a, overlay]);
  const running = await startQemu(t, [
    '-machine', 'q35', '-S', '-m', '64', '-object', 'throttle-group,id=tg', '-object', 'iothread,id=io',
    '-blockdev', `driver=qcow2,node-name=under,file.driver=file,file.filename=${overlay}`,
    '-blockdev', 'driver=throttle,node-name=slow,throttle-group=tg,file=under', '-blockdev', 'driver=copy-on-read,node-name=top,file=slow',
    '-device', 'virtio-blk-pci,id=d0,drive=top,iothread=io',
    '-drive', `if=none,id=drive-b,file=${b},format=raw`, '-device', 'virtio-blk-pci,drive=drive-b',
    '-blockdev', `driver=file,node-name=plain,filename=${c}`, '-device', 'virtio-scsi-pci', '-device', 'scsi-hd,drive=plain',
    '-drive', `if=ide,file=${d},format=qcow2`,
    '-drive', `if=none,id=ro,file=${e},format=raw,readonly=on`, '-device', 'virtio-blk-pci,id=d9,drive=ro',
    '-drive', `if=none,id=iso,file=${f},format=raw,readonly=on`, '-device', 'ide-cd,drive=iso,bus=ide.2', '-device', 'ide-cd,id=empty,bus=ide.3',
    '-drive', `if=none,id=lonely,file=${f},format=raw,readonly=on`,
  ], folder);
  const qmp = await connect(t, running);
  const { disks, skipped } = await takeDiskInventory(qmp);
  const by = new Map(disks.map((disk) => [disk.name, disk]));
  t.same([...by.keys()].sort(), ['/machine/peripheral-anon/device[2]', 'd0', 'drive-b', 'ide0-hd0']);
  t.match(by.get('d0'), { topNode: 'top', trackNode: 'under', driver: 'qcow2', isBitmapPersistable: true, sizeBytes: 16 * mib, qdev: '/machine/peripheral/d0/virtio-backend' });
  t.same(by.get('d0')?.chain.slice(0, 2), ['slow', 'under']);
  t.equal(by.get('d0')?.chain.length, 3, 'with the backing file');
  t.match(by.get('drive-b'), { driver: 'raw', isBitmapPersistable: false, sizeBytes: 8 * mib, chain: [] });
  t.equal(by.get('drive-b')?.topNode, by.get('drive-b')?.trackNode);
  t.match(by.get('/machine/peripheral-anon/device[2]'), { topNode: 'plain', trackNode: 'plain', driver: 'file', sizeBytes: 4 * mib });
  t.match(by.get('ide0-hd0'), { driver: 'qcow2', isBitmapPersistable: false }, 'a qcow2 of version 2 keeps no bitmaps');
  t.same(Object.fromEntries(skipped.map(({ name, reason }) => [name, reason])), {
    d9: 'read-only', iso: 'a removable drive', empty: 'a removable drive, empty', lonely: 'attached to no device',
  });

  t.test('bitmaps can be made where it says, persistent where it says', async (t) => {
    for (const disk of disks) {
      await qmp.execute('block-dirty-bitmap-add', { node: disk.trackNode, name: 'probe', persistent: disk.isBitmapPersistable });
      await qmp.execute('block-dirty-bitmap-remove', { node: disk.trackNode, name: 'probe' });
    }
    t.equal(disks.length, 4);
  });

  t.test('a filter of ours, put in above, is seen through', async (t) => {
    await qmp.execute('blockdev-add', { driver: 'raw', 'node-name': 'afterimage-x', file: 'top' });
    await qmp.execute('qom-set', { path: '/machine/peripheral/d0', property: 'drive', value: 'afterimage-x' });
    const disk = (await listGuestDisks(qmp)).find(({ name }) => name === 'd0');
    t.match(disk, { topNode: 'afterimage-x', trackNode: 'under' });
    await qmp.execute('qom-set', { path: '/machine/peripheral/d0', property: 'drive', value: 'top' });
    await qmp.execute('blockdev-del', { 'node-name': 'afterimage-x' });
  });

  t.test('an external snapshot is a new track node, with the old one beneath', async (t) => {
    const before = by.get('drive-b')!;
    await qmp.execute('blockdev-snapshot-sync', { 'node-name': before.topNode, 'snapshot-file': join(folder, 'snap.qcow2'), 'snapshot-node-name': 'snap' });
    const after = (await listGuestDisks(qmp)).find(({ name }) => name === 'drive-b');
    t.match(after, { topNode: 'snap', trackNode: 'snap', driver: 'qcow2', isBitmapPersistable: true, chain: [before.trackNode] });
  });
});

t.test('firmware flash, floppy, nvme and USB', async (t) => {
  const folder = shortFolder(t);
  const vars = image(folder, 'vars.raw', 1);
  const running = await startQemu(t, [
    '-machine', 'pc', '-S', '-m', '64', '-drive', `if=pflash,format=raw,file=${vars}`,
    '-drive', `if=floppy,format=raw,file=${image(folder, 'fd.raw', 1)}`,
    '-drive', `if=none,id=n,format=raw,file=${image(folder, 'n.raw', 4)}`, '-device', 'nvme,id=nv0,serial=s,drive=n',
    '-blockdev', `driver=file,node-name=stick,filename=${image(folder, 'u.raw', 4)}`, '-device', 'qemu-xhci', '-device', 'usb-storage,id=usb0,drive=stick',
  ], folder);
  const { disks, skipped } = await takeDiskInventory(await connect(t, running));
  t.same(disks.map(({ name }) => name).sort(), ['nv0', 'usb0']);
  t.same(skipped.map(({ reason }) => reason).sort(), ['a floppy drive', 'firmware flash']);
});

t.test('a storage daemon, whose disks the caller names', async (t) => {
  const folder = shortFolder(t);
  const running = await startStorageDaemon(t, [
    '--blockdev', `driver=qcow2,node-name=one,file.driver=file,file.filename=${image(folder, 'one.qcow2', 8)}`,
    '--blockdev', `driver=file,node-name=two,filename=${image(folder, 'two.raw', 4)}`,
    '--blockdev', `driver=file,node-name=ro,read-only=on,filename=${image(folder, 'ro.raw', 4)}`,
    '--object', 'throttle-group,id=tg', '--blockdev', 'driver=throttle,node-name=afterimage-top,throttle-group=tg,file=two',
  ], folder);
  const qmp = await connect(t, running);
  const disks = await listStorageDaemonDisks(qmp, [{ name: 'a', node: 'one' }, { name: 'b', node: 'afterimage-top' }]);
  t.match(disks, [
    { name: 'a', qdev: null, topNode: 'one', trackNode: 'one', driver: 'qcow2', isBitmapPersistable: true, sizeBytes: 8 * mib, chain: [] },
    { name: 'b', qdev: null, topNode: 'afterimage-top', trackNode: 'two', driver: 'file', isBitmapPersistable: false, sizeBytes: 4 * mib, chain: ['two'] },
  ]);
  const { skipped } = await takeStorageDaemonInventory(qmp, [{ name: 'c', node: 'nothing' }, { name: 'd', node: 'ro' }]);
  t.same(skipped, [{ name: 'c', qdev: null, reason: 'there is no node nothing' }, { name: 'd', qdev: null, reason: 'read-only' }]);

  const features = await probeFeatures(qmp);
  t.match(features, { isStorageDaemon: true, hasQuorum: true, hasNullCo: true, hasQcow2: true, hasVpc: true, hasTransaction: true, hasBackupFilterName: true });
  t.same(unsuited(features), []);
});

t.test('features of a QEMU', async (t) => {
  const features = await probeFeatures(await connect(t, await startQemu(t)));
  t.match(features, { isStorageDaemon: false, hasQuorum: true, hasTransaction: true, hasBackupFilterName: true, hasBitmaps: true, hasMirror: true, hasNbdServer: true, hasBlockGraph: true });
  t.same(unsuited(features), []);
  t.match(unsuited({ ...features, version: { major: 7, minor: 1, micro: 0 }, hasQuorum: false }), [/older than 7\.2/, /quorum/]);
  t.same(unsuited({ ...features, version: { major: 10, minor: 0, micro: 0 } }), []);
});
