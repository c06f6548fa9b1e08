/**
 * The raw logs, kept by the test as they were, replayed by a second and naive implementation up to each cut, give byte for byte
 * what the capture's deltas give; over many logs, as these are small here.
 */
import { closeSync, copyFileSync, linkSync, openSync, readFileSync, readSync, readdirSync, writeSync, existsSync, fstatSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { limitMs, turns } from '../support/extent.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { captureGuest, passWhole } from './support/guests.ts';
import { difference, Replica } from './support/replica.ts';
import { shortFolder } from './support/storage-daemon.ts';

const mib = 1024 * 1024;
const cuts = turns('AFTERIMAGE_REPLAY_CUTS', 40, 200);
const point = (number: number): { term: number; point: number } => ({ term: 1, point: number });

interface Note { readonly points: { readonly point: string; readonly positions: { readonly stamp: string; readonly at: number }[] }[] }

/** Sector, sectors, flags and mark's length, each eight bytes, little-endian; the data in the sectors that follow. Nothing of the product is used. */
class NaiveReplay {
  readonly path: string;
  readonly #kept: string;
  readonly #disk: number;
  #stamp: string | null = null;
  #at = 512;
  logs = 0;

  constructor(path: string, kept: string, disk: number) {
    this.path = path;
    this.#kept = kept;
    this.#disk = disk;
  }

  /** Up to a place in the log of `stamp`; logs before it to their end. */
  upTo(stamp: string, at: number): void {
    for (const name of readdirSync(this.#kept).sort()) {
      const [, found, disk] = /-([0-9a-z]+)-(\d+)\.log$/.exec(name)!;
      if (Number(disk) !== this.#disk || (this.#stamp !== null && found! < this.#stamp) || found! > stamp) continue;
      if (found !== this.#stamp) {
        this.#stamp = found!;
        this.#at = 512;
        this.logs += 1;
      }
      this.#replay(join(this.#kept, name), found === stamp ? at : Infinity);
    }
  }

  #replay(path: string, end: number): void {
    const [log, image] = [openSync(path, 'r'), openSync(this.path, 'r+')];
    const { size } = fstatSync(log);
    const head = Buffer.alloc(32);
    while (this.#at < end && this.#at < size) {
      readSync(log, head, 0, 32, this.#at);
      const [sector, sectors, flags] = [head.readBigUInt64LE(0), head.readBigUInt64LE(8), head.readBigUInt64LE(16)];
      if (sectors === 0n && flags === 0n) break;
      const data = Buffer.alloc(Number(sectors) * 512);
      readSync(log, data, 0, data.length, this.#at + 512);
      writeSync(image, data, 0, data.length, Number(sector) * 512);
      this.#at += 512 + data.length;
    }
    closeSync(log);
    closeSync(image);
    if (end !== Infinity && this.#at !== end) throw new Error(`the cut at ${end} of ${path} is no entry's boundary: ${this.#at} is`);
  }
}

void t.test(`an independent replay of the raw logs up to each of ${cuts} cuts equals the point`, { timeout: limitMs(200_000) }, async (t) => {
  const folder = shortFolder(t);
  const kept = shortFolder(t);
  const spool = join(folder, 'spool');
  const disks = await Promise.all(['raw' as const, 'qcow2' as const].map(async (format, index) => ({ path: await createLabDisk(`${folder}/disk${index}`, format, 24 * mib), format, iothread: true })));
  const guest = await startLabGuest(t, { disks, mode: 'raw', churn: 8192, memoryMiB: 128, timeLimitMs: limitMs(190_000), append: 'af.discards=0' });
  await guest.waitForLine(/^AF STAMP \d+/, 60_000);
  const capture = captureGuest(folder, guest.qmpPath, { capture: 'writelog', budgetBytes: 128 * mib });
  t.teardown(() => capture.close());
  await capture.connect();
  await capture.reconcile(null);
  const replica = new Replica(folder, 2);
  await passWhole(capture, replica);
  const naive = [0, 1].map((disk) => new NaiveReplay(join(folder, `naive${disk}.raw`), kept, disk));
  for (const [disk, { path }] of naive.entries()) copyFileSync(replica.path(disk), path);
  const note = readdirSync(spool).find((name) => name.endsWith('-logs.json'))!;
  const flaws: string[] = [];
  for (let base = 0; base < cuts; base += 1) {
    const delta = await capture.cut(point(base), point(base + 1), 'crash');
    await replica.apply(delta);
    for (const name of readdirSync(spool)) if (name.endsWith('.log') && !existsSync(join(kept, name))) linkSync(join(spool, name), join(kept, name));
    const { positions } = (JSON.parse(readFileSync(join(spool, note), 'utf8')) as Note).points.find((one) => one.point === `1.${base + 1}`)!;
    for (const [disk, { stamp, at }] of positions.entries()) {
      naive[disk]!.upTo(stamp, at);
      const flaw = difference(naive[disk]!.path, replica.path(disk));
      if (flaw !== null) flaws.push(`point ${base + 1}, disk ${disk}: ${flaw}`);
    }
    await delta.end('acknowledged');
  }
  t.same(flaws, []);
  t.equal(capture.figures().logCuts, cuts, 'every point was cut from the logs');
  t.ok(naive.every(({ logs }) => logs > 1), `over ${naive.map(({ logs }) => logs).join(' and ')} logs`);
  await capture.release();
});
