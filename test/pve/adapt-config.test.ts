/** A config of Proxmox VE on its way to another host: what is kept, what is rewritten, what never reaches it; and what is made for it there, and unmade. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { adaptPveConfig, lendPveConfig, thawedConfig, type PveAdaptOptions } from '../../qemu/pve/adapt-config.ts';
import { joinPveArgs, splitPveArgs } from '../../qemu/pve/pve-config.ts';
import { imageFolder, parsePveStorages } from '../../qemu/pve/pve-storage.ts';
import { forgetPveGuest, startPveGuest, thawPveGuest, whyTaken, type PveStart } from '../../qemu/pve/start-guest.ts';

const recorded = `#the shop's database
affinity: 0-3
agent: 1
args: -device vfio-pci,host=01:00.0 -chardev file,id=x,path=/etc/cron.d/x
bios: ovmf
boot: order=scsi0;ide2;net0
cicustom: user=local:snippets/user.yml
ciuser: root
cores: 4
cpu: host,flags=+aes
efidisk0: local-lvm:vm-103-disk-2,efitype=4m,pre-enrolled-keys=1,size=4M
hookscript: local:snippets/evil.pl
hostpci0: 0000:01:00,pcie=1
hugepages: 1024
ide0: local-lvm:vm-103-cloudinit,media=cdrom
ide2: local:iso/debian-12.iso,media=cdrom,size=600M
ipconfig0: ip=dhcp
ivshmem: size=32,name=evil
lock: backup
machine: pc-q35-9.2+pve1
memory: 8192
meta: creation-qemu=9.0.2,ctime=1700000000
name: shop-db
net0: virtio=BC:24:11:96:18:29,bridge=vmbr0,firewall=1,tag=42,queues=4
net1: e1000=BC:24:11:96:18:2A,bridge=vmbr1
numa: 1
numa0: cpus=0-3,hostnodes=1,memory=8192,policy=bind
onboot: 1
rng0: source=/dev/hwrng,max_bytes=1024,period=1000
scsi0: local-lvm:vm-103-disk-0,aio=native,cache=writeback,discard=on,iothread=1,iops_rd=100,serial=S1,size=32G,ssd=1
scsi1: /dev/disk/by-id/ata-X,size=1T
scsihw: virtio-scsi-single
serial0: socket
serial1: /dev/ttyS0
smbios1: uuid=0f2e2a5d-6c59-4f5c-9a30-2b6d2a7b6f11
tpmstate0: local-lvm:vm-103-disk-3,size=4M,version=v2.0
unused0: local-lvm:vm-103-disk-9
usb0: host=1234:5678
virtiofs0: dirid=share
vmgenid: 11111111-2222-4333-8444-555555555555

[PENDING]
memory: 4096

[before-upgrade]
args: -S
memory: 2048
`;

const options: PveAdaptOptions = {
  disks: [{ name: 'scsi0', volume: 'afterimage:9103/vm-9103-disk-0.qcow2', isStoppedOnError: true }], vars: { volume: 'afterimage:9103/vm-9103-efi.raw' },
  network: 'none', networks: { 'bc:24:11:96:18:29': 'bridge:br-dmz' }, monitors: ['/srv/o/own.sock', '/srv/o,p q/qmp.sock'], consoleLog: '/srv/o/console.log', accel: 'kvm', generationId: '99999999-2222-4333-8444-555555555555',
};

t.test('a config is adapted', async (t) => {
  const { text, notes } = adaptPveConfig(recorded, options);
  const lines = text.split('\n');
  for (const line of [
    '#the shop\'s database', 'agent: 1', 'bios: ovmf', 'cores: 4', 'cpu: host,flags=+aes', 'machine: pc-q35-9.2+pve1', 'memory: 8192', 'name: shop-db', 'smbios1: uuid=0f2e2a5d-6c59-4f5c-9a30-2b6d2a7b6f11', 'freeze: 1', 'serial0: socket',
    'scsi0: afterimage:9103/vm-9103-disk-0.qcow2,discard=on,iothread=1,serial=S1,size=32G,ssd=1,rerror=stop,werror=stop',
    'efidisk0: afterimage:9103/vm-9103-efi.raw,efitype=4m,pre-enrolled-keys=1,size=4M',
    'ide2: none,media=cdrom', 'net0: virtio=BC:24:11:96:18:29,bridge=br-dmz,tag=42,queues=4', 'net1: e1000=BC:24:11:96:18:2A,link_down=1',
    'numa0: cpus=0-3,memory=8192', 'rng0: source=/dev/urandom,max_bytes=1024,period=1000', 'vmgenid: 99999999-2222-4333-8444-555555555555',
  ]) t.ok(lines.includes(line), line);
  for (const gone of ['vfio', 'cron.d', 'evil', 'hostpci', 'hugepages', 'cloudinit', '.iso', 'lock', 'meta', 'vmbr', 'firewall', 'hostnodes', 'hwrng', 'local-lvm', 'cache=', 'aio=', 'iops', 'by-id', 'ttyS0', 'tpmstate', 'unused', 'usb', 'virtiofs', 'onboot', 'affinity', 'ciuser', 'ipconfig', '[', '4096', '2048']) t.notOk(text.includes(gone), `${gone} does not come along`);
  const args = splitPveArgs(/^args: (.*)$/m.exec(text)![1]!);
  t.same(args, ['-qmp', 'unix:/srv/o/own.sock,server=on,wait=off', '-qmp', 'unix:/srv/o,,p q/qmp.sock,server=on,wait=off', '-set', 'chardev.serial0.logfile=/srv/o/console.log', '-set', 'chardev.serial0.logappend=on'], 'our monitors, and what the guest says');
  const said = notes.join('\n');
  for (const key of ['args', 'hostpci0', 'hugepages', 'scsi1', 'serial1', 'tpmstate0', 'usb0', 'onboot', 'ide2', 'cloud-init', 'hookscript', 'virtiofs0', 'ivshmem', 'PENDING, before-upgrade', 'firewall', 'tag 42']) t.ok(said.includes(key), `${key} is said`);
  t.equal(thawedConfig(text), text.replace('freeze: 1\n', ''));
});

t.test('without KVM, and without what was not recorded', async (t) => {
  const { text, notes } = adaptPveConfig(recorded, { ...options, accel: 'tcg', vars: undefined });
  t.match(text, /^kvm: 0$/m);
  t.match(text, /^cpu: max$/m);
  t.notMatch(text, /efidisk0/);
  t.match(notes.join('\n'), /variables/);
  t.throws(() => adaptPveConfig(recorded, { ...options, disks: [...options.disks, { name: 'virtio7', volume: 'a:1/b.raw', isStoppedOnError: false }] }), { code: 'FAILOVER_BOOT' }, 'a guest is not started without one of its disks');
});

t.test('at home it is its own, with our monitors', async (t) => {
  const lent = lendPveConfig(recorded, { monitors: ['/srv/o/qmp.sock'], consoleLog: '/srv/o/console.log' });
  t.match(lent, /^scsi0: local-lvm:vm-103-disk-0,aio=native/m);
  t.match(lent, /^args: -device vfio-pci,host=01:00.0 -chardev file,id=x,path=\/etc\/cron.d\/x -qmp unix:\/srv\/o\/qmp.sock,server=on,wait=off -set chardev.serial0.logfile=\/srv\/o\/console.log -set chardev.serial0.logappend=on$/m);
  t.match(lent, /^freeze: 1$/m);
  t.notMatch(lent, /^lock:/m);
});

t.test('arguments are one word each, whatever is in them', async (t) => {
  const words = ['-a', 'b c', 'd"e', 'f\\g', '\'h i\'', 'j,,k', '$(l)'];
  t.same(splitPveArgs(joinPveArgs(words)), words);
});

t.test('storages', async (t) => {
  const text = 'dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\nlvmthin: local-lvm\n\tthinpool data\n\tvgname pve\n\ndir: off\n\tpath /x\n\tdisable\n\ndir: afterimage\n\tpath /srv/vz\n\tcontent images,rootdir\n\tcontent-dirs images=disks\n';
  t.same(parsePveStorages(text).map(({ type, name }) => `${type} ${name}`), ['dir local', 'lvmthin local-lvm', 'dir off', 'dir afterimage']);
  const root = t.testdir({ etc: { pve: { 'storage.cfg': text } } });
  t.equal(await imageFolder({ root, storage: 'afterimage' }), join(root, 'srv/vz/disks'));
  for (const [storage, why] of [['local', /disk images/], ['local-lvm', /type lvmthin/], ['off', /switched off/], ['none', /not there/]] as const) await t.rejects(imageFolder({ root, storage }), { code: 'FAILOVER_BOOT', message: why }, storage);
  await t.rejects(imageFolder({ root: join(root, 'elsewhere'), storage: 'local' }), { code: 'FAILOVER_BOOT', message: /no Proxmox VE/ });
});

t.test('what is made for a guest, and unmade', async (t) => {
  const root = t.testdir({ etc: { pve: { 'qemu-server': {}, 'storage.cfg': 'dir: afterimage\n\tpath /srv/vz\n\tcontent images\n', '.vmlist': '{"version":3,"ids":{"104":{"node":"other","type":"lxc","version":2}}}' } }, srv: { vz: { images: {} } }, own: { 'disk0.qcow2': '' } });
  const folder = join(root, 'own');
  const path = join(root, 'etc/pve/qemu-server/103.conf');
  const start = (more: Partial<PveStart> = {}): Promise<void> => startPveGuest({
    host: { root, storage: 'afterimage', command: ['true'] }, vmid: 103, uuid: '0F2E2A5D-6c59-4f5c-9a30-2b6d2a7b6f11', folder, volumes: [{ path: join(folder, 'disk0.qcow2'), file: 'vm-103-disk-0.qcow2' }], isHome: false,
    config: () => `name: shop\nargs: -qmp unix:${folder}/qmp.sock\nfreeze: 1\n`, ...more,
  });
  t.equal(await whyTaken({ root }, 103), null);
  t.match(await whyTaken({ root }, 104), /node other/, 'numbers are the cluster’s, and its containers have them too');
  await t.rejects(start({ vmid: 104 }), { code: 'FAILOVER_BOOT', message: /104 is a guest of the node other/ });
  await start();
  t.match(await readFile(path, 'utf8'), /freeze: 1/);
  await thawPveGuest(folder);
  t.equal(await readFile(path, 'utf8'), `name: shop\nargs: -qmp unix:${folder}/qmp.sock\n`);
  await start({ host: { root, storage: 'afterimage', command: ['true'] } });
  await t.rejects(start({ host: { root, storage: 'afterimage', command: ['sh', '-c', 'echo VM is locked >&2; exit 1'] } }), { code: 'FAILOVER_BOOT', message: /qm start 103: VM is locked/ }, 'in its own words');
  await forgetPveGuest(folder);
  t.same([await readdir(join(root, 'etc/pve/qemu-server')), await readdir(join(root, 'srv/vz/images')), await readdir(folder)], [[], [], ['disk0.qcow2']], 'nothing is left');

  await mkdir(join(root, 'srv/vz/images/103'));
  await writeFile(join(root, 'srv/vz/images/103/vm-103-disk-0.qcow2'), 'another guest’s');
  await t.rejects(start(), { code: 'FAILOVER_BOOT', message: /another guest’s image/ });
  await forgetPveGuest(folder);
  t.equal(await readFile(join(root, 'srv/vz/images/103/vm-103-disk-0.qcow2'), 'utf8'), 'another guest’s');

  const own = 'name: shop\nsmbios1: uuid=0f2e2a5d-6c59-4f5c-9a30-2b6d2a7b6f11\n';
  await writeFile(path, own);
  await t.rejects(start(), { code: 'FAILOVER_BOOT', message: /103 is shop here/ }, 'also where it is another copy of the guest');
  const home: Partial<PveStart> = { isHome: true, volumes: [], config: (before) => lendPveConfig(before!, { monitors: [join(folder, 'qmp.sock')], consoleLog: join(folder, 'console.log') }) };
  await start(home);
  t.match(await readFile(path, 'utf8'), /^name: shop\nsmbios1: .*\nargs: -qmp .*\nfreeze: 1\n$/);
  await start(home);
  await forgetPveGuest(folder);
  t.equal(await readFile(path, 'utf8'), own, 'its owner’s config is what it was');
  await t.rejects(start({ ...home, uuid: '1f2e2a5d-6c59-4f5c-9a30-2b6d2a7b6f11' }), { code: 'FAILOVER_BOOT', message: /another guest’s now/ });
});
