/** A domain of one libvirt is lost, and the other host's libvirt defines and starts it from its replica; taken back, nothing of it is left there. */
import { join } from 'node:path';
import { readFile } from 'node:fs/promises';
import t from 'tap';
import { isLong } from '../support/extent.ts';
import { startPair } from '../support/daemons.ts';
import { createLabDisk } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';
import { startLibvirt } from './support/private-libvirt.ts';

void t.test('a domain fails over from libvirt to libvirt', { timeout: 280_000, skip: isLong ? false : 'with --long' }, async (t) => {
  const [here, there] = await Promise.all([startLibvirt(t), startLibvirt(t)]);
  const disk = await createLabDisk(join(here.folder, 'a.raw'), 'raw', 48 * 1024 ** 2);
  await here.define({ name: 'web1', disks: [{ path: disk, format: 'raw' }], append: 'af.mode=raw af.churn=300', ownMonitor: join(here.folder, 'web1.afterimage.qmp') });
  const pair = await startPair(t, { failover: `, by: libvirt, uri: '${there.uri}'` });
  await here.virsh('start', 'web1');
  await here.waitForLine('web1', /^AF READY/m, 90_000);
  await pair.protect('web1', here.place('web1'), 1000);
  await pair.newPoint('web1');
  await pair.newPoint('web1');

  const test = await pair.target.client.testFailover({ group: 'web1' });
  const trial = (await there.virsh('list', '--name')).trim();
  t.match(trial, /^web1-test-[0-9a-f]+$/, 'a test runs in the other libvirt under a name of its own');
  t.not((await there.virsh('domuuid', trial)).trim(), (await here.virsh('domuuid', 'web1')).trim(), 'and as another one');
  t.match(await there.virsh('domiflist', trial), /user/, 'on no network of the host’s');
  t.match(await there.virsh('domif-getlink', trial, '52:54:00:12:34:56'), /down/);
  await waitFor(async () => /^AF READY/m.test(await readFile(test.logPath, 'utf8').catch(() => '')), { limitMs: 90_000, what: 'the test’s guest to boot', everyMs: 100 });
  await pair.newPoint('web1');
  await pair.target.client.stopTest('web1');
  t.equal((await there.virsh('list', '--all', '--name')).trim(), '', 'nothing of it is left');
  t.same((await pair.target.client.report()).tests, []);

  await here.virsh('destroy', 'web1');

  const uuid = (await here.virsh('domuuid', 'web1')).trim();
  const failed = await pair.target.client.failover({ group: 'web1' });
  t.equal((await there.virsh('list', '--name')).trim(), 'web1', 'it runs in the other libvirt');
  t.equal((await there.virsh('domuuid', 'web1')).trim(), uuid, 'as the one that it was');
  t.equal((await there.virsh('domstate', 'web1')).trim(), 'running');
  t.match(await there.virsh('dumpxml', 'web1'), /overlays.*disk0\.qcow2/, 'from its replica');
  await waitFor(async () => /^AF READY/m.test(await readFile(failed.logPath, 'utf8').catch(() => '')), { limitMs: 90_000, what: 'the guest to boot there', everyMs: 100 });

  await pair.target.client.stopFailover('web1', true);
  t.equal((await there.virsh('list', '--all', '--name')).trim(), '', 'taken back, its definition goes as well');
  t.equal((await here.virsh('list', '--all', '--name')).trim(), 'web1', 'at home it is defined as before');
});
