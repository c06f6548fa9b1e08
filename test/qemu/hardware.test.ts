/** Record a real QEMU, start it again from the record, record that one: the guest must not be able to tell them apart. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { isFault } from '../../journal/fault.ts';
import { bootCommand, isGuestRunning, startGuest, stopGuest, type BootOptions } from '../../qemu/boot.ts';
import { guestHardware, recordHardware, type GuestHardware } from '../../qemu/hardware.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { QmpConnection } from '../../qemu/qmp.ts';
import { connect, shortFolder, startQemu } from './real-qemu.ts';

function image(folder: string, name: string, sizeMib: number): string {
  const path = join(folder, name);
  execFileSync('qemu-img', ['create', '-q', '-f', name.slice(name.lastIndexOf('.') + 1), path, `${sizeMib}M`]);
  return path;
}

/** Through JSON and the schema, as it travels. */
function travelled(hardware: GuestHardware): GuestHardware {
  return guestHardware.parse(JSON.parse(JSON.stringify(hardware)));
}

/** What a guest sees: names that QEMU's user gave, and paths of the host, are not part of it. */
function seen(hardware: GuestHardware): unknown {
  const byPath = new Map(hardware.devices.map((device) => [device.path, device]));
  const devices = hardware.devices.map(({ driver, address, bus, iothread, disk, properties }) => {
    const owner = byPath.get(bus?.owner ?? '');
    const { masterbus: _, ...visible } = properties;
    return {
      driver, address, iothread, properties: visible,
      bus: owner === undefined ? bus?.name : { of: owner.driver, address: owner.address, index: bus?.index },
      diskBytes: hardware.disks.find(({ name }) => name === disk)?.sizeBytes,
    };
  }).sort((a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b)));
  const { arch, name, uuid, machine, cpu, smp, memory, ioThreads, serialPorts, boot, rtcBase, accel, kernel } = hardware;
  return { devices, arch, name, uuid, machine, cpu, smp, memory, ioThreads, serialPorts, boot, rtcBase: rtcBase ?? 'utc', accel, kernel, vars: hardware.firmware?.varsContentBase64, code: hardware.firmware?.codePath, isSecure: hardware.firmware?.isSecure };
}

/** Boots a record on fresh disks of the recorded sizes. */
async function boot(t: Test, hardware: GuestHardware, more: Partial<BootOptions> = {}): Promise<{ qmp: QmpConnection; pid: number; notes: string[]; folder: string; qmpPath: string; argv: string[] }> {
  const folder = shortFolder(t);
  const qmpPath = join(folder, 'qmp,1');
  const disks = hardware.disks.map(({ name, sizeBytes }, disk) => ({ disk, name, format: 'raw' as const, path: image(folder, `replica,${disk}.raw`, sizeBytes / 1024 / 1024) }));
  const { argv, notes } = bootCommand(hardware, {
    disks, qmpPath, pidFile: join(folder, 'pid'), consoleLog: join(folder, 'console'), agentPath: join(folder, 'agent'), network: 'none', accel: 'tcg', extra: ['-S'], ...more,
  });
  const { pid } = await startGuest(argv, { logPath: join(folder, 'log'), qmpPath });
  t.teardown(() => stopGuest(pid, qmpPath));
  t.equal(readFileSync(join(folder, 'pid'), 'utf8').trim(), String(pid), 'the pid file names it');
  const qmp = await connectQmp(qmpPath);
  t.teardown(() => qmp.close());
  return { qmp, pid, notes, folder, qmpPath, argv };
}

async function roundTrip(t: Test, args: (folder: string) => readonly string[], more: Partial<BootOptions> = {}): Promise<{ first: GuestHardware; second: GuestHardware; notes: string[]; argv: string[]; folder: string }> {
  const folder = shortFolder(t);
  const qmp = await connect(t, await startQemu(t, ['-S', ...args(folder)], folder));
  const first = travelled(await recordHardware(qmp));
  const booted = await boot(t, first, more);
  const second = travelled(await recordHardware(booted.qmp));
  t.strictSame(seen(second), seen(first), 'the guest sees the same');
  return { first, second, notes: booted.notes, argv: booted.argv, folder: booted.folder };
}

