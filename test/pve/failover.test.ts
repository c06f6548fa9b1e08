/**
 * Failover to Proxmox VE, without Proxmox VE: a stand-in for `qm` starts a real QEMU from the config that the target wrote (support/qm.mjs says how near it is). The guest that Proxmox
 * VE's host has lost runs again there from its replica, is followed, and goes without a trace; a number that is taken is refused.
 */
import { mkdir, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { isLong } from '../support/extent.ts';
import { createLabDisk } from '../support/lab-guest.ts';
import { startSites } from '../support/sites.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';
import { startEventDaemon } from './support/event-daemon.ts';
import { makePveHost, type PveHost } from './support/pve-host.ts';

const vmid = 103;

/** Of a guest with one disk, with much that cannot come along. */
const config = (root: string): string => `#the shop's database
args: -qmp unix:${root}/var/run/qemu-server/${vmid}.afterimage.qmp,server=on,wait=off -set chardev.serial0.logfile=${root}/serial.log
boot: order=virtio0;ide2;net0
cores: 1
cpu: qemu64
hookscript: local:snippets/x.pl
ide2: none,media=cdrom
kvm: 0
memory: 192
name: shop-db
net0: virtio=BC:24:11:96:18:29,link_down=1
onboot: 1
serial0: socket
smbios1: uuid=0f2e2a5d-6c59-4f5c-9a30-2b6d2a7b6f11
virtio0: afterimage:${vmid}/vm-${vmid}-disk-0.raw,discard=on,size=48M

[before-upgrade]
memory: 128
virtio0: afterimage:${vmid}/vm-${vmid}-disk-0.raw,size=48M
`;

async function startShop(host: PveHost): Promise<void> {
  const folder = join(host.imageFolder, String(vmid));
  await mkdir(folder);
  await createLabDisk(join(folder, `vm-${vmid}-disk-0.raw`), 'raw', 48 * 1024 ** 2);
  await host.writeConfig(vmid, config(host.root));
  await host.qm('start', String(vmid));
}

const lastCount = async (path: string): Promise<number> => Number([...(await readFile(path, 'utf8')).matchAll(/^AF COUNTER (\d+) /gm)].at(-1)?.[1]);

void t.test('a guest of Proxmox VE is lost, and Proxmox VE starts it at the other host', { timeout: 280_000, skip: isLong ? false : 'with --long' }, async (t: Test) => {
  const [home, away] = await Promise.all([makePveHost(t, 'af.mode=counter af.churn=300'), makePveHost(t, 'af.mode=counter af.churn=300')]);
  await startShop(home);
  await watchFile(join(home.root, 'serial.log'), /^AF COUNTER 5 /m, 90_000);
  const { alpha, bravo } = await startSites(t, null, { failoverOf: (name) => { const host = name === 'alpha' ? home : away; return `, by: pve, pve: { storage: afterimage, root: ${host.root}, qm: ${JSON.stringify(host.command)} }`; } });
  await alpha.source.client.protect({ name: 'shop', qmpPath: `pve://${vmid}?root=${encodeURIComponent(home.root)}`, rpoMs: 1000 });
  await alpha.newPoint('shop');
  const older = (await alpha.newPoint('shop')).newestPoint!;
  await alpha.newPoint('shop');

  const plan = (await bravo.target.client.plan({ group: 'shop' })).steps.map(({ step }) => step).join('\n');
  t.match(plan, /shop is defined and started as Proxmox VE’s guest 103/);
  for (const said of [/onboot/, /hookscript/, /args/, /before-upgrade/]) t.match(plan, said, 'what does not come along is said');
  t.match((await bravo.target.client.checkStart({ group: 'shop' })).findings.filter(({ check }) => check === 'manager'), [{ verdict: 'warning' }]);

  await t.test('its number is another guest’s', async (t) => {
    await away.writeConfig(vmid, 'name: mail\nmemory: 512\n');
    t.match((await bravo.target.client.checkStart({ group: 'shop' })).findings.filter(({ check }) => check === 'manager'), [{ verdict: 'refused', found: /103 is mail here/ }]);
    await t.rejects(bravo.target.client.failover({ group: 'shop' }), { code: 'FAILOVER_BOOT', message: /103 is mail here .*vmid: NUMBER/ });
    t.equal(await away.readConfig(vmid), 'name: mail\nmemory: 512\n', 'which is left alone');
    await bravo.target.client.stopFailover('shop', true);
    t.equal(await away.readConfig(vmid), 'name: mail\nmemory: 512\n', 'also when what was tried is taken back');
    await rm(join(away.configFolder, `${vmid}.conf`));
  });

  await home.qm('stop', String(vmid));
  const last = await lastCount(join(home.root, 'serial.log'));
  const failed = await bravo.target.client.failover({ group: 'shop' });
  t.match(await away.qm('status', String(vmid)), /running/);
  const written = (await away.readConfig(vmid))!;
  t.match(written, /^#the shop's database\n/);
  t.match(written, /^virtio0: afterimage:103\/vm-103-disk-0\.qcow2,discard=on,size=48M$/m);
  t.match(written, /^smbios1: uuid=0f2e2a5d-6c59-4f5c-9a30-2b6d2a7b6f11$/m, 'as the one that it was');
  t.match(written, /^net0: virtio=BC:24:11:96:18:29,link_down=1$/m);
  for (const gone of [/^freeze/m, /^onboot/m, /hookscript/, /103\.afterimage\.qmp/, /^\[/m]) t.notMatch(written, gone);
  t.match(await readlink(join(away.imageFolder, `${vmid}/vm-${vmid}-disk-0.qcow2`)), /overlays.*\/disk0\.qcow2$/, 'from its replica');
  const [, found] = await watchFile(failed.logPath, /^AF COUNTER-FOUND (\d+)/m, 90_000);
  t.ok(Number(found) > 0 && Number(found) <= last, `it goes on where the point was: ${found} of ${last}`);
  await watchFile(failed.logPath, /^AF FSCK vda clean/m, 60_000);
  t.match((await bravo.guest('shop')).qmpPath, /^pve:\/\/103/, 'what it writes there is followed');

  await bravo.target.client.stopFailover('shop', true);
  t.equal(await away.readConfig(vmid), null, 'taken back, its config goes as well');
  t.same(await readdir(away.imageFolder), [], 'and what led to its images');
  t.match(await away.qm('status', String(vmid)), /stopped/);

  await t.test('an older point, whose data comes home behind the guest', async (t) => {
    const second = await bravo.target.client.failover({ group: 'shop', at: `${older.term}.${older.point}` });
    t.match(await away.readConfig(vmid), /^virtio0: .*,rerror=stop,werror=stop$/m, 'what it reads may be away for a while');
    await watchFile(second.logPath, /^AF COUNTER-FOUND (\d+)/m, 90_000);
    await waitFor(async () => (await bravo.target.client.report()).failovers[0]?.home?.state === 'home', { limitMs: 90_000, what: 'its data to come home' });
    await bravo.target.client.commitFailover('shop');
    await waitFor(async () => (await bravo.group('shop')).state === 'committed', { limitMs: 60_000, what: 'the failover to be committed' });
    t.match(await away.qm('status', String(vmid)), /running/);
    t.not(await away.readConfig(vmid), null);
    await bravo.newPoint('shop', 90_000);
    t.equal((await bravo.guest('shop')).phase, 'protected', 'what it writes is protected from there on');
  });
});

void t.test('a planned failover, there and back', { timeout: 290_000, skip: isLong ? false : 'with --long' }, async (t: Test) => {
  const planned = { shutdownMs: 60_000, onLimit: 'give-up' } as const;
  const [home, away] = await Promise.all([makePveHost(t, 'af.mode=counter af.churn=200'), makePveHost(t, 'af.mode=counter af.churn=200')]);
  await away.writeConfig(vmid, 'name: mail\nmemory: 512\n');
  const daemon = await startEventDaemon(t, home.root, vmid);
  await startEventDaemon(t, away.root, 9103);
  await startShop(home);
  const serial = join(home.root, 'serial.log');
  await watchFile(serial, /^AF COUNTER 5 /m, 90_000);
  const { alpha, bravo } = await startSites(t, null, {
    failoverOf: (name) => { const host = name === 'alpha' ? home : away; return `, by: pve, pve: { root: ${host.root}, qm: ${JSON.stringify(host.command)} }`; },
    targetConfigOf: (name) => (name === 'bravo' ? 'groups: { shop: { guests: { shop: { vmid: 9103 } } } }\n' : ''),
  });
  await alpha.source.client.protect({ name: 'shop', qmpPath: `pve://${vmid}?root=${encodeURIComponent(home.root)}`, rpoMs: 1000 });
  await alpha.newPoint('shop');

  const there = await bravo.target.client.failover({ group: 'shop', planned });
  t.match(there, { lostMs: 0, point: { kind: 'final' } });
  t.match(await readFile(serial, 'utf8'), /^AF POWEROFF/m, 'it was shut down');
  t.match(await home.qm('status', String(vmid)), /stopped/);
  t.same([...daemon.held], [], 'nobody holds it any more');
  t.match(await away.qm('status', '9103'), /running/, 'under the number that was chosen for it');
  const [, found] = await watchFile(there.logPath, /^AF COUNTER-FOUND (\d+)/m, 90_000);
  t.ok([0, 1].includes(Number(found) - await lastCount(serial)), `the counter is what it was when the guest went down: ${found}`);

  await waitFor(async () => (await bravo.group('shop')).state === 'committed', { limitMs: 60_000, what: 'the failover to be committed' });
  await bravo.newPoint('shop', 90_000);
  t.match((await bravo.guest('shop')).qmpPath, /^pve:\/\/9103/, 'it is followed as Proxmox VE’s');
  await waitFor(async () => (await bravo.source.client.report()).relays[0]?.phase === 'protected', { limitMs: 90_000, what: 'points to be on their way home' });
  const back = await alpha.target.client.failover({ group: 'shop', planned });
  t.match(back, { lostMs: 0, point: { kind: 'final' } });
  t.match(await home.qm('status', String(vmid)), /running/, 'it is Proxmox VE’s at home, under its own number');
  const lent = (await home.readConfig(vmid))!;
  t.match(lent, /^hookscript: local:snippets\/x\.pl$/m, 'with its own config');
  t.match(lent, /^virtio0: afterimage:103\/vm-103-disk-0\.raw,discard=on,size=48M$/m, 'and on its own disk');
  const [, again] = await watchFile(back.logPath, /^AF COUNTER-FOUND (\d+)/m, 90_000);
  t.ok(Number(again) > Number(found), `it counts on: ${found}, ${again}`);
  await waitFor(async () => (await alpha.guest('shop')).phase === 'protected', { limitMs: 90_000, what: 'protection as it was' });
  await waitFor(async () => await away.readConfig(9103) === null, { limitMs: 30_000, what: 'its config to go where it was' });
  t.equal(await away.readConfig(vmid), 'name: mail\nmemory: 512\n');
});
