/**
 * Planned failover between two libvirts: the guest is shut down although its libvirt would end QEMU as soon as it is off, nothing is lost, the other libvirt has it then, and it comes
 * home to its own in the same way. What comes to nothing leaves guest and libvirt as they were.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { isLong } from '../support/extent.ts';
import { createLabDisk } from '../support/lab-guest.ts';
import { startSites, type Sites } from '../support/sites.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';
import { startLibvirt, type PrivateLibvirt } from './support/private-libvirt.ts';

const planned = { shutdownMs: 60_000, onLimit: 'give-up' } as const;
const options = { timeout: 290_000, skip: isLong ? false : 'with --long' };

interface Setup { readonly here: PrivateLibvirt; readonly there: PrivateLibvirt; readonly sites: Sites; readonly uuid: string }

async function protectedDomain(t: Test): Promise<Setup> {
  const [here, there] = await Promise.all([startLibvirt(t), startLibvirt(t)]);
  const disk = await createLabDisk(join(here.folder, 'a.raw'), 'raw', 48 * 1024 ** 2);
  await here.define({ name: 'web1', disks: [{ path: disk, format: 'raw' }], append: 'af.mode=counter af.churn=200 no_timer_check' });
  const sites = await startSites(t, null, { failoverOf: (name) => `, by: libvirt, uri: '${name === 'alpha' ? here.uri : there.uri}'` });
  await here.virsh('start', 'web1');
  await here.waitForLine('web1', /^AF COUNTER 20 /m, 90_000);
  await sites.alpha.source.client.protect({ name: 'web1', qmpPath: here.place('web1'), rpoMs: 1000 });
  await sites.alpha.newPoint('web1', 90_000);
  return { here, there, sites, uuid: (await here.virsh('domuuid', 'web1')).trim() };
}

const lastCount = async (path: string): Promise<number> => Number([...(await readFile(path, 'utf8')).matchAll(/^AF COUNTER (\d+) /gm)].at(-1)?.[1]);

void t.test('nothing is lost, there and back', options, async (t) => {
  const { here, there, sites: { alpha, bravo }, uuid } = await protectedDomain(t);
  const failed = await bravo.target.client.failover({ group: 'web1', planned });
  t.match(failed, { lostMs: 0, point: { kind: 'final' } });
  t.equal((await alpha.guest('web1')).phase, 'relinquished');
  await waitFor(async () => (await here.virsh('domstate', 'web1')).trim() === 'shut off', { limitMs: 30_000, what: 'its own libvirt to have let go of it' });
  t.equal((await there.virsh('domuuid', 'web1')).trim(), uuid);
  const [, found] = await watchFile(failed.logPath, /^AF COUNTER-FOUND (\d+)/m, 90_000);
  // The workload may be ended between the write and the word of it.
  t.ok([0, 1].includes(Number(found) - await lastCount(here.serialPath('web1'))), `the counter is what it was when the guest went down: ${found}`);
  const said = await readFile(here.serialPath('web1'), 'utf8');
  t.match(said, /^AF POWEROFF/m, 'it was shut down');
  t.notMatch(said.slice(said.indexOf('AF POWEROFF')), /AF READY/, 'and did not boot again there');

  await waitFor(async () => (await bravo.group('web1')).state === 'committed', { limitMs: 60_000, what: 'the failover to be committed' });
  await bravo.newPoint('web1', 90_000);
  t.match((await bravo.guest('web1')).qmpPath, /^libvirt:\/\//, 'it is followed as libvirt’s');
  await waitFor(async () => (await bravo.source.client.report()).relays[0]?.phase === 'protected', { limitMs: 90_000, what: 'points to be on their way home' });

  const back = await alpha.target.client.failover({ group: 'web1', planned });
  t.match(back, { lostMs: 0, point: { kind: 'final' } });
  t.equal((await here.virsh('domstate', 'web1')).trim(), 'running', 'it runs in its own libvirt');
  t.equal((await here.virsh('domuuid', 'web1')).trim(), uuid);
  t.match(await here.virsh('domblklist', 'web1'), new RegExp(join(here.folder, 'a.raw')), 'from its own disk');
  const [, again] = await watchFile(back.logPath, /^AF COUNTER-FOUND (\d+)/m, 90_000);
  t.ok(Number(again) > Number(found), `it counts on: ${found}, ${again}`);
  await waitFor(async () => (await alpha.guest('web1')).phase === 'protected', { limitMs: 90_000, what: 'protection as it was' });
  await waitFor(async () => (await there.virsh('list', '--all', '--name')).trim() === '', { limitMs: 30_000, what: 'its definition to go where it was' });
});

void t.test('what comes to nothing leaves it as it was', options, async (t) => {
  const { here, there, sites: { alpha, bravo }, uuid } = await protectedDomain(t);
  const other = await createLabDisk(join(there.folder, 'b.raw'), 'raw', 16 * 1024 ** 2);
  await there.define({ name: 'twin', disks: [{ path: other, format: 'raw' }], uuid });
  await there.virsh('start', 'twin');
  await t.rejects(bravo.target.client.failover({ group: 'web1', planned }), { code: 'FAILOVER_BOOT', message: /runs here already/ });
  await here.waitForLine('web1', /^AF POWEROFF[^]*^AF COUNTER-FOUND /m, 90_000);
  t.equal((await here.virsh('domstate', 'web1')).trim(), 'running', 'it runs again where it was');
  await waitFor(async () => /<on_poweroff>destroy</.test(await here.virsh('dumpxml', 'web1')), { limitMs: 30_000, what: 'libvirt to end it again when it is off' });
  await alpha.newPoint('web1', 90_000);
  t.equal((await there.virsh('domstate', 'twin')).trim(), 'running', 'and the other one was left alone');
});
