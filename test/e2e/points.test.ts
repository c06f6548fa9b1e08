/**
 * Older points boot: as tests beside a protection that goes on, and as a failover whose data comes home behind the guest while
 * the target that serves it is killed and started again. What each point holds is told by the guest's own counter.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { isGuestRunning } from '../../qemu/boot.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import type { StoredPoint } from '../../replica-target/store/store.ts';
import { counterRange } from '../../scripts/demonstration/figures.ts';
import { startPair, type Pair } from '../support/daemons.ts';
import { startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';
import { makeFilledDisk } from '../support/filled-disk.ts';

const run = promisify(execFile);
const environment = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` };

/** Everything that a test failover could have left: notes, overlays, sockets, holds. */
async function traces(pair: Pair): Promise<string[]> {
  const found: string[] = [];
  for (const folder of ['tests', 'overlays']) {
    if (existsSync(join(pair.folder, 'target', folder))) found.push(...(await readdir(join(pair.folder, 'target', folder))).map((name) => `${folder}/${name}`));
  }
  const { groups } = await pair.target.client.report();
  for (const { groupId } of groups) {
    const holds = join(pair.folder, 'target', 'groups', groupId, 'holds.json');
    if (existsSync(holds)) found.push(...(await readFile(holds, 'utf8')).match(/"reason": ?"[^"]*/g) ?? []);
  }
  return found;
}

function name({ term, point }: { readonly term: number; readonly point: number }): string {
  return `${term}.${point}`;
}

