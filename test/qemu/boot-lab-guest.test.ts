/** A living guest, recorded under load and killed, runs again from the record alone: same disks in the same places, its data there. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { bootCommand, chosenAccel, isGuestRunning, startGuest, stopGuest } from '../../qemu/boot.ts';
import { guestHardware, recordHardware } from '../../qemu/hardware.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { shortFolder, until } from './real-qemu.ts';

const bootLimitMs = 120_000;

t.test('recorded under load, killed, booted on overlays', async (t) => {
  const folder = shortFolder(t);
  const paths = [await createLabDisk(join(folder, 'a.raw'), 'raw', 256 << 20), await createLabDisk(join(folder, 'b.raw'), 'raw', 64 << 20)] as const;
  const first = await startLabGuest(t, {
    disks: [{ path: paths[0], format: 'raw', iothread: true }, { path: paths[1], format: 'raw', device: 'virtio-scsi', iothread: true, id: null }],
    mode: 'counter', append: 'af.disks=vda',
    extraArgs: ['-netdev', 'user,id=n', '-device', 'virtio-net-pci,netdev=n,mac=52:54:00:aa:bb:01'],
  });
  await first.waitForLine(/^AF COUNTER 3 \d+$/, bootLimitMs);
  const qmp = await connectQmp(first.qmpPath);
  const hardware = guestHardware.parse(JSON.parse(JSON.stringify(await recordHardware(qmp))));
  qmp.close();
  const counted = first.serial.length;
  await first.waitForLine(/^AF COUNTER \d+ \d+$/, bootLimitMs, counted);
  await first.kill();
  const written = first.serial.flatMap(({ text }) => /^AF COUNTER (\d+) /.exec(text)?.[1] ?? []).map(Number);
  t.match(hardware, { kernel: { append: /af\.mode=counter/ }, serialPorts: 1, disks: [{}, {}], ioThreads: [{}, {}], notes: [] });

  const disks = hardware.disks.map(({ name, sizeBytes }, disk) => {
    const path = join(folder, `overlay${disk}.qcow2`);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', sizeBytes === 256 << 20 ? paths[0] : paths[1], path]);
    return { disk, name, path, format: 'qcow2' as const };
  });
  const qmpPath = join(folder, 'qmp');
  const consoleLog = join(folder, 'console');
  const { argv, notes } = bootCommand(hardware, {
    disks, qmpPath, consoleLog, pidFile: join(folder, 'pid'), network: 'user', accel: chosenAccel(process.env),
    kernel: { ...hardware.kernel!, append: hardware.kernel!.append!.replace('af.mode=counter', 'af.mode=verify') },
  });
  t.same(notes, []);
  const { pid } = await startGuest(argv, { logPath: join(folder, 'log'), qmpPath });
  t.teardown(() => stopGuest(pid, qmpPath));
  const said = (pattern: RegExp): Promise<RegExpExecArray> => until(`the guest says ${pattern}; QEMU: ${readFileSync(join(folder, 'log'), 'utf8')}`, () => {
    if (!isGuestRunning(pid, qmpPath)) throw new Error(`the guest’s QEMU ended: ${readFileSync(join(folder, 'log'), 'utf8')}`);
    return (existsSync(consoleLog) ? pattern.exec(readFileSync(consoleLog, 'utf8')) : null) ?? undefined;
  }, bootLimitMs);
  const found = await said(/AF COUNTER-FOUND (\d+) /);
  t.ok(Number(found[1]) >= Math.max(...written), `${found[1]} of ${written.at(-1)}`);
  await said(/AF FSCK vda clean/);
  const second = await connectQmp(qmpPath);
  t.match(await second.execute('query-status'), { running: true });
  second.close();
});
