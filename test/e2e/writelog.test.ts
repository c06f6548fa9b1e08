/**
 * The write log under real processes: a pace below a second, a change of capture and back, a source that is killed, detached by
 * the stop hook or stopped, a target that stays away until the logs are full. None of it costs a full pass, no write of the
 * guest fails, and the replica ends equal to the guest's disks. That a point is one instant of all disks is tested in test/capture.
 */
import { execFile } from 'node:child_process';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { parseLogNode } from '../../daemon/capture/object-names.ts';
import type { CaptureFigures } from '../../daemon/capture/capture.ts';
import type { LabGuest } from '../../scripts/lab/lab-guest.ts';
import { isLong } from '../support/extent.ts';
import { startPair, type Pair } from '../support/daemons.ts';
import { imageDifference, ourObjects, withQmp } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';

const mib = 1024 ** 2;
const diskBytes = 32 * mib;
/** A log takes a sixteenth of it, and 4 MiB at least. */
const budgetMiB = 72;
const formats = ['raw', 'qcow2'] as const;

class Subject {
  readonly pair: Pair;
  readonly guest: LabGuest;
  readonly paths: readonly string[];
  name = 'web1';

  constructor(pair: Pair, guest: LabGuest, paths: readonly string[]) {
    this.pair = pair;
    this.guest = guest;
    this.paths = paths;
  }

  /** Nodes of logs in QEMU. */
  async logs(): Promise<string[]> {
    return (await ourObjects(this.guest.ownQmpPath)).filter((line) => parseLogNode(line.replace(/^node /, '')) !== undefined);
  }

  async figures(): Promise<CaptureFigures | null> { return (await this.pair.guest(this.name)).capture; }

  /** Until points are read from write logs, `cuts` more of them. */
  async logged(cuts = 3): Promise<void> {
    const from = (await this.figures())?.logCuts ?? 0;
    await waitFor(async () => { const now = await this.figures(); return now?.capture === 'writelog' && now.logCuts >= from + cuts; }, { limitMs: 60_000, what: 'points from write logs' });
  }

  async captured(by: 'cbt' | 'writelog'): Promise<void> {
    await waitFor(async () => (await this.figures())?.capture === by, { limitMs: 60_000, what: `capture ${by}` });
  }

  /** The guest writes on. */
  async wrote(): Promise<void> {
    await this.guest.waitForLine(/^AF STAMP \d+/, 30_000, this.guest.serial.length);
  }

  /** Stops the guest's processors, waits until what its disks hold is applied, takes everything out, compares. */
  async settle(t: Test): Promise<void> {
    const { pair, guest, paths, name } = this;
    await withQmp(guest.ownQmpPath, (qmp) => qmp.execute('stop'));
    await pair.newPoint(name);
    const { newestPoint } = await pair.newPoint(name);
    await waitFor(async () => ((await pair.group(name)).applied?.point ?? 0) >= newestPoint!.point, { limitMs: 30_000, what: 'the newest point to be applied' });
    await pair.source.client.unprotect(name, false);
    t.same(await ourObjects(guest.ownQmpPath), [], 'nothing of ours is left in QEMU');
    t.notOk(guest.serial.some(({ text }) => text.includes('FAILED') || /^AF RAW \S+ \d+ \d+ [1-9]/.test(text)), 'no write of the guest failed');
    const { disks } = await pair.group(name);
    await withQmp(guest.ownQmpPath, (qmp) => qmp.execute('quit'));
    t.equal((await guest.exited).code, 0, 'QEMU ends by itself');
    for (const [disk, path] of paths.entries()) t.equal(await imageDifference(path, formats[disk]!, disks[disk]!.replicaPath), null, `replica = guest disk ${disk}`);
  }
}

/** Discards are copied, not logged: none here, so that each point is read from the logs. */
async function protect(t: Test): Promise<Subject> {
  const folder = t.testdir({});
  const paths = await Promise.all(formats.map((format, disk) => createLabDisk(join(folder, `disk${disk}`), format, diskBytes)));
  const pair = await startPair(t, { spoolBudget: `${budgetMiB}MiB` });
  const guest = await startLabGuest(t, {
    mode: 'raw', churn: 2048, append: 'af.discards=0', memoryMiB: 128, timeLimitMs: 115_000,
    disks: paths.map((path, disk) => ({ path, format: formats[disk]!, iothread: true })),
  });
  await guest.waitForLine(/^AF STAMP \d+/, 60_000);
  await pair.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 500, capture: 'writelog' });
  const one = new Subject(pair, guest, paths);
  await one.logged();
  return one;
}

