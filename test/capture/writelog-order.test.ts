/**
 * A then B then A: a guest writes the same number to each of two disks in turn, each write acknowledged before the next. At every
 * point cut from the logs, as many as the time allows, no write may be there whose predecessor is missing, across the disks.
 * AFTERIMAGE_ORDER_CUTS for more of them.
 */
import t from 'tap';
import { limitMs, turns } from '../support/extent.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { captureGuest, passWhole, stampFlaw, stampOf } from './support/guests.ts';
import { Replica } from './support/replica.ts';
import { shortFolder } from './support/storage-daemon.ts';

const mib = 1024 * 1024;
const cuts = turns('AFTERIMAGE_ORDER_CUTS', 60, 1500);
const point = (number: number): { term: number; point: number } => ({ term: 1, point: number });

for (const iothread of [true, false]) {
  void t.test(`ordering of writes across disks, ${iothread ? 'an I/O thread each' : 'in the main loop'}, at ${cuts} points`, { timeout: limitMs(280_000) }, async (t) => {
    const folder = shortFolder(t);
    const disks = await Promise.all(['raw' as const, 'qcow2' as const].map(async (format, index) => ({ path: await createLabDisk(`${folder}/disk${index}`, format, 24 * mib), format, iothread })));
    const guest = await startLabGuest(t, { disks, mode: 'raw', churn: 512, memoryMiB: 128, timeLimitMs: limitMs(270_000), append: 'af.discards=0' });
    await guest.waitForLine(/^AF STAMP \d+/, 60_000);
    const capture = captureGuest(folder, guest.qmpPath, { capture: 'writelog' });
    t.teardown(() => capture.close());
    await capture.connect();
    await capture.reconcile(null);
    const replica = new Replica(folder, 2);
    await passWhole(capture, replica);
    const [flaws, seen]: [string[], Set<string>] = [[], new Set()];
    for (let base = 0; base < cuts; base += 1) {
      const delta = await capture.cut(point(base), point(base + 1), 'crash');
      await replica.apply(delta);
      await delta.end('acknowledged');
      const paths = [replica.path(0), replica.path(1)];
      const flaw = stampFlaw(paths);
      if (flaw !== null) flaws.push(`point ${base + 1}: ${flaw}`);
      seen.add(paths.map(stampOf).join());
    }
    t.same(flaws, [], 'no write is there whose predecessor is missing');
    t.equal(capture.figures().logCuts, cuts, 'every point was cut from the logs');
    t.ok(seen.size > cuts / 20, `${seen.size} different states of the numbers were seen`);
    t.ok([...seen].some((state) => new Set(state.split(',')).size === 2), 'some of them between the two writes');
    await capture.release();
  });
}
