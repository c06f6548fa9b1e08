/**
 * A real etcd as the witness between a real source and a real target: a guest whose host lives is not failed over; one whose host is lost fails over by itself, fenced first, once; and
 * a guest that may only run with a lease stands still without one.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { etcdWitness } from '../../host/node/etcd-witness.ts';
import { startPair } from '../support/daemons.ts';
import { startEtcd } from '../support/etcd.ts';
import { withQmp } from '../support/guest-look.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { startSites } from '../support/sites.ts';
import { waitFor } from '../support/wait.ts';
import { watchFile } from '../support/watch-file.ts';

void t.test('a host that is lost: refused while its lease lasts, then by itself', { timeout: 240_000 }, async (t) => {
  const { endpoint, freeze, thaw } = await startEtcd(t);
  const folder = t.testdir({});
  const witness = `witness: { etcd: { endpoints: ["${endpoint}"] }, ttl: 5s`;
  const hook = (name: string, rest = ''): string => `{ command: [sh, "-c", "cat > ${join(folder, name)}.json${rest}"] }`;
  const pair = await startPair(t, {
    sourceConfig: `${witness}, onLeaseLost: pause }`,
    targetConfig: `${witness} }
groups:
  web1:
    automatic: { after: 2s }
    networks: { failover: { default: none, "52:54:00:12:34:56": isolated } }
    hooks: { fence: ${hook('fence')}, beforeStart: ${hook('before')}, afterStart: ${hook('after')}, afterRollBack: ${hook('back')} }
`,
  });
  const path = await createLabDisk(join(folder, 'a.raw'), 'raw', 64 * 1024 ** 2);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 0, timeLimitMs: 230_000, disks: [{ path, format: 'raw' }], extraArgs: ['-netdev', 'user,id=n0,restrict=on', '-device', 'virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56', '-device', 'virtio-net-pci'] });
  await guest.waitForLine(/^AF COUNTER 5 /, 60_000);
  await pair.protect('web1', guest.qmpPath);
  await pair.newPoint('web1');
  const { client } = pair.target;
  const lease = async () => (await pair.guest('web1')).lease;
  const runs = (): Promise<boolean> => withQmp(guest.ownQmpPath, async (qmp) => (await qmp.execute<{ running: boolean }>('query-status')).running);
  await waitFor(async () => (await lease())?.state === 'held', { limitMs: 20_000, what: 'the lease' });
  await t.rejects(client.failover({ group: 'web1' }), { code: 'WITNESS_HELD' });
  t.match(await pair.group('web1'), { state: 'protected', term: 1 }, 'nothing came of it');
  t.notOk(existsSync(join(folder, 'fence.json')), 'and nobody was fenced');

  // The witness is lost to both: the guest stands still, as it was chosen, and nobody fails over.
  freeze();
  await waitFor(async () => !(await runs()), { limitMs: 30_000, what: 'the guest to be stopped' });
  t.match(await lease(), { state: 'lost', isStopped: true });
  await t.rejects(client.failover({ group: 'web1' }), { code: 'WITNESS_UNREACHABLE' });
  // Its daemon dies meanwhile, and the next one knows why the guest stands still.
  await pair.source.kill();
  await pair.source.start();
  thaw();
  await waitFor(runs, { limitMs: 30_000, what: 'the guest to go on' });
  await waitFor(async () => (await lease())?.state === 'held', { limitMs: 20_000, what: 'the lease' });
  await pair.newPoint('web1');
  await waitFor(async () => (await client.report()).automatic?.[0]?.why === 'alpha holds its lease', { limitMs: 20_000, what: 'the target to see the lease' });

  // The host is lost, with daemon and guest.
  await pair.source.kill();
  await guest.kill();
  await waitFor(async () => (await client.report()).failovers[0]?.isRunning === true, { limitMs: 60_000, what: 'the failover' });
  const [failover] = (await client.report()).failovers;
  t.match(failover, { group: 'web1', term: 2 });
  await watchFile(failover!.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  const facts = async (name: string): Promise<unknown> => JSON.parse((await watchFile(join(folder, `${name}.json`), /\n$/, 30_000)).input!) as unknown;
  t.match(await facts('fence'), { step: 'fence', for: 'failover', group: 'web1', term: 2, isPlanned: false });
  t.match(await facts('before'), { step: 'beforeStart', guests: [{ name: 'web1' }] });
  t.match(await facts('after'), { step: 'afterStart', guests: [{ name: 'web1', pid: failover!.guests[0]!.pid, qmp: failover!.qmpPath }] });
  t.match((await readFile(`/proc/${failover!.guests[0]!.pid}/cmdline`, 'utf8')).split('\0').join(' '), /-netdev user,id=net0,restrict=on -device virtio-net-pci,[^ ]*netdev=net0,[^ ]*mac=52:54:00:12:34:56[, ][^]*-device virtio-net-pci,(?![^ ]*netdev)/, 'the one NIC where its MAC says, the other without a cable');

  // Back from the dead: it is told by the witness and by the target, and its guest may not run.
  await pair.source.start();
  await waitFor(async () => (await lease())?.state === 'superseded', { limitMs: 30_000, what: 'the old source to see that it is superseded' });
  await client.stopFailover('web1', true);
  t.match(await facts('back'), { step: 'afterRollBack', group: 'web1' });
  await waitFor(async () => (await lease())?.state === 'held', { limitMs: 30_000, what: 'its source to hold the group again' });
});

void t.test('a fence that fails, and no way to the witness', { timeout: 120_000 }, async (t) => {
  const folder = t.testdir({});
  const pair = await startPair(t, {
    targetConfig: `witness: { etcd: { endpoints: ["http://127.0.0.1:1"] }, ttl: 3s }
groups: { web1: { hooks: { fence: { command: [sh, "-c", "test ! -e ${join(folder, 'stuck')} || { echo no answer from the power switch >&2; exit 3; }"] } } } }
`,
  });
  const path = await createLabDisk(join(folder, 'a.raw'), 'raw', 64 * 1024 ** 2);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 0, timeLimitMs: 110_000, disks: [{ path, format: 'raw' }] });
  await guest.waitForLine(/^AF COUNTER 5 /, 60_000);
  await pair.protect('web1', guest.qmpPath);
  await pair.newPoint('web1');
  const { client } = pair.target;
  await t.rejects(client.failover({ group: 'web1' }), { code: 'WITNESS_UNREACHABLE' });
  await createLabDisk(join(folder, 'stuck'), 'raw', 1024 ** 2);
  await t.rejects(client.failover({ group: 'web1', isWitnessed: false }), { code: 'HOOK_FAILED', message: /ended with 3: no answer from the power switch/ });
  t.match(await pair.group('web1'), { state: 'protected', term: 1 });
  t.same((await client.report()).failovers, []);
  await t.resolves(pair.newPoint('web1'), 'protection goes on');
});

void t.test('a planned failover and the way home: the lease goes with the guest', { timeout: 240_000 }, async (t) => {
  const etcd = await startEtcd(t);
  const witness = `witness: { etcd: { endpoints: ["${etcd.endpoint}"] }, ttl: 5s`;
  const { alpha, bravo } = await startSites(t, null, { sourceConfig: `${witness}, onLeaseLost: pause }\n`, targetConfig: `${witness} }\n` });
  const path = await createLabDisk(join(t.testdir({}), 'a.raw'), 'raw', 64 * 1024 ** 2);
  const guest = await startLabGuest(t, { mode: 'counter', churn: 0, timeLimitMs: 230_000, disks: [{ path, format: 'raw' }] });
  await guest.waitForLine(/^AF COUNTER 5 /, 60_000);
  await alpha.source.client.protect({ name: 'web1', qmpPath: guest.qmpPath, rpoMs: 1000 });
  const { groupId } = await alpha.newPoint('web1');
  const asked = await etcdWitness({ endpoints: [etcd.endpoint], prefix: '/afterimage/', answerMsMax: 5000 });
  t.teardown(() => asked.close());
  const held = async (term: number, by: string): Promise<void> => {
    await waitFor(async () => {
      const { record, holders } = await asked.look(groupId);
      return record?.term === term && holders.length > 0 && holders.every((one) => one.term === term && one.by === by);
    }, { limitMs: 60_000, what: `term ${term} to be held by ${by} alone` });
  };
  await held(1, 'alpha');
  const planned = { shutdownMs: 60_000, onLimit: 'give-up' } as const;
  const there = await bravo.target.client.failover({ group: 'web1', planned });
  t.match(there, { term: 2, lostMs: 0 });
  await held(2, 'bravo');
  await waitFor(async () => (await bravo.guest('web1')).phase === 'protected' && (await alpha.target.client.report()).groups.some(({ newest }) => newest !== null), { limitMs: 90_000, what: 'the way home' });
  await t.rejects(alpha.target.client.failover({ group: 'web1' }), { code: 'WITNESS_HELD' }, 'nor is it taken from there while it runs there');
  const back = await alpha.target.client.failover({ group: 'web1', planned });
  t.match(back, { term: 3, lostMs: 0 });
  await held(3, 'alpha');
  t.match((await alpha.guest('web1')).lease, { state: 'held', isStopped: false });
  await watchFile(back.logPath, /^AF COUNTER-FOUND (\d+)/m, 60_000);
  // Protected no more, it runs on, and is not taken for lost.
  await alpha.newPoint('web1');
  await alpha.source.client.unprotect('web1', false);
  t.match(await asked.look(groupId), { record: null, holders: [] });
  await alpha.source.kill();
  await t.rejects(bravo.target.client.failover({ group: 'web1' }), { code: 'WITNESS_BLANK' });
});