t.test('q35: I/O threads, virtio-blk with and without id, SCSI, IDE, NICs behind a port, displays', async (t) => {
  const { first, second, notes } = await roundTrip(t, (folder) => [
    '-machine', 'pc-q35-7.2', '-cpu', 'qemu64,+aes,ssse3=on,pni=off,hv-relaxed=on', '-smp', '3,sockets=2,cores=2,threads=1,maxcpus=4', '-m', '96,slots=2,maxmem=1G',
    '-name', 'guest=shop,, the first', '-uuid', '6ba7b810-9dad-41d1-80b4-00c04fd430c8', '-rtc', 'base=utc', '-boot', 'order=cd,menu=on,strict=on',
    '-object', 'iothread,id=io1', '-object', 'iothread,id=io2,poll-max-ns=5000',
    '-blockdev', `driver=file,node-name=n0,filename=${image(folder, 'a.raw', 1)}`,
    '-device', 'virtio-blk-pci,id=d0,drive=n0,iothread=io1,bootindex=1,serial=A,,1,physical_block_size=4096,num-queues=2',
    '-drive', `if=none,id=b,format=raw,file=${image(folder, 'b.raw', 2)}`, '-device', 'virtio-blk-pci,drive=b',
    '-device', 'virtio-scsi-pci,id=scsi0,iothread=io2', '-drive', `if=none,id=c,format=raw,file=${image(folder, 'c.raw', 3)}`,
    '-device', 'scsi-hd,id=d2,bus=scsi0.0,scsi-id=3,lun=1,drive=c,bootindex=2,wwn=0x5000c500a1b2c3d5,rotation_rate=1',
    '-device', 'virtio-scsi-pci', '-drive', `if=none,id=d,format=qcow2,file=${image(folder, 'd.qcow2', 4)}`, '-device', 'scsi-hd,bus=scsi.0,drive=d',
    '-drive', `if=ide,format=raw,file=${image(folder, 'e.raw', 5)}`, '-device', 'ide-cd,bus=ide.3',
    '-drive', `if=virtio,format=qcow2,file=${image(folder, 'f.qcow2', 6)},throttling.iops-total=100`,
    '-device', 'pcie-root-port,id=rp1,chassis=1,slot=1', '-device', 'virtio-net-pci,bus=rp1,mac=52:54:00:aa:00:01,id=nic1,romfile=',
    '-device', 'pcie-root-port,chassis=2,slot=2,addr=9', '-netdev', 'user,id=u', '-device', 'e1000e,netdev=u,mac=52:54:00:aa:00:02,bootindex=7',
    '-nic', 'user,model=e1000,mac=52:54:00:aa:00:03',
    '-device', 'qemu-xhci,id=usb', '-device', 'usb-tablet,bus=usb.0,port=3', '-device', 'VGA,vgamem_mb=32', '-device', 'virtio-rng-pci', '-device', 'virtio-balloon-pci', '-device', 'vmgenid', '-device', 'i6300esb',
    '-serial', 'null', '-serial', 'null',
  ]);
  t.match(first, {
    version: 1, arch: 'x86_64', accel: 'tcg', name: 'shop, the first', uuid: '6ba7b810-9dad-41d1-80b4-00c04fd430c8', rtcBase: 'utc', serialPorts: 2,
    machine: { type: 'pc-q35-7.2' }, cpu: { model: 'qemu64', features: { aes: true, ssse3: true, pni: false, 'hv-relaxed': true } },
    smp: { cpus: 3, maxCpus: 4, sockets: 2, cores: 2, threads: 1 }, memory: { sizeBytes: 96 * 1024 ** 2, slots: 2, maxBytes: 1024 ** 3 },
    boot: { order: 'cd', menu: true, strict: true },
  });
  t.same(Object.keys(first.cpu!.features).length, 4, JSON.stringify(first.cpu!.features));
  t.equal(first.disks.length, 6);
  const device = (id: string): GuestHardware['devices'][number] | undefined => first.devices.find((candidate) => candidate.id === id);
  t.match(device('d0'), { driver: 'virtio-blk-pci', disk: 'd0', iothread: 'io1', properties: { bootindex: 1, serial: 'A,1', physical_block_size: 4096, 'num-queues': 2 } });
  t.match(device('d2'), { driver: 'scsi-hd', disk: 'd2', properties: { 'scsi-id': 3, lun: 1, wwn: String(0x5000c500a1b2c3d5n), device_id: 'c' } });
  t.match(device('nic1'), { driver: 'virtio-net-pci', bus: { name: 'rp1', index: 0 }, properties: { mac: '52:54:00:aa:00:01', romfile: '' } });
  t.same(first.devices.filter(({ properties }) => 'mac' in properties).map(({ properties }) => properties['mac']).sort(), ['52:54:00:aa:00:01', '52:54:00:aa:00:02', '52:54:00:aa:00:03']);
  t.same(notes.filter((note) => !note.includes('removable')), []);
  t.same(second.disks.map(({ sizeBytes }) => sizeBytes).sort(), first.disks.map(({ sizeBytes }) => sizeBytes).sort());
  t.same(second.devices.filter(({ id }) => id !== undefined && ['d0', 'd2', 'rp1', 'nic1', 'usb', 'scsi0'].includes(id)).length, 6, 'ids are kept, and with them names of disks');
});

