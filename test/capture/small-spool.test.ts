/**
 * The spool and the guest's thin image share one small file system. Whatever happens to the spool, with the daemon alive or
 * dead, no write of the guest fails because of us: on a real guest with an I/O thread, on a real file system of 96 MiB.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, statSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { PointId } from '../../journal/point.ts';
import { isFault } from '../../journal/fault.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import { imageDifference } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { ownObjects } from './support/captures.ts';
import { captureGuest, nodesOf, passWhole } from './support/guests.ts';
import { difference, Replica } from './support/replica.ts';
import { shortFolder, until } from './support/storage-daemon.ts';
import { WholeProxy } from './support/whole-proxy.ts';

const mib = 1024 * 1024;
const point = (number: number): PointId => ({ term: 1, point: number });

/** A small file system of its own, or null where this process may not mount one. */
function mountSmall(t: Test, folder: string, sizeMib: number): string | null {
  if (process.getuid?.() !== 0) return null;
  const at = join(folder, 'small');
  mkdirSync(at);
  const image = join(folder, 'small.ext4');
  writeFileSync(image, '');
  truncateSync(image, sizeMib * mib);
  for (const mount of [() => {
    execFileSync('mkfs.ext4', ['-q', '-F', '-m', '0', image], { stdio: 'ignore' });
    execFileSync('mount', ['-o', 'loop', image, at], { stdio: 'ignore' });
  }, () => execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeMib}m`, 'tmpfs', at], { stdio: 'ignore' })]) {
    try {
      mount();
    } catch (error) {
      t.comment(`not mounted: ${(error as Error).message.split('\n')[0]}`);
      continue;
    }
    t.teardown(() => { execFileSync('umount', [at]); });
    return at;
  }
  return null;
}

t.test('a spool that is full, broken or abandoned is not the guest’s concern', async (t) => {
  const folder = shortFolder(t);
  const small = mountSmall(t, folder, 96);
  if (small === null) {
    t.comment('skipped: mounting a small file system takes root');
    return;
  }
  const disk = await createLabDisk(join(small, 'disk0'), 'raw', 32 * mib);
  const spoolFolder = join(small, 'spool');
  const guest = await startLabGuest(t, { disks: [{ path: disk, format: 'raw', iothread: true }], mode: 'raw', churn: 2000, memoryMiB: 128, append: 'af.discards=0' });
  // Unmounting waits for QEMU to be gone: teardowns run last in, first out.
  await guest.waitForLine(/^AF STAMP \d+/, 60_000);
  const own = await connectQmp(guest.ownQmpPath);
  t.teardown(() => own.close());
  const breaks: unknown[] = [];
  own.onEvent(({ event, data }) => { if (event === 'QUORUM_REPORT_BAD') breaks.push(data['error']); });
  const proxy = await WholeProxy.start(t, folder, guest.qmpPath, own);
  const replica = new Replica(folder, 1);
  // What the guest's image may still want stays free.
  const options = { spoolFolder, budgetBytes: 200 * mib, freeBytesMin: 32 * mib };
  let capture = captureGuest(folder, proxy.path, options);
  await capture.connect();
  await capture.reconcile(null);
  await passWhole(capture, replica);
  let held = 0;
  const advance = async (what: string): Promise<void> => {
    for (;;) {
      await proxy.arm(await nodesOf(own));
      const delta = await capture.cut(point(held), point(held + 1), 'crash');
      const [whole] = await proxy.collect();
      await replica.apply(delta);
      if (!delta.isRound) t.equal(difference(whole!, replica.path(0)), null, what);
      rmSync(whole!);
      await delta.end('acknowledged');
      if (delta.isRound) continue;
      held += 1;
      return;
    }
  };
  await advance('with space');

  // The file system fills up to what must stay free: no image is begun, the guest goes on.
  const filler = join(small, 'filler');
  const { bavail, bsize } = statfsSync(small);
  // The image of the last cut is kept for the next; here it has to go, and does not help.
  const [spare] = readdirSync(spoolFolder);
  execFileSync('fallocate', ['-l', String((bavail + statSync(join(spoolFolder, spare!)).blocks * 512 / bsize) * bsize - 30 * mib), filler]);
  const full = await capture.cut(point(held), point(held + 1), 'crash').then(() => null, (error: unknown) => error);
  t.ok(isFault(full, 'SPOOL_FULL'), String(full));
  t.same(readdirSync(spoolFolder), []);
  rmSync(filler);
  await capture.reconcile(point(held));
  await advance('with space again');

  // The daemon dies right after the cut, with a job that would take an hour, into an image that holds far less than it is to take.
  await guest.command('sh dd if=/run/pool of=/dev/vda bs=4k count=1024 seek=1024 oflag=direct conv=notrunc', 60_000);
  proxy.onCommand = (command) => {
    const json = JSON.stringify(command.arguments ?? {}).replace(/("node-name":"afterimage-[^"]*b","size":)\d+/g, '$11048576');
    if (command.execute === 'blockdev-add') command.arguments = JSON.parse(json) as Record<string, unknown>;
    if (command.execute !== 'transaction') return 'pass';
    for (const { type, data } of command.arguments?.actions ?? []) if (type === 'blockdev-backup') data['speed'] = 1024;
    return 'dieAfter';
  };
  const died = await capture.cut(point(held), point(held + 1), 'crash').then(() => null, (error: unknown) => error);
  t.ok(isFault(died, 'QMP_CLOSED'), String(died));
  proxy.onCommand = () => 'pass';
  t.ok((await ownObjects(own)).some((name) => name.endsWith('j')), 'the job is at work, nobody looks after it');
  const freeBefore = statfsSync(small).bavail;
  // Every block of the disk, so that the image gets all that it was to get, and more than it can hold.
  // But for the stamps'. From then on the guest's image wants no more space: where there is none for it, QEMU stops the guest, and rightly.
  for (let block = 16; block < 8192; block += 1280) await guest.command(`sh dd if=/run/pool of=/dev/vda bs=4k count=${Math.min(1280, 8192 - block)} seek=${block} oflag=direct conv=notrunc`, 60_000);
  await until('the image broke', () => (breaks.length > 0 ? true : undefined));
  t.ok(statSync(disk).blocks * 512 >= 31 * mib);
  t.ok((freeBefore - statfsSync(small).bavail) * bsize <= 32 * mib, 'only the guest’s own image has grown');
  t.notOk(guest.serial.some(({ text }) => text.includes('FAILED')), 'no write of the guest failed');
  t.notOk(guest.hasExited);

  // The next life.
  capture = captureGuest(folder, proxy.path, options);
  await capture.connect();
  t.same(await capture.reconcile(point(held)), { standing: 'ready' });
  t.same(readdirSync(spoolFolder), []);
  await advance('after the death');

  // Space that was promised and is not there: the image's file has holes, and the file system no room.
  proxy.onCommand = (command) => {
    if (command.execute !== 'transaction' || !command.arguments?.actions?.some(({ type }) => type === 'blockdev-backup')) return 'pass';
    for (const name of readdirSync(spoolFolder)) if (/-\d\.delta$/.test(name)) execFileSync('fallocate', ['-p', '-o', String(6 * 65536), '-l', String(statSync(join(spoolFolder, name)).size - 6 * 65536), join(spoolFolder, name)]);
    const { bavail: free } = statfsSync(small);
    execFileSync('fallocate', ['-l', String(Math.max(1, free * bsize - 65536)), filler]);
    return 'pass';
  };
  await guest.command('sh dd if=/run/pool of=/dev/vda bs=4k count=1024 seek=512 oflag=direct conv=notrunc', 60_000);
  const breaksBefore = breaks.length;
  const broken = await capture.cut(point(held), point(held + 1), 'crash').then(() => null, (error: unknown) => error);
  t.ok(isFault(broken, 'DELTA_BROKEN'), String(broken));
  t.ok(breaks.length > breaksBefore);
  rmSync(filler);
  proxy.onCommand = () => 'pass';
  t.same(await capture.reconcile(point(held)), { standing: 'ready' });
  await advance('after the broken one');

  await guest.command('stop');
  await advance('at the end');
  await capture.release();
  t.same(await ownObjects(own), []);
  t.notOk(guest.serial.some(({ text }) => text.includes('FAILED')), 'no write of the guest failed, to the end');
  await guest.powerOff();
  t.equal(await imageDifference(disk, 'raw', replica.path(0)), null);
});
