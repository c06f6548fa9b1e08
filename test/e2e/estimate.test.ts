/**
 * `afterimage estimate` at a real guest under load: its figures are those of the load, and nothing is left in its QEMU, whether it ends by
 * itself, is interrupted, or is killed and followed by another.
 */
import t from 'tap';
import { isLong } from '../support/extent.ts';
import { isEstimateBitmap } from '../../daemon/capture/object-names.ts';
import { queryNodes } from '../../daemon/capture/guest-objects.ts';
import type { Estimate } from '../../console/estimate/estimate-plan.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import { BuiltCommand, ended } from '../console/built-command.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';

const mib = 1024 ** 2;

t.test('estimate at a guest that writes', { skip: isLong ? false : 'with --long' }, async (t) => {
  const command = await BuiltCommand.build(t);
  const folder = t.testdir();
  const disks = [
    { path: await createLabDisk(`${folder}/a.qcow2`, 'qcow2', 64 * mib), format: 'qcow2' as const, iothread: true },
    { path: await createLabDisk(`${folder}/b.raw`, 'raw', 32 * mib), format: 'raw' as const, id: null },
  ];
  const guest = await startLabGuest(t, { disks, mode: 'raw', churn: 2048, memoryMiB: 128 });
  await guest.waitForLine(/^AF STAMP \d+/, 60_000);
  const own = await connectQmp(guest.ownQmpPath);
  t.teardown(() => own.close());
  const bitmaps = async (): Promise<string[]> => (await queryNodes(own)).bitmaps.map(({ name }) => name);
  await own.execute('block-dirty-bitmap-add', { node: 'node0', name: 'somebody-elses' });

  await t.test('by itself', async (t) => {
    const { code, stdout, stderr } = await command.run(['estimate', '--qmp', guest.qmpPath, '--for', '5s', '--rpo', '5s', '--link', '50MiB', '--json']);
    t.equal(code, 0, stderr);
    const estimate = JSON.parse(stdout) as Estimate;
    t.equal(estimate.sizeBytes, 96 * mib);
    t.same(estimate.windows.map(({ windowMs }) => windowMs), [1000, 5000]);
    const [second, all] = estimate.windows;
    t.ok(second!.cycles >= 2 && second!.maxBytes > 0 && all!.cycles === 1, stdout);
    t.ok(all!.maxBytes <= 96 * mib && all!.bytesPerSecond <= second!.bytesPerSecond * 1.2, 'a longer window holds each block once');
    t.ok(estimate.written !== null && estimate.written.bytesPerSecond > 0 && estimate.written.operationsPerSecond > 0, stdout);
    t.same(await bitmaps(), ['somebody-elses'], 'nothing of ours is left, and what is not ours is');
  });

  await t.test('interrupted: what was measured so far', async (t) => {
    const child = command.start(['estimate', '--qmp', guest.qmpPath, '--for', '1h']);
    const end = ended(child);
    await waitFor(async () => (await queryNodes(own)).bitmaps.some(({ name }) => isEstimateBitmap(name)), { limitMs: 60_000, what: 'its bitmaps' });
    // The next window of a second is over when its bitmap was cleared: it then holds less than one that was not.
    await waitFor(async () => {
      const of = (await queryNodes(own)).bitmaps.filter(({ name }) => isEstimateBitmap(name));
      const sum = (windowMs: number): number => of.filter(({ name }) => name.endsWith(`-${windowMs}`)).reduce((total, { count }) => total + count, 0);
      return sum(1000) < sum(300_000);
    }, { limitMs: 60_000, what: 'a window that is over' });
    child.kill('SIGINT');
    const { code, stdout, stderr } = await end;
    t.equal(code, 0, stderr);
    t.match(stdout, /^EVERY +SEEN/m);
    t.match(stdout, /^space +replica \d/m);
    t.same(await bitmaps(), ['somebody-elses']);
  });

  await t.test('killed: the next one takes out what is left', async (t) => {
    const child = command.start(['estimate', '--qmp', guest.qmpPath, '--for', '1h']);
    const end = ended(child);
    await waitFor(async () => (await bitmaps()).length > 1, { limitMs: 60_000, what: 'its bitmaps' });
    child.kill('SIGKILL');
    await end;
    t.ok((await bitmaps()).length > 1, 'a killed one leaves its bitmaps');
    const { code, stderr } = await command.run(['estimate', '--qmp', guest.qmpPath, '--for', '1s', '--json']);
    t.equal(code, 0, stderr);
    t.match(stderr, /8 dirty bitmaps of an earlier measurement/);
    t.same(await bitmaps(), ['somebody-elses']);
  });

  t.equal((await command.run(['estimate'])).code, 64, 'neither guest nor socket');
});