t.test('i440fx: the board’s own buses, USB by machine option, nvme, lsi, nested bridges', async (t) => {
  const { first, notes } = await roundTrip(t, (folder) => [
    '-machine', 'pc-i440fx-7.2,usb=on,vmport=off', '-m', '64', '-vga', 'cirrus', '-device', 'usb-kbd',
    '-drive', `if=ide,format=raw,file=${image(folder, 'a.raw', 1)}`, '-drive', `if=ide,index=3,media=cdrom`,
    '-drive', `if=none,id=n,format=raw,file=${image(folder, 'n.raw', 2)}`, '-device', 'nvme,id=nv,serial=N1,drive=n',
    '-device', 'pci-bridge,id=br,chassis_nr=1,addr=10', '-device', 'pci-bridge,chassis_nr=2,bus=br,addr=3',
    '-device', 'lsi53c895a,bus=br,addr=4', '-drive', `if=none,id=s,format=raw,file=${image(folder, 's.raw', 3)}`, '-device', 'scsi-hd,drive=s,scsi-id=2',
    '-device', 'rtl8139,bus=br,addr=5,mac=52:54:00:aa:00:09', '-device', 'nec-usb-xhci', '-drive', `if=none,id=u,format=raw,file=${image(folder, 'u.raw', 4)}`, '-device', 'usb-storage,bus=usb-bus.1,drive=u,removable=off',
  ], { network: 'user' });
  t.equal(first.disks.length, 4, JSON.stringify(first.disks));
  t.match(first.machine, { type: 'pc-i440fx-7.2', options: { usb: true, vmport: 'off' } });
  t.ok(first.devices.some(({ driver }) => driver === 'cirrus-vga'));
  t.same(notes.filter((note) => !note.includes('removable')), []);
});

t.test('what cannot be taken along is said, and the rest starts', async (t) => {
  const { first, notes } = await roundTrip(t, (folder) => [
    '-machine', 'q35', '-m', '64', '-rtc', 'base=2001-01-01T00:00:00', '-name', 'guest=two\nlines',
    '-drive', `if=none,id=ro,readonly=on,format=raw,file=${image(folder, 'ro.raw', 1)}`, '-device', 'virtio-blk-pci,id=seed,drive=ro',
    '-device', 'virtio-serial-pci', '-chardev', 'null,id=ch', '-device', 'virtserialport,id=console,chardev=ch,name=org.example.console',
    '-device', 'edu,id=odd',
  ]);
  t.ok(notes.some((note) => note.includes('seed') && note.includes('not replicated')), notes.join('\n'));
  t.ok(notes.some((note) => note.includes('console')) && notes.some((note) => note.includes('odd')), notes.join('\n'));
  t.equal(first.name, undefined);
  t.ok(notes.some((note) => note.startsWith('Left out') && note.includes('name')), notes.join('\n'));
  t.equal(first.rtcBase, undefined);
  t.ok(notes.some((note) => note.includes('clock')));
});

