/** A domain's definition on its way to another host: what is kept, what is rewritten, and what never reaches it. */
import t from 'tap';
import { adaptDomain, type AdaptOptions } from '../../qemu/libvirt/adapt-domain.ts';

const recorded = `<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>shop &amp; co</name>
  <uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid>
  <memory unit='KiB'>1048576</memory>
  <memoryBacking><hugepages/></memoryBacking>
  <vcpu placement='static'>2</vcpu>
  <os firmware='efi'><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader><nvram template='/etc/shadow'>/var/lib/libvirt/qemu/nvram/shop_VARS.fd</nvram></os>
  <cpu mode='host-passthrough' check='none' migratable='on'><feature policy='disable' name='svm'/></cpu>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>/tmp/evil</emulator>
    <disk type='block' device='disk' snapshot='external'>
      <driver name='qemu' type='raw' cache='none' io='native' discard='unmap'/>
      <source dev='/dev/vg/shop' index='1'><seclabel model='dac' relabel='no'/></source>
      <backingStore/>
      <target dev='vda' bus='virtio'/><iotune><total_iops_sec>10</total_iops_sec></iotune>
      <serial>S1</serial><boot order='1'/><alias name='virtio-disk0'/><address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>
    </disk>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/old/b'/><target dev='vdb' bus='virtio'/><alias name='virtio-disk1'/></disk>
    <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='/etc/shadow'/><target dev='sda' bus='sata'/><readonly/></disk>
    <interface type='network'><mac address='52:54:00:AA:BB:01'/><source network='default' portid='x'/><target dev='vnet3'/><model type='virtio'/><alias name='net0'/><address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></interface>
    <interface type='bridge'><mac address='52:54:00:aa:bb:02'/><source bridge='br7'/><model type='virtio'/><driver name='vhost' queues='2'/></interface>
    <serial type='unix'><source mode='bind' path='/elsewhere/x'/><target type='isa-serial' port='0'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
    <channel type='unix'><source mode='bind' path='/elsewhere/y'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
    <graphics type='vnc' port='5900' passwd='secret'/>
    <video><model type='qxl' ram='65536'/></video>
    <hostdev mode='subsystem' type='pci'><source><address domain='0' bus='1' slot='0' function='0'/></source></hostdev>
    <filesystem type='mount'><source dir='/'/><target dir='root'/></filesystem>
    <rng model='virtio'><backend model='egd' type='tcp'><source mode='connect' host='1.2.3.4'/></backend></rng>
    <input type='evdev'><source dev='/dev/input/event1'/></input><input type='tablet' bus='usb'/>
    <memballoon model='none'/>
  </devices>
  <sysinfo type='fwcfg'><entry name='opt/x' file='/etc/shadow'/></sysinfo>
  <seclabel type='dynamic' model='dac'/>
  <qemu:commandline><qemu:arg value='-chardev'/><qemu:arg value='file,id=x,path=/etc/cron.d/x'/><qemu:env name='LD_PRELOAD' value='/tmp/x'/></qemu:commandline>
</domain>`;

const options: AdaptOptions = {
  disks: [{ disk: 0, name: 'virtio-disk0', path: '/srv/o/disk0.qcow2', format: 'qcow2' }],
  network: 'none', networks: { '52:54:00:aa:bb:02': 'bridge:br-dmz' }, monitors: ['/srv/o/own.sock', '/srv/o,p/qmp.sock'], consoleLog: '/srv/o/console.log', varsPath: '/srv/o/vars.fd', accel: 'kvm',
  security: { models: ['apparmor', 'dac'], uid: 0, gid: 0 },
};

