/**
 * Guests of Proxmox VE, without Proxmox VE: its config file as `qm` writes it, and a real QEMU that is started with the block devices, monitors and IDs of the command line that
 * Proxmox VE 9.1 gives (`qm showcmd`), and of version 8's.
 */
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { isFault } from '../../journal/fault.ts';
import { connectGuest } from '../../qemu/connect-guest.ts';
import { discoverGuests } from '../../qemu/discover-guests.ts';
import { takeDiskInventory } from '../../qemu/guest-disks.ts';
import { formatPlace, parsePlace } from '../../qemu/guest-place.ts';
import { monitorPaths } from '../../qemu/own-monitor-plan.ts';
import { formatPveConfig, parsePveConfig, pveValue, splitPveArgs } from '../../qemu/pve/pve-config.ts';
import { pveOwnMonitorPath, pveSocketPath } from '../../qemu/pve/pve-guest.ts';
import { createLabDisk } from '../support/lab-guest.ts';
import { shortFolder, startRunning, type Running } from '../qemu/real-qemu.ts';

const config = (args: string): string => `#the shop's database
#second line: with a colon
agent: 1
${args}boot: order=scsi0;net0
cores: 2
memory: 128
name: shop-db
net0: virtio=BC:24:11:96:18:29,bridge=vmbr0,firewall=1
scsi0: local-lvm:vm-103-disk-0,discard=on,iothread=1,size=16M
scsihw: virtio-scsi-single
smbios1: uuid=0f2e2a5d-6c59-4f5c-9a30-2b6d2a7b6f11

[before-upgrade]
#a snapshot
args: -qmp unix:/elsewhere/afterimage.qmp,server=on,wait=off
name: old-name
`;

void t.test('places', async (t) => {
  for (const text of ['/run/a.qmp', 'libvirt://web1', 'libvirt://web%201?uri=qemu%3A%2F%2F%2Fsession', 'pve://101', 'pve://101?root=%2Ftmp%2Fx']) {
    const place = parsePlace(text);
    t.ok(place, text);
    if (place !== undefined) t.equal(formatPlace(place), text, 'written in one way');
  }
  for (const text of ['run/a.qmp', 'libvirt://', 'libvirt://--all', 'libvirt://a?b=c', 'libvirt://a?uri=qemu%2Bext%3A%2F%2F%2Fsystem%3Fcommand%3D%2Ftmp%2Fx', 'libvirt://a?uri=qemu%2Bssh%3A%2F%2Fb%2Fsystem', 'pve://99', 'pve://1e3', 'pve://web', 'http://web', 'libvirt://a\nb', 'libvirt://%zz', 'pve://101?root=x']) t.equal(parsePlace(text), undefined, JSON.stringify(text));
});

void t.test('its config', async (t) => {
  const parsed = parsePveConfig(config(''));
  t.equal(pveValue(parsed, 'name'), 'shop-db', 'of the guest as it is, not of its snapshots');
  t.equal(pveValue(parsed, 'args'), undefined);
  t.equal(formatPveConfig(parsed), config('').slice(0, config('').indexOf('[')), 'what is read is written as it was');
  t.same(splitPveArgs('-a "b \\"c\\"" \'d e\' f=\'g h\'x'), ['-a', 'b "c"', 'd e', 'f=g hx']);
  t.same(monitorPaths(['-chardev', 'socket,id=qmp,path=/var/run/qemu-server/103.qmp,server=on,wait=off', '-mon', 'chardev=qmp,mode=control', '-qmp', 'unix:/r/a,,b.afterimage.qmp,server=on,wait=off', '-mon', 'chardev=hmp,mode=readline']),
    ['/r/a,b.afterimage.qmp', '/var/run/qemu-server/103.qmp'], 'ours first');
});

/** The folders that `root` stands for. */
async function pveHost(t: Test): Promise<string> {
  const root = shortFolder(t);
  await mkdir(join(root, 'etc/pve/qemu-server'), { recursive: true });
  await mkdir(join(root, 'var/run/qemu-server'), { recursive: true });
  return root;
}