void t.test('older points boot beside a protection that goes on, and as a failover that comes home', { timeout: 240_000 }, async (t) => {
  const folder = t.testdir({});
  const path = await makeFilledDisk(folder, { sizeMiB: 256, filledMiB: 96 });
  const pair = await startPair(t);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 512, timeLimitMs: 230_000, disks: [{ path, format: 'qcow2', iothread: true }] });
  await guest.waitForLine(/^AF COUNTER 3 /, 60_000);
  await pair.protect('web1', guest.qmpPath);
  await pair.newPoint('web1', 90_000);
  const points = await waitFor(async () => {
    const found = await pair.target.client.points('web1');
    return found.length >= 9 && found;
  }, { limitMs: 90_000, what: 'nine points' });
  const { client } = pair.target;

  let last: { readonly point: StoredPoint; readonly counter: number } | null = null;
  for (const point of [points[1]!, points[4]!, points[8]!]) {
    const test = await client.testFailover({ group: 'web1', at: name(point), accel: 'tcg' });
    t.match(test, { group: 'web1', point: { term: point.term, point: point.point }, network: 'none' });
    const found = Number((await watchFile(test.logPath, /^AF COUNTER-FOUND (\d+) /m, 60_000))[1]);
    const { least, most } = counterRange(guest.serial, point.cutAtMs);
    t.ok(found >= least && found <= most, `point ${name(point)} holds counter ${found}, written about then: ${least} to ${most}`);
    t.ok(last === null || found >= last.counter, 'later points hold later counters');
    last = { point, counter: found };
    await watchFile(test.logPath, /^AF FSCK vda clean$/m, 60_000);
    await watchFile(test.logPath, new RegExp(`^AF COUNTER ${found + 3} `, 'm'), 60_000);
    t.match(await traces(pair), [/^tests\//, /^overlays\//, /reason.*test failover of web1/]);
    const report = await client.report();
    t.match(report.tests, [{ group: 'web1', isRunning: true, pid: test.pid }]);
    t.equal(report.groups[0]!.state, 'protected');
    t.equal(report.groups[0]!.term, 1, 'a test raises no term');
    await pair.newPoint('web1');
    if (point === points[1]) {
      await t.rejects(client.testFailover({ group: 'web1' }), { code: 'FAILOVER_STATE' }, 'one test at a time');
      await pair.target.kill();
      await pair.target.start();
      t.match((await client.report()).tests, [{ group: 'web1', isRunning: true, pid: test.pid }], 'a killed target takes it up again');
      const counted = (await readFile(test.logPath, 'utf8')).length;
      await waitFor(async () => /^AF COUNTER \d+ /m.test((await readFile(test.logPath, 'utf8')).slice(counted)), { limitMs: 60_000, what: 'the tested guest to count on' });
    }
    t.notMatch(await readFile(test.logPath, 'utf8'), /FAILED/);
    await client.stopTest('web1');
    t.notOk(isGuestRunning(test.pid, test.qmpPath), 'its guest has ended');
    t.strictSame(await traces(pair), [], 'and nothing is left of it');
  }
  const limited = await client.testFailover({ group: 'web1', limitMs: 1500, network: 'isolated' });
  await waitFor(async () => (await client.report()).endedTests.some(({ why }) => why === 'limit'), { limitMs: 30_000, what: 'the limit of a test' });
  t.notOk(isGuestRunning(limited.pid, limited.qmpPath), 'a test ends at its limit');
  t.strictSame(await traces(pair), []);

  // A test that runs is ended by the failover.
  const ended = await client.testFailover({ group: 'web1', at: name(points[3]!), accel: 'tcg' });
  const chosen = points[4]!;
  const failover = await client.failover({ group: 'web1', at: name(chosen), accel: 'tcg' });
  const qmp = await connectQmp(failover.qmpPath);
  const errors: string[] = [];
  qmp.onEvent(({ event }) => { if (event === 'BLOCK_IO_ERROR' || event === 'STOP' || event === 'BLOCK_JOB_ERROR') errors.push(event); });
  const job = await waitFor(async () => (await qmp.execute<{ device: string }[]>('query-block-jobs'))[0] ?? null, { limitMs: 20_000, what: 'the data to come home', everyMs: 5 });
  await qmp.execute('block-job-set-speed', { device: job.device, speed: 4 << 20 });
  t.match(failover, { term: 2, point: { term: chosen.term, point: chosen.point }, isComingHome: true });
  t.ok(failover.lostMs >= (points.at(-1)!.cutAtMs - chosen.cutAtMs), 'what is lost is told from the point that was chosen');
  t.notOk(isGuestRunning(ended.pid, ended.qmpPath));
  t.match((await client.report()).endedTests, [{ why: 'failover' }]);
  t.match((await client.report()).failovers, [{ home: { state: /streaming|waiting/ } }]);

  const midwayOf = async (): Promise<{ offset: number; len: number } | undefined> => (await qmp.execute<{ offset: number; len: number }[]>('query-block-jobs'))[0];
  await waitFor(async () => ((await midwayOf())?.offset ?? 1) > 0, { limitMs: 20_000, what: 'some of the data to be home', everyMs: 5 });
  t.ok((await traces(pair)).some((trace) => /reason.*failover of web1/.test(trace)), 'the point is held');
  const midway = await midwayOf();
  // From here on QEMU itself may wait: a guest that boots resets its disks, and QEMU lets what is under way end first.
  await pair.target.kill();
  t.ok(midway !== undefined && midway.offset > 0 && midway.offset < midway.len, `the target was killed with ${midway?.offset} of ${midway?.len} bytes home`);
  await pair.target.start();
  t.match((await client.report()).failovers, [{ isRunning: true, pid: failover.pid }], 'the guest outlived the target');
  await qmp.execute('block-job-set-speed', { device: job.device, speed: 0 });
  await waitFor(async () => (await client.report()).failovers[0]!.home?.state === 'home', { limitMs: 90_000, what: 'all data to be home' });
  const found = Number((await watchFile(failover.logPath, /^AF COUNTER-FOUND (\d+) /m, 60_000))[1]);
  const { least, most } = counterRange(guest.serial, chosen.cutAtMs);
  t.ok(found >= least && found <= most, `point ${name(chosen)} holds counter ${found}, written about then: ${least} to ${most}`);
  const counted = (await readFile(failover.logPath, 'utf8')).length;
  await waitFor(async () => /^AF COUNTER \d+ /m.test((await readFile(failover.logPath, 'utf8')).slice(counted)), { limitMs: 60_000, what: 'the guest to count on' });

  t.strictSame(errors, [], 'no request of the guest failed, and it was never stopped');
  t.notMatch(await readFile(failover.logPath, 'utf8'), /FAILED|I\/O error/);
  t.match(await qmp.execute('query-status'), { status: 'running' });
  qmp.close();
  const overlay = failover.overlayPaths[0]!;
  t.notMatch(JSON.parse((await run('qemu-img', ['info', '-U', '--output', 'json', overlay])).stdout), { 'backing-filename': String }, 'the image stands alone');
  t.strictSame((await traces(pair)).filter((trace) => trace.includes('reason')), [], 'the point is not held any more');
  await client.stopFailover('web1', false);
  const raw = join(folder, 'home.raw');
  await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', overlay, raw]);
  await run('e2fsck', ['-y', '-E', 'journal_only', raw], { env: environment });
  await run('e2fsck', ['-f', '-n', raw], { env: environment });
  t.pass('its file system is clean');

  const again = await client.failover({ group: 'web1', accel: 'tcg' });
  t.match(again, { term: 2, point: { term: chosen.term, point: chosen.point }, isComingHome: false }, 'started again, it goes on from its own images');
  await t.rejects(client.testFailover({ group: 'web1' }), { code: 'FAILOVER_STATE' }, 'what has failed over is not tested');
  await client.stopFailover('web1', false);
  await t.rejects(client.failover({ group: 'web1', at: name(points[2]!) }), { code: 'FAILOVER_STATE' }, 'another point would throw away what was written since');
  await client.stopFailover('web1', true);
  t.equal((await pair.group('web1')).state, 'protected');
  t.strictSame(await traces(pair), [], 'a roll-back leaves nothing');
});
