/**
 * The applier stands still, many points are acknowledged meanwhile, the target is ended without applying them, the source
 * and the guest are destroyed: a failover applies what is sealed and boots the last acknowledged point.
 */
import { join } from 'node:path';
import { pino } from 'pino';
import t from 'tap';
import { nodeDisk } from '../../host/node/disk.ts';
import type { Disk, DiskFile } from '../../host/disk.ts';
import { startSource } from '../../daemon/source.ts';
import { startTarget } from '../../replica-target/target.ts';
import type { TargetOptions } from '../../replica-target/operations.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';

/** The real disk, but no history file is ever made while `isStalled`: the applier waits there, ingest does not. */
function stallableDisk(): { disk: Disk; stall: { isStalled: boolean } } {
  const stall = { isStalled: false };
  const disk: Disk = Object.assign(Object.create(nodeDisk) as Disk, {
    async open(path: string, mode: 'read' | 'readWrite' | 'create'): Promise<DiskFile> {
      if (path.includes('/history/') && mode === 'create' && stall.isStalled) throw Object.assign(new Error('stalled by the test'), { code: 'ENOSPC' });
      return nodeDisk.open(path, mode);
    },
  });
  return { disk, stall };
}

void t.test('the last acknowledged point boots although nothing of it was applied', { timeout: 240_000 }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'af-stall-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const path = await createLabDisk(join(folder, 'a.raw'), 'raw', 96 * 1024 ** 2);
  const log = pino({ level: 'silent' });
  const options: TargetOptions = {
    name: 'bravo', listen: { host: '127.0.0.1', port: 0 }, advertise: { host: '127.0.0.1', port: 0 }, dataFolder: join(folder, 'target'), keepFreeBytes: 0,
    nbd: { socketPath: join(folder, 'points.sock'), listen: null },
    failover: { accel: 'tcg', network: 'none', overlayFolder: join(folder, 'over') },
  };
  const { disk, stall } = stallableDisk();
  const target = await startTarget(options, { log, version: 'test', disk });
  const source = await startSource(
    { name: 'alpha', dataFolder: join(folder, 'source'), spool: { folder: join(folder, 'spool'), budgetBytes: 256 * 1024 ** 2, keepFreeBytes: 0 } },
    { log, version: 'test' },
  );
  const guest = await startLabGuest(t, { mode: 'counter', churn: 256, timeLimitMs: 200_000, disks: [{ path, format: 'raw', iothread: true }] });
  await guest.waitForLine(/^AF COUNTER 5 /, 60_000);
  await source.operations.pair((await target.operations.invite({})).token);
  await source.operations.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  await waitFor(() => target.report().groups[0]?.applied != null, { limitMs: 90_000, what: 'the first point to be applied' });

  stall.isStalled = true;
  const from = target.report().groups[0]!.newest!.point;
  await waitFor(() => target.report().groups[0]!.newest!.point >= from + 8, { limitMs: 60_000, what: 'eight more points' });
  const counters = guest.serial.filter((line) => line.text.startsWith('AF COUNTER ')).length;
  t.ok(counters > 0);
  await guest.kill();
  await source.close();
  const { newest, applied } = target.report().groups[0]!;
  t.ok(newest!.point - applied!.point >= 7, `${newest!.point - applied!.point} points acknowledged and not applied`);
  const seen = guest.serial.filter((line) => /^AF COUNTER \d/.test(line.text) && performance.timeOrigin + line.atMs <= newest!.cutAtMs - 200);
  const written = Number(seen.at(-1)?.text.split(' ')[2] ?? 0);
  t.ok(written > 0, `counter ${written} was durable well before the cut`);
  await target.close();

  const again = await startTarget(options, { log, version: 'test' });
  const failover = await again.operations.failover({ group: 'web1' });
  t.teardown(async () => {
    await again.operations.stopFailover('web1', false);
    await again.close();
  });
  t.equal(failover.point.point, newest!.point, 'the last acknowledged point was booted');
  const found = await watchFile(failover.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  t.ok(Number(found[1]) >= written, `counter ${found[1]} found, at least ${written}`);
  const checked = await watchFile(failover.logPath, /^AF FSCK \w+ (\w+)/m, 60_000);
  t.equal(checked[1], 'clean');
});