for (const version of [8, 9]) {
  void t.test(`a guest that Proxmox VE ${version} started`, async (t) => {
    const root = await pveHost(t);
    const place = { kind: 'pve', vmid: 103, root } as const;
    const confPath = join(root, 'etc/pve/qemu-server/103.conf');
    const asked = (): Promise<unknown> => connectGuest(formatPlace(place)).then(({ qmp }) => { qmp.close(); return null; }, (error: unknown) => error);
    t.match(await asked(), { code: 'QMP_UNREACHABLE', facts: { error: 'ENOENT' } }, 'no such guest here');
    await writeFile(confPath, config(''));
    t.match(await asked(), { code: 'QMP_UNREACHABLE', facts: { error: 'ENOENT' } }, 'it does not run');

    const disk = await createLabDisk(join(root, 'vm-103-disk-0'), version === 9 ? 'raw' : 'qcow2', 16 * 1024 ** 2);
    const own = pveOwnMonitorPath(place);
    const files = { cache: { direct: false, 'no-flush': false }, 'detect-zeroes': 'unmap', discard: 'unmap', driver: 'file', filename: disk, 'node-name': 'e72b86ca87ba6bc7e90fffd586061fc', 'read-only': false };
    const blocks = version === 9
      ? ['-object', '{"id":"throttle-drive-scsi0","limits":{},"qom-type":"throttle-group"}', '-blockdev', JSON.stringify({
        'detect-zeroes': 'unmap', discard: 'unmap', driver: 'throttle', 'node-name': 'drive-scsi0', 'read-only': false, 'throttle-group': 'throttle-drive-scsi0',
        file: { cache: { direct: false, 'no-flush': false }, 'detect-zeroes': 'unmap', discard: 'unmap', driver: 'raw', 'node-name': 'f72b86ca87ba6bc7e90fffd586061fc', 'read-only': false, file: files },
      })]
      : ['-drive', `file=${disk},if=none,id=drive-scsi0,discard=on,format=qcow2,cache=writeback,aio=threads,detect-zeroes=unmap`];
    const start = (monitors: readonly string[]): Promise<Running> => startRunning(t, 'qemu-system-x86_64', (qmpPath) => [
      '-name', 'shop-db,debug-threads=on', '-no-shutdown',
      '-chardev', `socket,id=qmp,path=${pveSocketPath(place)},server=on,wait=off`, '-mon', 'chardev=qmp,mode=control',
      '-chardev', `socket,id=qmp-event,path=${join(root, 'qmeventd.sock')},reconnect=5`, '-mon', 'chardev=qmp-event,mode=control',
      '-pidfile', join(root, 'var/run/qemu-server/103.pid'), '-smbios', 'type=1,uuid=0f2e2a5d-6c59-4f5c-9a30-2b6d2a7b6f11', '-smp', '1,sockets=1,cores=1,maxcpus=1', '-nodefaults', '-vga', 'none', '-display', 'none', '-cpu', 'qemu64',
      '-m', '128', '-accel', 'tcg', '-S', '-object', 'iothread,id=iothread-virtioscsi0',
      ...blocks,
      '-device', 'virtio-scsi-pci,id=virtioscsi0,bus=pci.0,addr=0x5,iothread=iothread-virtioscsi0',
      '-device', 'scsi-hd,bus=virtioscsi0.0,channel=0,scsi-id=0,lun=0,drive=drive-scsi0,id=scsi0,device_id=drive-scsi0,bootindex=100',
      '-machine', 'type=pc', ...monitors, '-qmp', `unix:${qmpPath},server=on,wait=off`,
    ], root);

    const without = await start([]);
    t.match(await asked(), { code: 'GUEST_UNSUITED' }, 'the socket that Proxmox VE needs is not taken from it');
    await writeFile(confPath, config(`args: -qmp 'unix:${own},server=on,wait=off'\n`));
    t.match(await asked(), { code: 'GUEST_UNSUITED' }, 'its config has one now, and its QEMU has not: it is not taken for gone');
    t.match((await discoverGuests({ uri: `qemu+unix:///session?socket=${join(root, 'none')}`, pveRoot: root })).guests.filter(({ manager }) => manager === 'pve'), [{ name: 'shop-db', place: formatPlace(place), isRunning: true, monitor: 'none' }]);
    const ended = once(without.child, 'close');
    without.child.kill('SIGKILL');
    await ended; // its image is locked until then

    await start(splitPveArgs(pveValue(parsePveConfig(config(`args: -qmp 'unix:${own},server=on,wait=off'\n`)), 'args')!));
    const { qmp } = await connectGuest(formatPlace(place));
    t.teardown(() => qmp.close());
    const { disks, skipped } = await takeDiskInventory(qmp);
    t.same(skipped, []);
    t.match(disks, [{ name: 'scsi0', driver: version === 9 ? 'raw' : 'qcow2', sizeBytes: 16 * 1024 ** 2 }]);
    if (version === 9) t.match(disks[0], { topNode: 'drive-scsi0', trackNode: 'f72b86ca87ba6bc7e90fffd586061fc' }, 'beneath the throttle node');
    const again = await connectGuest(formatPlace(place), { connectTimeoutMs: 500 }).catch((error: unknown) => error);
    t.ok(isFault(again, 'QMP_UNREACHABLE'), 'one at a time');
    t.match((await discoverGuests({ uri: `qemu+unix:///session?socket=${join(root, 'none')}`, pveRoot: root })).guests.filter(({ manager }) => manager === 'pve'), [{ isRunning: true, monitor: 'own', needs: null }]);
  });
}