t.test('firmware in flash, with its variables', async (t) => {
  const folder = shortFolder(t);
  const code = image(folder, 'code.raw', 2);
  const content = Buffer.alloc(528 * 1024, 0xa5);
  const vars = join(folder, 'vars.fd');
  writeFileSync(vars, content);
  const source = await connect(t, await startQemu(t, [
    '-S', '-machine', 'q35,smm=on', '-m', '64', '-global', 'driver=cfi.pflash01,property=secure,value=on',
    '-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${code}`, '-drive', `if=pflash,unit=1,format=raw,file=${vars}`,
  ], folder));
  const first = travelled(await recordHardware(source));
  t.match(first.firmware, { codePath: code, codeFormat: 'raw', varsPath: vars, varsFormat: 'raw', isSecure: true });
  t.ok(Buffer.from(first.firmware?.varsContentBase64 ?? '', 'base64').equals(content));
  const varsPath = join(folder, 'copy.fd');
  writeFileSync(varsPath, Buffer.from(first.firmware!.varsContentBase64!, 'base64'));
  const { qmp, notes } = await boot(t, first, { varsPath });
  const second = travelled(await recordHardware(qmp));
  t.equal(second.firmware?.varsPath, varsPath);
  t.strictSame(seen(second), seen(first));
  t.same(notes.filter((note) => !note.includes('flash')), []);
  t.ok(bootCommand(first, { disks: [], qmpPath: '/q', pidFile: '/p', consoleLog: '/c', network: 'none', accel: 'tcg' }).notes.some((note) => note.includes('without its stored variables')));
});

t.test('a kernel of the host’s is started where it is found', async (t) => {
  const folder = shortFolder(t);
  // QEMU loads a kernel at start: a multiboot-less ELF or bzImage is too much to make here, so the recorded fact is written by hand.
  const source = await connect(t, await startQemu(t, ['-S', '-machine', 'q35', '-m', '64'], folder));
  const recorded = await recordHardware(source);
  t.equal(recorded.kernel, undefined);
  const hardware = travelled({ ...recorded, kernel: { kernel: '/k', initrd: '/i', append: 'console=ttyS0, -x' } });
  const common = { disks: [], qmpPath: '/q', pidFile: '/p', consoleLog: '/c', network: 'none', accel: 'tcg' } as const;
  const found = bootCommand(hardware, { ...common, isThere: () => true });
  t.same(found.argv.slice(-6), ['-kernel', '/k', '-initrd', '/i', '-append', 'console=ttyS0, -x']);
  const missing = bootCommand(hardware, { ...common, isThere: (path) => path !== '/i' });
  t.notOk(missing.argv.includes('-kernel'));
  t.ok(missing.notes.some((note) => note.includes('/i')));
});

