/** The lab guest itself: what the other tests rely on when they say that a guest was alive, counted, or was killed. */
import { execFile } from 'node:child_process';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';

import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';

const run = promisify(execFile);
const bootLimitMs = 60_000;

t.test('a counter survives the death of its QEMU, and the file system with it', async (t) => {
  const path = await createLabDisk(join(t.testdir(), 'disk.raw'), 'raw', 256 << 20);
  const first = await startLabGuest(t, { disks: [{ path, format: 'raw' }], mode: 'counter' });
  await first.waitForLine(/^AF FORMATTED vda$/, bootLimitMs);
  await first.waitForLine(/^AF COUNTER 20 \d+$/, bootLimitMs);
  await first.kill();
  t.match(await first.exited, { signal: 'SIGKILL' });
  const written = first.serial.flatMap(({ text }) => /^AF COUNTER (\d+) /.exec(text)?.[1] ?? []).map(Number);

  const second = await startLabGuest(t, { disks: [{ path, format: 'raw' }], mode: 'verify' });
  const found = await second.waitForLine(/^AF COUNTER-FOUND (\d+) \d+$/, bootLimitMs);
  t.ok(Number(found.match[1]) >= Math.max(...written), 'what was fsynced is there');
  await second.waitForLine(/^AF FSCK vda clean$/, bootLimitMs);
  await second.powerOff();
  await run('/sbin/e2fsck', ['-f', '-n', path]);
});

t.test('raw load on two disks, one of them SCSI, on I/O threads: stamps in order, load on both', async (t) => {
  const folder = t.testdir();
  const paths = [await createLabDisk(join(folder, 'a.qcow2'), 'qcow2', 64 << 20), await createLabDisk(join(folder, 'b.raw'), 'raw', 64 << 20)] as const;
  const guest = await startLabGuest(t, {
    disks: [
      { path: paths[0], format: 'qcow2', iothread: true },
      { path: paths[1], format: 'raw', device: 'virtio-scsi', iothread: true, id: null },
    ],
    mode: 'raw',
    append: 'af.span=32',
  });
  await guest.waitForLine(/^AF READY raw \d+ vda sda$/, bootLimitMs);
  await guest.waitForLine(/^AF STAMP 20 /, bootLimitMs);
  await guest.waitForLine(/^AF RAW vda \d{2,} \d+ 0$/, bootLimitMs);
  await guest.waitForLine(/^AF RAW sda \d{2,} \d+ 0$/, bootLimitMs);
  await guest.command('stop');
  await guest.command('sync');
  const size = await guest.command('size sda');
  t.match(size.at(-1)?.text, `AF SIZE sda ${64 << 20}`);
  await guest.powerOff();

  const handle = await open(paths[1]);
  const { buffer } = await handle.read(Buffer.alloc(65536), 0, 65536, 0);
  await handle.close();
  t.match(buffer.toString('latin1', 0, 20), /^AFSTAMP \d{12}$/);
  t.notOk(guest.serial.some(({ text }) => text.startsWith('AF FAILED')), 'no write failed');
});

t.test('a guest that cannot start, and one that does not answer in time, say so', async (t) => {
  const path = await createLabDisk(join(t.testdir(), 'disk.raw'), 'raw', 64 << 20);
  await t.rejects(startLabGuest(t, { disks: [{ path: `${path}.not-there`, format: 'raw' }] }), /No such file/);
  const guest = await startLabGuest(t, { disks: [{ path, format: 'raw' }], timeLimitMs: 300 });
  await t.rejects(guest.waitForLine(/^AF NEVER$/, 100), /nothing within 100 ms/);
  await t.rejects(guest.waitForLine(/^AF NEVER$/, bootLimitMs), /QEMU ended \(SIGKILL\)/);
  t.equal(guest.hasExited, true);
});
