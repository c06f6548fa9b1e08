/** Rate limits: which are in force when, what they let through, what goes before what. Time is the test's own, but for the last. */
import t from 'tap';
import { parseConfig } from '../../console/config/config.ts';
import { Outbox } from '../../daemon/stream/outbox.ts';
import { limitState, type RateLimit } from '../../daemon/stream/throttle-plan.ts';
import { Throttle } from '../../daemon/stream/throttle.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { makeRecord, type RecordView } from '../../journal/record.ts';
import { readRecord } from '../../journal/record.ts';
import { SimulatedClock } from '../crash/simulated-clock.ts';
import { announcement, startIngest } from '../ingest/loopback.ts';
import { recordBytes } from '../ingest/raw-source.ts';

const kib = 1024;
const mib = 1024 * kib;
const [web, mail] = ['aa'.repeat(16), 'bb'.repeat(16)];
const nameOf = (groupId: string): string => (groupId === web ? 'web' : 'mail');
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function record(groupId: string, bytes = 64 * kib): RecordView {
  return makeRecord({ kind: 'data', codec: 'none', groupId, deltaId: 1n, point: 1, term: 1, sequence: 1, disk: 0, offset: 0, length: bytes }, Buffer.alloc(bytes, 1));
}

/** What left, by name, in order. */
function outboxUnder(limits: readonly RateLimit[], clock: SimulatedClock): { readonly send: (what: string, groupId: string, isPass?: boolean, bytes?: number) => void; readonly left: string[]; readonly throttle: Throttle; readonly pass: (ms: number) => Promise<void> } {
  const throttle = new Throttle(limits, clock, nameOf);
  const outbox = new Outbox({ write: (_, onWritten) => onWritten() }, 1024 * mib, throttle.gate('bravo'));
  const left: string[] = [];
  return {
    throttle, left,
    send: (what, groupId, isPass = false, bytes = 64 * kib) => void outbox.send(record(groupId, bytes), undefined, undefined, isPass).then(() => left.push(what)),
    pass: async (ms) => {
      for (let at = 0; at < ms; at += 10) {
        clock.advance(10);
        await settled();
      }
    },
  };
}

t.test('hours and days, over midnight too', async (t) => {
  const at = (day: number, hour: number, minute = 0): number => new Date(2026, 10, day, hour, minute).getTime(); // 2026-11-23 is a Monday
  const office: RateLimit = { rateBytesPerSecond: mib, hours: { fromMinute: 480, toMinute: 1080 }, days: ['mon', 'tue', 'wed', 'thu', 'fri'] };
  t.strictSame(limitState(office, at(23, 7, 59)), { isInForce: false, untilMs: at(23, 8) });
  t.strictSame(limitState(office, at(23, 8)), { isInForce: true, untilMs: at(23, 18) });
  t.strictSame(limitState(office, at(27, 18)), { isInForce: false, untilMs: at(30, 8) }, 'over the weekend');
  const night: RateLimit = { rateBytesPerSecond: mib, hours: { fromMinute: 1320, toMinute: 360 }, days: ['fri'] };
  t.strictSame(limitState(night, at(28, 3)), { isInForce: true, untilMs: at(28, 6) }, 'began on Friday');
  t.strictSame(limitState(night, at(27, 3)), { isInForce: false, untilMs: at(27, 22) });
  t.strictSame(limitState({ rateBytesPerSecond: mib }, at(23, 0)), { isInForce: true, untilMs: null });
  t.strictSame(limitState({ rateBytesPerSecond: mib, days: ['sat', 'sun'] }, at(28, 12)), { isInForce: true, untilMs: at(30, 0) }, 'two days in one');
});

t.test('what leaves keeps to the rate, and the report says so', async (t) => {
  const clock = new SimulatedClock();
  const { send, left, throttle, pass } = outboxUnder([{ rateBytesPerSecond: mib }], clock);
  for (let i = 0; i < 100; i++) send('live', web);
  await settled();
  t.ok(left.length <= 2, 'a burst is a tenth of a second');
  await pass(3000);
  t.ok(left.length * 64 * kib > 2.7 * mib && left.length * 64 * kib < 3.4 * mib, `${left.length * 64} KiB in three seconds`);
  t.match(throttle.report(), [{ target: null, group: null, rateBytesPerSecond: mib, isInForce: true, untilMs: null, isHolding: true, passedBytes: left.length * (64 * kib + 80) }]);
  t.ok(throttle.report()[0]!.heldMs > 2500);
});

