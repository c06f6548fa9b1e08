/** QMP through libvirt: what it promises, against a real libvirtd and a real QEMU. */
import { join } from 'node:path';
import t from 'tap';
import { isFault } from '../../journal/fault.ts';
import { connectGuest } from '../../qemu/connect-guest.ts';
import { parseMonitorEvent } from '../../qemu/libvirt/virsh-events.ts';
import type { QmpEvent } from '../../qemu/qmp.ts';
import { createLabDisk } from '../support/lab-guest.ts';
import { startLibvirt } from './support/private-libvirt.ts';

t.test('an event’s line is read whatever the domain is called', async (t) => {
  t.same(parseMonitorEvent('event JOB_STATUS_CHANGE at 1795983517.362769 for domain \'it\'s: a \'name\'\': {"status":"created","id":"b1"}'), { event: 'JOB_STATUS_CHANGE', data: { status: 'created', id: 'b1' }, atMs: 1795983517362.769 });
  t.same(parseMonitorEvent('event STOP at 5.1 for domain \'web1\''), { event: 'STOP', data: {}, atMs: 5000.001 });
  t.equal(parseMonitorEvent('event STOP somewhere'), undefined);
  t.equal(parseMonitorEvent('event STOP at 5.1 for domain \'web1\': {"broken"'), undefined);
});

t.test('through libvirt', async (t) => {
  const libvirt = await startLibvirt(t);
  const disk = await createLabDisk(join(libvirt.folder, 'd0.raw'), 'raw', 16 * 1024 * 1024);
  await libvirt.define({ name: 'web1', disks: [{ path: disk, format: 'raw' }] });

  const none = await connectGuest(libvirt.place('web1')).catch((error: unknown) => error);
  t.ok(isFault(none, 'QMP_UNREACHABLE') && none.facts['error'] === 'ENOENT', 'a domain that does not run is not there');
  const unknown = await connectGuest(libvirt.place('web2')).catch((error: unknown) => error);
  t.ok(isFault(unknown, 'QMP_UNREACHABLE') && unknown.facts['error'] === 'ENOENT', 'nor is one that libvirt does not know');
  t.ok(isFault(await connectGuest(`libvirt://web1?uri=${encodeURIComponent(`${libvirt.uri}x`)}`).catch((error: unknown) => error), 'LIBVIRT_UNREACHABLE'), 'a libvirt that does not answer proves nothing');

  await libvirt.virsh('start', 'web1');
  const beganMs = performance.now();
  const { qmp, owner } = await connectGuest(libvirt.place('web1'));
  t.comment(`connected after ${Math.round(performance.now() - beganMs)} ms`);
  t.equal(owner.uid, process.getuid!());
  t.ok(qmp.version.major >= 7);

  const words = 'näïve "quoted" back\\slash\'';
  const refused = await qmp.execute('qom-get', { path: words, property: 'x' }).catch((error: unknown) => error);
  t.ok(isFault(refused, 'QMP_COMMAND') && String(refused.facts['description']).includes(words), 'what is asked arrives as it is');
  const long = 'x'.repeat(40_000);
  const grumbled = await qmp.execute('qom-get', { path: long, property: 'x' }).catch((error: unknown) => error);
  t.ok(isFault(grumbled, 'QMP_COMMAND') && String(grumbled.facts['description']).includes(long), 'and however long it is');

  const events: QmpEvent[] = [];
  const stop = qmp.onEvent((event) => events.push(event));
  const rounds = 30;
  const tookMs: number[] = [];
  for (let round = 1; round <= rounds; round += 1) {
    const from = performance.now();
    await qmp.execute('stop');
    t.equal(events.filter(({ event }) => event === 'STOP').length, round, 'an event that came before a reply is there before it');
    await qmp.execute('cont');
    tookMs.push((performance.now() - from) / 2);
    if (events.filter(({ event }) => event === 'RESUME').length !== round) t.fail('the guest goes on before the reply says so');
  }
  t.comment(`a command takes ${tookMs.sort((a, b) => a - b)[rounds / 2]!.toFixed(1)} ms (median of ${rounds * 2})`);
  const many = await Promise.all(Array.from({ length: 50 }, (_, at) => qmp.execute<string>('qom-get', { path: at % 2 === 0 ? '/machine' : '/machine/peripheral', property: 'type' })));
  t.ok(many.every((type, at) => (at % 2 === 0) === (type !== 'container')), 'answers belong to their questions');
  stop();
  t.same((await qmp.execute<{ id: string }[]>('query-jobs')).filter(({ id }) => id.startsWith('af-')).length <= 1, true, 'what keeps the order leaves nothing behind');

  await libvirt.restart();
  t.ok(isFault(await qmp.closed), 'a libvirt that was restarted has lost events');
  const again = (await connectGuest(libvirt.place('web1'))).qmp;
  const asked = again.execute('query-status');
  t.match(await asked, { running: true }, 'its domain runs on');
  await libvirt.virsh('destroy', 'web1');
  t.ok(isFault(await again.closed), 'a domain that ended ends it');
  t.ok(isFault(await again.execute('query-status').catch((error: unknown) => error), 'QMP_CLOSED'));

  await libvirt.define({ name: 'web1', disks: [{ path: disk, format: 'raw' }], ownMonitor: join(libvirt.folder, 'web1.afterimage.qmp'), uuid: await libvirt.virsh('domuuid', 'web1').then((uuid) => uuid.trim()) });
  await libvirt.virsh('start', 'web1');
  const own = await connectGuest(libvirt.place('web1'));
  t.match(await own.qmp.execute('query-status'), { running: true }, 'a domain with a monitor of ours is asked there');
  t.match(await connectGuest(libvirt.place('web1'), { connectTimeoutMs: 300 }).catch((error: unknown) => error), { code: 'QMP_UNREACHABLE' }, 'which serves one at a time');
  own.qmp.close();
});
