/** The command line of a guest whose disks overlay views: what waits, what is bounded, what is stopped and not told. */
import t from 'tap';
import { bootCommand, type BootDisk, type BootOptions } from '../../qemu/boot.ts';
import { guestHardware, type GuestHardware } from '../../qemu/hardware.ts';

const hardware: GuestHardware = guestHardware.parse({
  version: 1, qemuVersion: '7.2.22', arch: 'x86_64', machine: { type: 'q35', options: {} }, memory: { sizeBytes: 1 << 28 }, serialPorts: 1, ioThreads: [], firmware: {}, notes: [],
  disks: [{ name: 'a', sizeBytes: 1 << 20 }, { name: 'b', sizeBytes: 1 << 20 }],
  devices: [
    { path: '/machine/peripheral/a', id: 'a', driver: 'virtio-blk-pci', disk: 'a', properties: { werror: 'report', serial: 'S' } },
    { path: '/machine/peripheral/b', id: 'b', driver: 'nvme', disk: 'b', properties: { serial: 'T' } },
    { path: '/machine/peripheral/n', id: 'n', driver: 'virtio-net-pci', properties: {} },
  ],
});

function argvOf(disks: readonly BootDisk[], more: Partial<BootOptions> = {}): string[] {
  return bootCommand(hardware, { disks, qmpPath: '/q', pidFile: '/p', consoleLog: '/c', network: 'none', accel: 'tcg', ...more }).argv;
}

const backing = { socketPath: '/run/points.sock', exportName: 'web/a@1.2' };

t.test('an overlay over a view', (t) => {
  const argv = argvOf([{ disk: 0, name: 'a', path: '/o/a', format: 'qcow2', backing, fileBytesMax: 1 << 26 }, { disk: 1, name: 'b', path: '/o/b', format: 'qcow2', backing }]);
  const nodes = argv.flatMap((word, at) => (argv[at - 1] === '-blockdev' ? [JSON.parse(word) as Record<string, unknown>] : []));
  t.match(nodes, [
    { driver: 'file', 'node-name': 'disk0-file', filename: '/o/a' },
    { driver: 'raw', 'node-name': 'disk0-window', file: 'disk0-file', size: 1 << 26 },
    { driver: 'nbd', 'node-name': 'disk0-view', 'read-only': true, server: { type: 'unix', path: '/run/points.sock' }, export: 'web/a@1.2', 'reconnect-delay': 3600 },
    { driver: 'qcow2', 'node-name': 'disk0', file: 'disk0-window', backing: 'disk0-view' },
    { 'node-name': 'disk1-file' }, { 'node-name': 'disk1-view' }, { 'node-name': 'disk1', file: 'disk1-file', backing: 'disk1-view' },
  ]);
  t.ok(argv.some((word) => word.startsWith('virtio-blk-pci,') && word.includes('werror=stop,rerror=stop') && !word.includes('werror=report') && word.includes('serial=S')), 'stopped on an error, whatever was recorded');
  t.ok(argv.some((word) => word.startsWith('nvme,') && !word.includes('error=')), 'a kind that knows no such property is not given it');
  t.end();
});

t.test('an overlay over a replica is as it was recorded', (t) => {
  const argv = argvOf([{ disk: 0, name: 'a', path: '/o/a', format: 'qcow2' }, { disk: 1, name: 'b', path: '/o/b', format: 'qcow2' }]);
  t.ok(argv.some((word) => word.startsWith('virtio-blk-pci,') && word.includes('werror=report') && !word.includes('rerror')));
  t.notOk(argv.some((word) => word.includes('"backing"') || word.includes('nbd')));
  t.end();
});

t.test('networks', (t) => {
  const disks: BootDisk[] = [{ disk: 0, name: 'a', path: '/o/a', format: 'qcow2' }];
  const netdevs = (network: BootOptions['network']): string[] => argvOf(disks, { network }).filter((_, at, argv) => argv[at - 1] === '-netdev');
  t.strictSame(netdevs('none'), []);
  t.strictSame(netdevs('user'), ['user,id=net0']);
  t.strictSame(netdevs('isolated'), ['user,id=net0,restrict=on']);
  t.end();
});
