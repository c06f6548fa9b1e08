/** Requests that fail while data comes home: the guest is stopped, not told, and goes on with its job when the view can be read again. */
import { execFile } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { pino } from 'pino';
import t from 'tap';
import { isGuestRunning, stopGuest } from '../../qemu/boot.ts';
import { guestHardware, recordHardware } from '../../qemu/hardware.ts';
import { guestPlace, launchGuest, overlayPath } from '../../replica-target/failover/guest-launch.ts';
import { Homecoming } from '../../replica-target/failover/homecoming.ts';
import { isBacked, makeOverlay } from '../../replica-target/failover/overlays.ts';
import { makeFilledDisk } from '../support/filled-disk.ts';
import { withQmp } from '../support/guest-look.ts';
import { startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';
import { failoverRig, serveRaw } from './failover-rig.ts';

const run = promisify(execFile);
const sizeBytes = 128 << 20;

void t.test('a view that cannot be read for a while stops guest and job, and both go on', { timeout: 120_000 }, async (t) => {
  const folder = t.testdir({});
  const raw = join(folder, 'disk.raw');
  await run('qemu-img', ['convert', '-O', 'raw', await makeFilledDisk(folder, { sizeMiB: 128, filledMiB: 48 }), raw]);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 256, disks: [{ path: raw, format: 'raw', iothread: true }], timeLimitMs: 60_000 });
  await guest.waitForLine(/^AF COUNTER 5 /, 60_000);
  const hardware = guestHardware.parse(JSON.parse(JSON.stringify(await withQmp(guest.ownQmpPath, recordHardware))));
  await guest.kill();

  const rig = await failoverRig(t, []);
  const socketPath = rig.options.viewSocketPath;
  const failing = join(rig.folder, 'failing');
  const server = await serveRaw(t, socketPath, raw, failing);

  const place = guestPlace(join(rig.folder, 'guest'));
  await mkdir(place.folder);
  const backing = { socketPath, exportName: 'web/vda@1.2' };
  const path = overlayPath(place.folder, 0);
  await makeOverlay(path, { kind: 'view', backing, sizeBytes });
  t.ok(await isBacked(path), 'the image says what it reads from');
  const pid = await launchGuest({
    group: 'web', place, hardware, network: 'none', accel: 'tcg', log: rig.options.log, disks: [{ disk: 0, name: hardware.disks[0]!.name, path, format: 'qcow2', backing }],
  });
  t.teardown(() => stopGuest(pid, place.qmpPath, { timeoutMs: 1000 }));
  await writeFile(failing, '');
  await waitFor(() => withQmp(place.qmpPath, async (qmp) => (await qmp.execute<{ status: string }>('query-status')).status === 'io-error'), { limitMs: 60_000, what: 'a request to fail' });

  let homeCount = 0;
  const homecoming = new Homecoming({
    group: 'web', folder: place.folder, sizes: new Map([[0, sizeBytes]]), isRunning: () => isGuestRunning(pid, place.qmpPath), log: pino({ level: 'silent' }),
    onHome: async () => { homeCount += 1; },
  });
  t.teardown(() => homecoming.stop());
  const job = (): Promise<boolean> => withQmp(place.qmpPath, async (qmp) => (await qmp.execute<{ 'io-status': string }[]>('query-block-jobs')).some((one) => one['io-status'] === 'failed'));
  await waitFor(job, { limitMs: 30_000, what: 'the job to be stopped' });
  t.equal(homecoming.report().state, 'waiting');
  await rm(failing);
  await waitFor(() => homecoming.report().state === 'home', { limitMs: 60_000, what: 'all to be home' });
  t.equal(homeCount, 1);
  t.notOk(await isBacked(path), 'the image stands alone');
  server.kill('SIGKILL');
  await watchFile(place.logPath, /^AF FSCK vda clean$/m, 60_000);
  await watchFile(place.logPath, /^AF COUNTER \d+ /m, 60_000);
  t.notMatch(await readFile(place.logPath, 'utf8'), /FAILED|I\/O error/, 'the guest saw no error');
  t.equal(await withQmp(place.qmpPath, async (qmp) => (await qmp.execute<{ status: string }>('query-status')).status), 'running');
});
