/** Tests of a point: bounded in what their guest writes, and found again whatever moment the target died at. */
import { existsSync } from 'node:fs';
import { mkdir, readdir, stat, truncate, writeFile } from 'node:fs/promises';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { replaceJson } from '../../host/node/json-file.ts';
import { isGuestRunning } from '../../qemu/boot.ts';
import { recordHardware } from '../../qemu/hardware.ts';
import { Adoption } from '../../replica-target/failover/adoption.ts';
import { nodeFailoverHost } from '../../replica-target/failover/failover-host.ts';
import { Failovers } from '../../replica-target/failover/failover.ts';
import { SourceOrders } from '../../replica-target/ingest/source-orders.ts';
import { TestFailovers } from '../../replica-target/failover/test-failover.ts';
import { withQmp } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';
import { failoverRig, groupId, point, serveRaw, startEmptyQemu, storeOf, type FailoverRig } from './failover-rig.ts';

const run = promisify(execFile);

async function leftOf({ folder, points }: FailoverRig): Promise<string[]> {
  return [...await readdir(join(folder, 'tests')), ...await readdir(join(folder, 'overlays')), ...points.holds().map(({ reason }) => reason)];
}

t.test('a guest that writes more than its budget is ended, and its images never grew beyond it', { timeout: 120_000 }, async (t) => {
  const folder = t.testdir({});
  const raw = await createLabDisk(join(folder, 'a.raw'), 'raw', 256 << 20);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 16_384, append: 'af.pace=200', disks: [{ path: raw, format: 'raw', iothread: true }], timeLimitMs: 100_000 });
  await guest.waitForLine(/^AF COUNTER 1 /, 60_000);
  const hardware: unknown = JSON.parse(JSON.stringify(await withQmp(guest.ownQmpPath, recordHardware)));
  await guest.kill();
  const name = (hardware as { disks: { name: string }[] }).disks[0]!.name;
  const disks = [{ disk: 0, name, sizeBytes: 256 << 20 }];
  const rig = await failoverRig(t, disks, hardware);
  await serveRaw(t, rig.options.viewSocketPath, raw, join(rig.folder, 'failing'));
  const other = storeOf('cd'.repeat(16), 'other', rig.points, hardware);
  const before = (await run('sha256sum', [raw])).stdout;

  const tests = new TestFailovers(rig.options);
  await tests.open([rig.store, other]);
  t.teardown(() => tests.close());
  const budgetBytes = 64 << 20;
  await t.rejects(tests.start(rig.store, { group: 'web', budgetBytes: 1 << 20 }), { code: 'TEST_SPACE' });
  await t.rejects(tests.start(rig.store, { group: 'web', budgetBytes: Number.MAX_SAFE_INTEGER }), { code: 'TEST_SPACE' });
  await t.rejects(tests.start(rig.store, { group: 'web', at: '1.3' }), { code: 'POINT_UNKNOWN' });
  t.strictSame(await leftOf(rig), [], 'a refusal leaves nothing');
  const result = await tests.start(rig.store, { group: 'web', budgetBytes, network: 'isolated' });
  t.match(result, { point: { term: 1, point: 2 }, budgetBytes, network: 'isolated' });
  t.equal((await leftOf(rig)).length, 3, 'a note, a folder, a hold');
  const second = await tests.start(other, { group: 'other', budgetBytes, limitMs: 1000 });
  t.match(tests.report(), [{ group: 'web', isRunning: true }, { group: 'other', isRunning: true }], 'two groups at once');
  await waitFor(() => tests.ended().length > 0, { limitMs: 30_000, what: 'the limit of the second' });
  t.match(tests.ended(), [{ group: 'other', why: 'limit' }]);
  t.notOk(isGuestRunning(second.pid, second.qmpPath));
  t.match(tests.report(), [{ group: 'web', isRunning: true, pid: result.pid }], 'one ends and the other goes on');
  const overlay = join(rig.folder, 'overlays', `${groupId.slice(0, 12)}-test`, 'disk0.qcow2');
  let usedBytes = 0;
  let lengthBytes = 0;
  await waitFor(async () => {
    const { blocks, size } = await stat(overlay).catch((error: NodeJS.ErrnoException) => { if (error.code === 'ENOENT') return { blocks: 0, size: 0 }; throw error; });
    usedBytes = Math.max(usedBytes, blocks * 512);
    lengthBytes = Math.max(lengthBytes, size);
    return tests.ended().length > 1;
  }, { limitMs: 60_000, what: 'the budget to be reached' });
  t.match(tests.ended()[1], { group: 'web', point: { term: 1, point: 2 }, why: 'budget' });
  t.ok(usedBytes > budgetBytes - (8 << 20) && usedBytes <= budgetBytes, `its image took ${usedBytes} of ${budgetBytes} bytes`);
  t.equal(lengthBytes, budgetBytes, 'and was never longer');
  t.notOk(isGuestRunning(result.pid, result.qmpPath));
  t.strictSame(await leftOf(rig), []);
  t.equal((await run('sha256sum', [raw])).stdout, before, 'what lies beneath was not written');
});

