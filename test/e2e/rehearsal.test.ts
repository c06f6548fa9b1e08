/**
 * Rehearsals of a group of two real guests: by schedule and by a person, passed, failed and cut short. The guests start in their order, each is asked whether it is ready, what they
 * showed is kept in a report, the point is marked as proven, and nothing of it is left running.
 */
import { existsSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { isGuestRunning } from '../../qemu/boot.ts';
import { startPair } from '../support/daemons.ts';
import { createLabDisk, startLabGuest } from '../support/lab-guest.ts';
import { waitFor } from '../support/wait.ts';

const pattern = 'AF COUNTER [0-9]+';

function configOf(folder: string, serial: string, within: string): string {
  return `groups:
  shop:
    rehearse: { every: 1h }
    guests:
      db: { order: 1, ready: { agent: true, serial: "${pattern}", command: [sh, "-c", "cat > ${join(folder, 'facts.json')}"], within: 2m } }
      web: { order: 2, delay: 100ms, ready: { serial: "${serial}", within: ${within} } }
`;
}

void t.test('rehearsed by schedule, by a person, and cut short', { timeout: 280_000 }, async (t) => {
  const folder = t.testdir({});
  const pair = await startPair(t, { targetConfig: configOf(folder, pattern, '2m') });
  const paths = await Promise.all(['db', 'web'].map((name) => createLabDisk(join(folder, `${name}.raw`), 'raw', 64 * 1024 ** 2)));
  const [db, web] = await Promise.all(paths.map((path, at) => startLabGuest(t, {
    mode: 'counter', churn: 0, append: 'af.pace=200', timeLimitMs: 270_000, disks: [{ path, format: 'raw' }], ...(at === 0 ? { hasAgent: true } : { extraArgs: ['-device', 'VGA'] }),
  })));
  await Promise.all([db!, web!].map((guest) => guest.waitForLine(/^AF COUNTER 3 /, 60_000)));
  const members = [{ name: 'db', qmpPath: db!.qmpPath }, { name: 'web', qmpPath: web!.qmpPath }];
  await pair.source.client.protect({ name: 'shop', qmpPath: members[0]!.qmpPath, members, rpoMs: 1000 });
  const { client } = pair.target;
  const last = async () => (await client.report()).rehearsals?.[0];

  await waitFor(async () => (await last()) !== undefined, { limitMs: 120_000, what: 'the first rehearsal, which is due with the first point' });
  const scheduled = (await last())!;
  t.match(scheduled, { group: 'shop', by: 'schedule', isPassed: true, why: '', guests: [{ name: 'db', state: 'ready' }, { name: 'web', state: 'ready' }] }, scheduled.why);
  t.same(scheduled.guests[0]!.checks.map(({ check, isReady }) => [check, isReady]), [['agent', true], ['serial', true], ['command', true]]);
  t.ok(scheduled.guests[0]!.readyMs! < scheduled.guests[1]!.readyMs!, 'one after the other');
  t.match(JSON.parse(readFileSync(join(folder, 'facts.json'), 'utf8')), { group: 'shop', guest: 'db', for: 'test', point: `${scheduled.point.term}.${scheduled.point.point}` }, 'a command is told what it is asked about');
  t.same((await client.report()).tests, [], 'nothing is left of it');
  t.same([...readFileSync(join(scheduled.folder, 'web.png')).subarray(1, 4).toString('latin1')], ['P', 'N', 'G'], 'the screen of the one that has one');
  t.match(scheduled.guests[0], { screen: null, screenWhy: 'the guest has no display' });
  t.match(readFileSync(join(scheduled.folder, 'db.log'), 'utf8'), new RegExp(pattern), 'the end of what it said');
  const page = readFileSync(join(scheduled.folder, 'report.html'), 'utf8');
  t.match(page, /passed[\s\S]*From which point[\s\S]*its agent answers[\s\S]*data:image\/png;base64/);
  const provenOf = async (): Promise<string[]> => (await client.timeline('shop')).points.filter(({ provenAtMs }) => provenAtMs !== undefined).map(({ term, point }) => `${term}.${point}`);
  t.same(await provenOf(), [`${scheduled.point.term}.${scheduled.point.point}`], 'its point is proven');

  const plan = await client.plan({ group: 'shop' });
  t.ok(plan.lostMs! > 0);
  t.match(plan, { isPlanned: false, obstacles: [], measured: { isPassed: true } });
  t.same(plan.steps.filter(({ tookMs }) => tookMs !== null).map(({ step }) => /^(QEMU|db|web)/.exec(step)?.[1]), ['QEMU', 'db', 'web'], 'with the times of the rehearsal');
  t.match(plan.steps.map(({ step }) => step).join(' '), /term is raised from 1 to 2.*db runs, and counts as ready when its agent answers and .*web runs when those before it are ready, 0\.1 s later/);
  t.match(await client.plan({ group: 'shop', isPlanned: true }), { lostMs: 0, isPlanned: true });
  t.equal((await pair.group('shop')).term, 1, 'and nothing was done');

  // What the guest does not say in time fails it.
  const config = await readFile(pair.target.configPath, 'utf8');
  const reconfigure = async (serial: string, within: string): Promise<void> => {
    await pair.target.kill();
    await writeFile(pair.target.configPath, config.replace(configOf(folder, pattern, '2m'), configOf(folder, serial, within)));
    await pair.target.start();
  };
  await reconfigure('never said', '1s');
  t.equal((await provenOf()).length, 1, 'the mark is durable');
  const failed = await client.rehearse({ group: 'shop' });
  t.match(failed, { isPassed: false, by: 'person', readyMs: null, why: /web was not ready in time \(its serial port says \/never said\/: it has not said so\)/ });
  t.equal((await provenOf()).length, 1);
  t.same((await client.report()).tests, []);

  // The target dies in the middle.
  await reconfigure('never said', '5m');
  const cut = t.rejects(client.rehearse({ group: 'shop' }));
  await waitFor(async () => (await client.report()).tests[0]?.guests.every(({ isRunning }) => isRunning) === true, { limitMs: 60_000, what: 'its guests to run' });
  const { guests } = (await client.report()).tests[0]!;
  await pair.target.kill();
  await cut;
  t.ok(guests.some(({ pid, qmpPath }) => isGuestRunning(pid!, qmpPath)));
  await pair.target.start();
  await waitFor(async () => (await client.report()).tests.length === 0, { limitMs: 30_000, what: 'what was left of it to go' });
  t.notOk(guests.some(({ pid, qmpPath }) => isGuestRunning(pid!, qmpPath)));
  t.match(await last(), { isPassed: false, why: 'the target was ended in the middle of it' });
  t.ok(existsSync(join((await last())!.folder, 'report.html')));
  await pair.newPoint('shop');
});