t.test('a definition is adapted', async (t) => {
  const { xml, name, uuid, notes } = adaptDomain(recorded, options);
  t.equal(name, 'shop & co');
  t.equal(uuid, '4dea22b3-1d52-d8f3-2516-782e98ab3fa0');
  t.match(xml, /<name>shop &amp; co<\/name>/);
  t.match(xml, /machine="pc-q35-7.2"/);
  t.match(xml, /<source file="\/srv\/o\/disk0.qcow2"\/>/);
  t.match(xml, /<driver name="qemu" discard="unmap" type="qcow2"\/>/, 'no cache or I/O mode of another storage');
  t.match(xml, /<serial>S1<\/serial>/, 'a disk’s serial number is the guest’s');
  t.match(xml, /bus="0x04" slot="0x00"/, 'devices are where they were');
  t.match(xml, /<interface type="user"><mac address="52:54:00:AA:BB:01"\/>.*<link state="down"\/><\/interface>/s, 'no cable');
  t.match(xml, /<interface type="bridge"><mac address="52:54:00:aa:bb:02"\/>.*<source bridge="br-dmz"\/><\/interface>/s);
  t.match(xml, /<nvram>\/srv\/o\/vars.fd<\/nvram>/);
  t.match(xml, /<source path="\/srv\/o\/console.log" append="on"\/>/);
  t.match(xml, /<qemu:arg value="unix:\/srv\/o,,p\/qmp.sock,server=on,wait=off"\/>/);
  t.match(xml, /<label>\+0:\+0<\/label>/);
  t.match(notes.join('\n'), /no replica of the disk vdb/);
  t.match(notes.join('\n'), /<hostdev>/);
  for (const gone of ['/etc/shadow', '/tmp/evil', '/dev/vg', '/old/b', 'vnet3', 'br7', 'secret', 'hostdev', 'filesystem', '1.2.3.4', 'cron.d', 'LD_PRELOAD', 'evdev', 'spice', '/elsewhere/', 'qxl', 'hugepages', 'id="7"', 'alias', 'iotune', 'firmware=']) t.notMatch(xml, new RegExp(gone.replace(/[./]/g, '\\$&')), `${gone} does not come along`);
});

t.test('without KVM', async (t) => {
  const { xml, notes } = adaptDomain(recorded, { ...options, accel: 'tcg' });
  t.match(xml, /<domain type="qemu"/);
  t.match(xml, /<cpu mode="maximum"\/>/);
  t.match(notes.join('\n'), /host-passthrough/);
});

t.test('a trial runs beside the domain that it is of', async (t) => {
  const withIdentity = recorded.replace('<memory ', '<genid>11111111-1d52-48f3-8516-782e98ab3fa0</genid><memory ').replace('<sysinfo type=\'fwcfg\'>', '<sysinfo type=\'smbios\'><system><entry name=\'uuid\'>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</entry><entry name=\'serial\'>S9</entry></system></sysinfo><sysinfo type=\'fwcfg\'>');
  const uuid = '99999999-1d52-48f3-8516-782e98ab3fa0';
  const { xml, name, uuid: own } = adaptDomain(withIdentity, { ...options, network: 'isolated', networks: {}, disks: [{ ...options.disks[0]!, fileBytesMax: 1048576 }], trial: { suffix: 'test-abc', uuid } });
  t.equal(name, 'shop & co-test-abc');
  t.equal(own, uuid);
  t.match(xml, new RegExp(`<entry name="uuid">${uuid}</entry><entry name="serial">S9</entry>`), 'to the guest as well, as libvirt wants it');
  t.notMatch(xml, /4dea22b3|11111111/, 'nothing has the identity of the other');
  t.match(xml, /<genid\/>/, 'libvirt makes a new one');
  t.match(xml, /<source file="\/srv\/o\/disk0.qcow2"><slices><slice type="storage" offset="0" size="1048576"\/><\/slices><\/source>/, 'its file grows no further');
  t.match(xml, /error_policy="stop"/);
  t.same([...xml.matchAll(/<interface type="(\w+)">/g)].map(([, type]) => type), ['user', 'user']);
  t.equal([...xml.matchAll(/<link state="down"\/>/g)].length, 2, 'no cable in either');
});

t.test('a disk that the definition does not have', async (t) => {
  t.throws(() => adaptDomain(recorded, { ...options, disks: [...options.disks, { disk: 1, name: 'scsi0-0-0-0', path: '/srv/o/disk1.qcow2', format: 'qcow2' }] }), { code: 'FAILOVER_BOOT' }, 'it is not started without');
});

t.test('what is no domain is refused', async (t) => {
  for (const xml of ['', '<network/>', '<domain><name></domain>', '<!DOCTYPE domain [<!ENTITY x SYSTEM "file:///etc/shadow">]><domain><name>&x;</name></domain>']) {
    try {
      t.notMatch(adaptDomain(xml, options).xml, /root:/, xml);
    } catch (error) {
      t.match(error, { code: 'LIBVIRT_REFUSED' }, xml);
    }
  }
});
