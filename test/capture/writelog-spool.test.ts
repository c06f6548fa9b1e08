/**
 * A spool on a small file system that is really full, with the daemon alive and with it dead: the guest writes on, its log reaches
 * its bound and no further, the capture goes on by bitmaps from the same point, nothing is lost, and the log comes back.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { CbtCapture } from '../../daemon/capture/cbt-capture.ts';
import { isFault } from '../../journal/fault.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import { imageDifference } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { ownObjects } from './support/captures.ts';
import { captureGuest, passWhole } from './support/guests.ts';
import { Replica } from './support/replica.ts';
import { shortFolder, until } from './support/storage-daemon.ts';

const mib = 1024 * 1024;
const point = (number: number): { term: number; point: number } => ({ term: 1, point: number });

void t.test('a full spool', { timeout: 200_000, skip: process.getuid?.() === 0 ? false : 'needs root to mount a small file system' }, async (t) => {
  const folder = shortFolder(t);
  const small = join(folder, 'small');
  mkdirSync(small);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', small]);
  t.teardown(() => execFileSync('umount', ['-l', small]));
  const path = await createLabDisk(`${folder}/disk`, 'qcow2', 24 * mib);
  const guest = await startLabGuest(t, { disks: [{ path, format: 'qcow2', iothread: true }], mode: 'raw', churn: 4096, memoryMiB: 128, timeLimitMs: 190_000, append: 'af.discards=0 af.span=8' });
  await guest.waitForLine(/^AF STAMP \d+/, 60_000);
  const own = await connectQmp(guest.ownQmpPath);
  t.teardown(() => own.close());
  const open = async (): Promise<CbtCapture> => {
    const capture = captureGuest(folder, guest.qmpPath, { capture: 'writelog', spoolFolder: small, budgetBytes: 512 * mib });
    await capture.connect();
    return capture;
  };
  const replica = new Replica(folder, 1);
  let held = 0;
  /** A guest that was held up writes faster for a while than a log of this size is looked after: then it is given up once more. */
  const cut = async (capture: CbtCapture): Promise<void> => {
    for (let turn = 0; ; turn += 1) {
      try {
        const delta = await capture.cut(point(held), point(held + 1), 'crash');
        await replica.apply(delta);
        await delta.end('acknowledged');
        held += 1;
        return;
      } catch (error) {
        if (!isFault(error, 'LOG_BROKEN') || turn === 10) throw error;
        t.same(await capture.reconcile(point(held)), { standing: 'ready' });
      }
    }
  };
  const first = await open();
  await first.reconcile(null);
  await passWhole(first, replica);
  await cut(first);
  t.match(first.figures(), { capture: 'writelog', logCuts: 1 });

  // Nobody cuts, as while the target is away, and nothing more is to be had of the file system.
  const ballast = join(small, 'ballast');
  execFileSync('sh', ['-c', 'dd if=/dev/zero of="$1" bs=64k 2>/dev/null; true', 'sh', ballast]);
  await until('the log to be given up', () => (first.figures().capture === 'cbt' ? true : undefined), 60_000);
  t.match(first.figures().captureWhy, /^the write log was given up: the (log of disk 0 is nearly full|write log .* did not take a write)/);
  // The files go after the nodes.
  await until('its space to be free again', () => (readdirSync(small).some((name) => name.endsWith('.log')) ? undefined : true), 60_000);
  rmSync(ballast);
  await cut(first);
  t.equal(first.figures().logCuts, 1, 'copied, from the same point');
  for (let turn = 0; turn < 10 && first.figures().logCuts < 2; turn += 1) {
    first.choose('writelog');
    await cut(first);
  }
  t.match(first.figures(), { capture: 'writelog', logCuts: 2 }, 'and the log is back');

  // The daemon dies; its log goes on to its bound.
  await first.close();
  const log = join(small, readdirSync(small).find((name) => name.endsWith('.log'))!);
  const capBytes = statSync(log).size;
  await until('QEMU to have written past the bound', async () => {
    const nodes = await own.execute<{ 'node-name'?: string; 'dirty-bitmaps'?: { name?: string; count: number }[] }[]>('query-named-block-nodes', { flat: true });
    const all = nodes.flatMap((node) => node['dirty-bitmaps'] ?? []).find(({ name }) => name === 'afterimage-log-all');
    return all !== undefined && all.count > capBytes + 2 * mib ? true : undefined;
  }, 60_000);
  t.equal(statSync(log).size, capBytes, 'and the file never grew past it');
  const second = await open();
  t.same(await second.reconcile(point(held)), { standing: 'ready' });
  t.equal(second.figures().capture, 'cbt', 'a log that went past its bound is not trusted');
  await cut(second);
  await guest.command('stop');
  await cut(second);
  await second.release();
  t.same(await ownObjects(own), []);
  t.notOk(guest.serial.some(({ text }) => text.includes('FAILED')), 'no write of the guest failed');
  await guest.powerOff();
  t.same(await guest.exited, { code: 0, signal: null });
  t.equal(await imageDifference(path, 'qcow2', replica.path(0)), null, 'replica = guest disk');
});