t.test('the live stream goes before a first sync, which is not starved', async (t) => {
  const { send, left, pass } = outboxUnder([{ rateBytesPerSecond: mib }], new SimulatedClock());
  for (let i = 0; i < 40; i++) send('seed', mail, true);
  for (let i = 0; i < 40; i++) send('live', web);
  await pass(2600);
  const [live, seed] = ['live', 'seed'].map((what) => left.slice(2).filter((one) => one === what).length) as [number, number];
  t.ok(live > 28 && seed >= 3 && seed <= 8, `${live} live, ${seed} of the first sync`);
});

t.test('a limit of one group holds that group alone, one of another target nothing', async (t) => {
  const { send, left, pass } = outboxUnder([{ group: 'mail', rateBytesPerSecond: mib }, { target: 'elsewhere', rateBytesPerSecond: mib }], new SimulatedClock());
  for (let i = 0; i < 20; i++) { send('mail', mail); send('web', web); }
  await settled();
  t.equal(left.filter((one) => one === 'web').length, 20);
  t.ok(left.filter((one) => one === 'mail').length <= 2);
  await pass(2000);
  t.equal(left.length, 40);
});

t.test('the end of its hours lets everything go', async (t) => {
  const clock = new SimulatedClock();
  const now = new Date(clock.nowMs());
  const minute = now.getHours() * 60 + now.getMinutes();
  const { send, left, throttle, pass } = outboxUnder([{ rateBytesPerSecond: mib, hours: { fromMinute: minute, toMinute: (minute + 1) % 1440 } }], clock);
  for (let i = 0; i < 600; i++) send('live', web);
  await pass(30_000 - 10_000);
  t.ok(left.length < 400, `${left.length} under the limit`);
  clock.advance(60_000);
  await pass(1100);
  t.equal(left.length, 600);
  t.match(throttle.report(), [{ isInForce: false, isHolding: false }]);
});

t.test('in the config: hours, days, rates, and what is wrong with them', async (t) => {
  const parse = (limits: string): unknown => (parseConfig('s.yaml', `role: source\nname: a\ndata: /d\nlimits: ${limits}\n`) as { options: { limits: unknown } }).options.limits;
  t.strictSame(parse('[{ target: bravo, from: "08:00", to: "18:30", days: [mon, fri], rate: 20MiB/s }]'), [
    { target: 'bravo', group: undefined, days: ['mon', 'fri'], rateBytesPerSecond: 20 * mib, hours: { fromMinute: 480, toMinute: 1110 } },
  ]);
  for (const wrong of ['[{ rate: 10KiB/s }]', '[{ from: "08:00", rate: 2MiB/s }]', '[{ from: "24:00", to: "01:00", rate: 2MiB/s }]', '[{ days: [monday], rate: 2MiB/s }]', '[{}]', '7']) t.throws(() => parse(wrong), { code: 'CONFIG_INVALID' }, wrong);
});

t.test('on a real connection: the live point is acknowledged long before the first sync is through', async (t) => {
  const loopback = await startIngest(t);
  const throttle = new Throttle([{ target: 'target', rateBytesPerSecond: mib }], nodeClock, nameOf);
  const session = await loopback.link({ gate: throttle.gate('target') }).session(AbortSignal.timeout(10_000));
  await session.announce(announcement());
  await session.announce(announcement({ group: mail, name: 'mail' }));
  await session.seedBegin(mail, '00000000000000aa');
  const view = (bytes: Buffer): RecordView => { const reading = readRecord(bytes); if (!reading.ok) throw new Error(reading.detail); return reading.record; };
  const order: string[] = [];
  const acked = new Promise<void>((resolve) => session.listen(web, { onAck: () => { order.push('ack'); resolve(); } }));
  const payload = Buffer.alloc(64 * kib, 1);
  const sends = Array.from({ length: 16 }, (_, at) => session.send(view(recordBytes('data', { groupId: mail, deltaId: 0xaan, point: 0, sequence: at, offset: at * 64 * kib, payload })), undefined, undefined, true).then(() => order.push('seed')));
  const seal = Buffer.from(JSON.stringify({ base: null, kind: 'crash', cutAtMs: 1, records: 3, changedBytes: 64 * kib, disks: [{ disk: 0, sizeBytes: 16 * mib }] }));
  sends.push(session.send(view(recordBytes('open'))).then(() => 0), session.send(view(recordBytes('data', { sequence: 1, payload }))).then(() => order.push('live')), session.send(view(recordBytes('seal', { sequence: 2, payload: seal }))).then(() => 0));
  await acked;
  const before = order.slice(0, order.indexOf('ack')).filter((what) => what === 'seed').length;
  t.ok(before <= 8, `${before} of 16 records of the first sync before the live point`);
  await Promise.all(sends);
  t.equal(order.filter((what) => what === 'seed').length, 16);
});