void t.test('points from logs; to copies of dirty blocks and back', { timeout: 115_000 }, async (t) => {
  const one = await protect(t);
  const { pair } = one;
  await waitFor(async () => (await pair.target.client.points('web1')).length >= 8, { limitMs: 60_000, what: 'eight points' });
  t.match((await pair.guest('web1')), { fullPasses: 1, capture: { capture: 'writelog', captureWhy: 'chosen by the operator' } });
  t.not((await one.logs()).length, 0);

  await t.rejects(pair.source.client.setCapture('web1', 'no such' as 'cbt'), 'a capture that there is not');
  await pair.source.client.setCapture('web1', 'auto');
  await one.logged();
  t.match((await one.figures())?.captureWhy, /500 ms/);
  await pair.source.client.unprotect('web1', false);
  t.same(await ourObjects(one.guest.ownQmpPath), []);

  // Another group, at a pace that both captures can keep.
  one.name = 'web2';
  await pair.source.client.protect({ name: one.name, qmpPath: one.guest.qmpPath, rpoMs: 1000, capture: 'writelog' });
  await one.logged();
  const { fullPasses } = await pair.guest(one.name);
  await pair.source.client.setCapture(one.name, 'cbt');
  await one.captured('cbt');
  await pair.newPoint(one.name);
  t.same(await one.logs(), [], 'the logs are out');
  await pair.source.client.setCapture(one.name, 'writelog');
  await one.logged();
  t.equal((await pair.guest(one.name)).fullPasses, fullPasses, 'there and back without a full pass');
  await one.settle(t);
});

void t.test('the source is killed, detached by the stop hook, stopped', { timeout: 115_000 }, async (t) => {
  const one = await protect(t);
  const { pair } = one;
  const passesOf = async (): Promise<number> => (await pair.guest('web1')).fullPasses;
  const logLines = async (): Promise<number> => (await pair.source.log()).split('gone on with').length - 1;

  await pair.source.kill();
  t.not((await one.logs()).length, 0, 'killed: the logs are still in the guest');
  await one.wrote();
  await pair.source.start();
  await one.logged();
  t.equal(await logLines(), 1, 'the logs were adopted');
  t.equal(await passesOf(), 0, 'without a full pass in this life');

  await pair.source.kill();
  await one.wrote();
  const command = join(import.meta.dirname, '..', '..', 'dist', 'console', 'main.js');
  await promisify(execFile)(process.execPath, [command, 'source', 'detach-logs', '--config', pair.source.configPath]);
  t.same(await one.logs(), [], 'the stop hook took the logs out');
  t.not((await ourObjects(one.guest.ownQmpPath)).length, 0, 'and left the bitmaps in');
  await one.wrote();
  await pair.source.start();
  await one.logged();
  t.equal(await logLines(), 1, 'there was nothing to adopt');
  t.equal(await passesOf(), 0, 'it went on by the bitmaps');

  await pair.source.kill('SIGTERM');
  t.same(await one.logs(), [], 'stopped: the logs are out');
  await one.wrote();
  await pair.source.start();
  await one.logged();
  t.equal(await passesOf(), 0);
  await one.settle(t);
});

// What full logs do is in test/capture/writelog-spool.test.ts.
if (isLong) void t.test('the target stays away until the logs are full', { timeout: 115_000 }, async (t) => {
  const one = await protect(t);
  const { pair } = one;
  await pair.target.kill();
  let most = 0;
  await waitFor(async () => {
    most = Math.max(most, await bytesIn(join(pair.folder, 'spool')));
    return (await one.figures())?.capture === 'cbt';
  }, { limitMs: 80_000, what: 'the logs to be given up', everyMs: 100 });
  t.ok(most > 0 && most <= budgetMiB * mib, `what QEMU wrote for us stayed within the budget: ${most} bytes`);
  t.match((await one.figures())?.captureWhy, /given up/);
  t.same(await one.logs(), []);
  await one.wrote();
  await pair.target.start();
  await one.logged();
  t.equal((await pair.guest('web1')).fullPasses, 1, 'caught up by the bitmaps, and back to the logs');
  await one.settle(t);
});

async function bytesIn(folder: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(folder)) {
    try {
      bytes += (await stat(join(folder, name))).blocks * 512;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return bytes;
}