t.test('what a killed target left of tests is found', { timeout: 60_000 }, async (t) => {
  const cases = [
    { when: 'between QEMU’s start and the note of its pid', hasPid: false, isRunning: true, hasNotedHold: true, endsInMs: 60_000, why: 'interrupted' },
    { when: 'between the hold and the note of it', hasPid: false, isRunning: false, hasNotedHold: false, endsInMs: 60_000, why: 'interrupted' },
    { when: 'while its guest ran to its limit', hasPid: true, isRunning: true, hasNotedHold: true, endsInMs: 0, why: 'limit' },
    { when: 'and its guest has ended since', hasPid: true, isRunning: false, hasNotedHold: true, endsInMs: 60_000, why: 'guest-ended' },
  ];
  for (const { when, hasPid, isRunning, hasNotedHold, endsInMs, why } of cases) {
    const rig = await failoverRig(t, [{ disk: 0, name: 'vda', sizeBytes: 1 << 20 }]);
    const folder = join(rig.folder, 'overlays', 'a-test');
    const qmpPath = join(folder, 'qmp.sock');
    await mkdir(folder);
    await mkdir(join(rig.folder, 'tests'));
    await writeFile(join(folder, 'disk0.qcow2'), '');
    await truncate(join(folder, 'disk0.qcow2'), 4096);
    const { holdId } = await rig.points.hold(point, 'test failover of web (1234)', null);
    await rig.points.hold(point, 'somebody else’s', null);
    const pid = isRunning ? await startEmptyQemu(t, qmpPath) : 4_000_000;
    await replaceJson(join(rig.folder, 'tests', `${groupId}.json`), {
      groupId, group: 'web', point: { term: 1, point: 2 }, cutAtMs: 1, folder, guests: [{ name: 'web', folder, qmpPath, logPath: join(folder, 'console.log'), pid: hasPid ? pid : null }],
      holdReason: 'test failover of web (1234)', holdId: hasNotedHold ? holdId : null, network: 'none', startedAtMs: 1, endsAtMs: Date.now() + endsInMs, budgetBytes: 64 << 20, disks: [0],
    });
    const tests = new TestFailovers(rig.options);
    await tests.open([rig.store]);
    await waitFor(() => tests.ended().length > 0, { limitMs: 20_000, what: `the test to be cleaned up: ${when}` });
    t.match(tests.ended(), [{ why }], when);
    t.notOk(isGuestRunning(pid, qmpPath), 'its QEMU has ended');
    t.strictSame(await leftOf(rig), ['somebody else’s'], 'only what was not its own is left');
    await tests.close();
  }
});

t.test('a test that runs is taken up, and goes on beside the next process', { timeout: 60_000 }, async (t) => {
  const rig = await failoverRig(t, [{ disk: 0, name: 'vda', sizeBytes: 1 << 20 }]);
  const folder = join(rig.folder, 'overlays', 'a-test');
  const qmpPath = join(folder, 'qmp.sock');
  await mkdir(folder);
  await mkdir(join(rig.folder, 'tests'));
  const pid = await startEmptyQemu(t, qmpPath);
  await replaceJson(join(rig.folder, 'tests', `${groupId}.json`), {
    groupId, group: 'web', point: { term: 1, point: 2 }, cutAtMs: 1, folder, guests: [{ name: 'web', folder, qmpPath, logPath: join(folder, 'console.log'), pid }],
    holdReason: 'test failover of web (1234)', holdId: null, network: 'none', startedAtMs: 1, endsAtMs: Date.now() + 60_000, budgetBytes: 64 << 20, disks: [0],
  });
  for (let life = 0; life < 2; life++) {
    const tests = new TestFailovers(rig.options);
    await tests.open([rig.store]);
    t.match(tests.report(), [{ group: 'web', pid, isRunning: true }]);
    await t.rejects(tests.start(rig.store, { group: 'web' }), { code: 'FAILOVER_STATE' });
    await tests.close();
    t.ok(isGuestRunning(pid, qmpPath));
    if (life === 0) continue;
    await tests.stop(rig.store);
    t.notOk(isGuestRunning(pid, qmpPath));
    t.strictSame(await leftOf(rig), []);
  }
});

t.test('a failover that died before its term was raised is forgotten, with its hold and whatever ran', { timeout: 60_000 }, async (t) => {
  const rig = await failoverRig(t, [{ disk: 0, name: 'vda', sizeBytes: 1 << 20 }]);
  const folder = join(rig.folder, 'overlays', 'a-2');
  const notes = join(rig.folder, 'failovers');
  const qmpPath = join(folder, 'qmp.sock');
  await mkdir(folder);
  await mkdir(notes);
  const pid = await startEmptyQemu(t, qmpPath);
  await rig.points.hold(point, 'failover of web (1234)', null);
  await replaceJson(join(notes, `${groupId}.json`), {
    groupId, group: 'web', term: 2, point: { term: 1, point: 2 }, folder, guests: [{ name: 'web', folder, qmpPath, logPath: join(folder, 'console.log'), pid: null }], startedAtMs: 1,
    view: { holdReason: 'failover of web (1234)', holdId: null, isHome: false, disks: [] },
  });
  const tests = new TestFailovers(rig.options);
  const failovers = new Failovers({ ...rig.options, host: await nodeFailoverHost({ folder: notes, overlayFolder: rig.options.failover.overlayFolder, viewSocketPath: rig.options.viewSocketPath, log: rig.options.log }), tests, claims: null, stores: () => [], orders: new SourceOrders(rig.options.clock), adoption: new Adoption({ localSource: null, pairing: { name: 'bravo', fingerprint: () => '', points: null, token: () => Promise.reject(new Error('not asked for')) }, clock: rig.options.clock, log: rig.options.log }), retire: () => Promise.resolve() });
  await failovers.open([rig.store], () => rig.store);
  t.strictSame(failovers.report(), []);
  t.notOk(isGuestRunning(pid, qmpPath));
  t.notOk(existsSync(folder));
  t.strictSame(rig.points.holds(), []);
  t.strictSame(await readdir(notes), []);
  await failovers.close();
});