t.test('a record is not trusted', async (t) => {
  const source = await connect(t, await startQemu(t, ['-S', '-machine', 'q35', '-m', '64']));
  const hardware = await recordHardware(source);
  const device = (more: object): unknown => ({ ...hardware, devices: [{ path: '/x', driver: 'VGA', properties: {}, ...more }] });
  for (const [what, record] of Object.entries({
    'a driver with options': device({ driver: 'VGA,romfile=/etc/passwd' }),
    'an id with options': device({ id: 'a,drive=x' }),
    'a property with options': device({ properties: { 'serial=x,drive': 'y' } }),
    'an address': device({ address: '1.0,x=y' }),
    'a machine with options': { ...hardware, machine: { type: 'q35,dumpdtb=/etc/passwd', options: {} } },
    'a CPU with options': { ...hardware, cpu: { model: 'max,x=y', features: {} } },
    'another version': { ...hardware, version: 2 },
  })) t.notOk(guestHardware.safeParse(record).success, what);

  const common = { disks: [], qmpPath: '/q', pidFile: '/p', consoleLog: '/c', network: 'none', accel: 'tcg' } as const;
  const hostile = guestHardware.parse({
    ...hardware,
    machine: { type: 'q35', options: { ...hardware.machine.options, dumpdtb: '/etc/x' } },
    devices: [
      { path: '/a', driver: 'ivshmem-plain', properties: {} }, { path: '/b', driver: 'vfio-pci', properties: { host: '00:01.0' } },
      { path: '/c', driver: 'VGA', properties: { romfile: '/etc/passwd', 'x-odd': 1, vgamem_mb: 32 } }, { path: '/d', driver: 'virtio-blk-pci', disk: 'gone', properties: {} },
      { path: '/e', driver: 'virtio-blk-pci', properties: { serial: 'a,drive=x' } },
    ],
    name: 'x,process=y',
  });
  const { argv, notes } = bootCommand(hostile, common);
  t.same(argv.filter((_, i) => argv[i - 1] === '-device'), ['VGA,vgamem_mb=32', 'virtio-blk-pci,serial=a,,drive=x']);
  t.notOk(argv.join(' ').includes('dumpdtb'));
  t.equal(argv[argv.indexOf('-name') + 1], 'guest=x,,process=y');
  t.equal(notes.filter((note) => note.includes('left out')).length, 3, notes.join('\n'));
});

t.test('processes', async (t) => {
  const folder = shortFolder(t);
  const source = await connect(t, await startQemu(t, ['-S', '-machine', 'q35', '-m', '64', '-drive', `if=virtio,format=raw,file=${image(folder, 'a.raw', 1)}`], folder));
  const hardware = travelled(await recordHardware(source));

  t.test('a QEMU that does not start says why', async (t) => {
    const qmpPath = join(folder, 'q2');
    const disks = [{ disk: 0, path: join(folder, 'not-there.raw'), format: 'raw' as const }];
    const { argv } = bootCommand(hardware, { disks, qmpPath, pidFile: join(folder, 'p'), consoleLog: join(folder, 'c'), network: 'none', accel: 'tcg' });
    for (const [command, words] of [[argv, /not-there\.raw.*No such file/], [['/nowhere/qemu', ...argv.slice(1)], /ENOENT/]] as const) {
      const fault = await startGuest(command, { logPath: join(folder, 'log'), qmpPath }).then(() => null, (error: unknown) => error);
      if (!isFault(fault, 'FAILOVER_BOOT')) throw new Error(`no fault but ${String(fault)}`);
      t.match(fault.message, words);
    }
  });

  t.test('one that never answers is ended', async (t) => {
    const qmpPath = join(folder, 'q3');
    const fault = await startGuest(['/bin/sleep', '60'], { logPath: join(folder, 'log'), qmpPath, timeoutMs: 200 }).then(() => null, (error: unknown) => error);
    t.ok(isFault(fault, 'FAILOVER_BOOT'), String(fault));
  });

  t.test('it runs until it is stopped, and a stranger with its number is left alone', async (t) => {
    const { pid, qmp, qmpPath } = await boot(t, hardware);
    t.equal(isGuestRunning(pid, qmpPath), true);
    t.equal(isGuestRunning(pid, qmpPath.slice(0, -1)), false);
    t.equal(isGuestRunning(process.pid, qmpPath), false);
    await stopGuest(process.pid, qmpPath);
    qmp.close();
    await stopGuest(pid, qmpPath);
    t.equal(isGuestRunning(pid, qmpPath), false);
    await stopGuest(pid, qmpPath);
  });

  t.test('a taken QMP socket does not keep it from being stopped', async (t) => {
    const { pid, qmpPath } = await boot(t, hardware);
    await stopGuest(pid, qmpPath, { timeoutMs: 300 });
    t.equal(isGuestRunning(pid, qmpPath), false);
  });
});
