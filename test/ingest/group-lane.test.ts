import t from 'tap';
import { setTimeout as sleep } from 'node:timers/promises';
import { Fault } from '../../journal/fault.ts';
import { creditBytes, runBytesMax } from '../../journal/limits.ts';
import { waitFor } from '../support/wait.ts';
import { announcement, groupId, sourceId, startIngest } from './loopback.ts';
import { RawSource, recordBytes } from './raw-source.ts';

const limit = { limitMs: 10_000, everyMs: 2 };
/** The lane asks a full store once a second whether it is well again. */
const released = { limitMs: 20_000, everyMs: 10 };

t.test('acks say what is durable, applied says what is applied, and the credit comes back', async (t) => {
  const loopback = await startIngest(t);
  const source = await RawSource.announced(loopback);
  const seal = Buffer.from(JSON.stringify({ base: null, kind: 'crash', cutAtMs: 1, records: 9, changedBytes: 8 * runBytesMax, disks: [{ disk: 0, sizeBytes: 16 * 1024 * 1024 }] }));
  source.ws.send(recordBytes('open'));
  for (let sequence = 1; sequence <= 7; sequence++) source.ws.send(recordBytes('data', { sequence, offset: (sequence - 1) * runBytesMax, payload: Buffer.alloc(runBytesMax, sequence) }));
  source.ws.send(recordBytes('seal', { sequence: 8, payload: seal }));
  t.match(await source.hear('credit'), { bytes: Number });
  t.same(await source.hear('ack'), { t: 'ack', group: groupId, term: 1, point: 1 });
  t.same(await source.hear('applied'), { t: 'applied', group: groupId, term: 1, point: 1 });
  t.equal(loopback.registry.stores.get(groupId)!.disks.get(0)![6 * runBytesMax], 7);
  const [report] = loopback.ingest.sources();
  t.match(report, { sourceId, name: 'raw', address: '127.0.0.1' });
  t.ok(report!.receivedBytes > 7 * runBytesMax);
});

t.test('a slow store: what is under way stays within the credit, and nothing is lost', async (t) => {
  const loopback = await startIngest(t);
  const session = await loopback.link().session(AbortSignal.timeout(10_000));
  await session.announce(announcement());
  const store = loopback.registry.find('web')!;
  let release: () => void = () => undefined;
  const isReleased = new Promise<void>((resolve) => { release = resolve; });
  store.gate = () => isReleased;
  let sentBytes = 0;
  let resolvedBytes = 0;
  const sends = [session.send({ bytes: recordBytes('open'), header: { groupId } as never })];
  for (let sequence = 1; sequence <= 48; sequence++) {
    const bytes = recordBytes('data', { sequence, offset: 0, payload: Buffer.alloc(runBytesMax, sequence) });
    sentBytes += bytes.length;
    sends.push(session.send({ bytes, header: { groupId } as never }).then(() => { resolvedBytes += bytes.length; }));
  }
  await waitFor(() => resolvedBytes > creditBytes - 2 * runBytesMax, { ...limit, what: 'the credit to be used up' });
  await waitFor(() => loopback.ingest.sources()[0]!.receivedBytes >= resolvedBytes, { ...limit, what: 'all of it to arrive' });
  t.ok(resolvedBytes <= creditBytes, `${resolvedBytes} of ${sentBytes} bytes left, not more than the credit`);
  t.ok(store.recordsUnderWay <= 16);
  release();
  await Promise.all(sends);
  await waitFor(() => store.log.length === 50, { ...limit, what: 'all records to be taken' });
  t.same(store.log.slice(1), ['open:0', ...Array.from({ length: 48 }, (_, i) => `data:${i + 1}`)]);
});

t.test('a full store: held, what follows is dropped with its credit, released, announced anew', async (t) => {
  const loopback = await startIngest(t);
  const source = await RawSource.announced(loopback);
  const store = loopback.registry.stores.get(groupId)!;
  source.ws.send(recordBytes('open'));
  source.ws.send(recordBytes('part', { sequence: 1 }));
  await source.hear('ack');
  store.failing = new Fault('STORE_FULL', 'no space');
  for (let sequence = 2; sequence < 50; sequence++) source.ws.send(recordBytes('data', { sequence, payload: Buffer.alloc(runBytesMax, 1) }));
  t.match(await source.hear('held'), { group: groupId, code: 'STORE_FULL' });
  let creditedBytes = 0;
  while (creditedBytes < 44 * runBytesMax) creditedBytes += (await source.hear('credit')).bytes;
  t.equal(loopback.ingest.refusals().STORE_FULL, 1, 'one failure, however many records follow it');
  source.say({ t: 'seedEnd', group: groupId });
  t.match(await source.hear('held'), { code: 'STORE_FULL' }, 'who asks is told again');
  store.failing = null;
  const message = await waitFor(() => source.heard.find(({ t: kind }) => kind === 'released'), { ...released, what: 'released' });
  t.same(message, { t: 'released', group: groupId });
  source.ws.send(recordBytes('data', { sequence: 2 }));
  source.say({ t: 'announce', ...announcement() });
  const { open } = await source.hear('group');
  t.match(open, { nextSequence: 2, parts: 1 }, 'it goes on behind the durable part');
  source.ws.send(recordBytes('part', { sequence: 2, payload: Buffer.from('{"part":2}') }));
  t.match(await source.hear('ack'), { part: 2 });
  t.same(store.log, ['cut', 'open:0', 'part:1', 'cut', 'part:2']);
});

t.test('a group of a higher term is refused with that term, others on the connection go on', async (t) => {
  const loopback = await startIngest(t);
  const source = await RawSource.announced(loopback);
  const store = loopback.registry.stores.get(groupId)!;
  store.term = 5;
  source.ws.send(recordBytes('open'));
  t.match(await source.hear('refused'), { group: groupId, code: 'TERM_OLD', term: 5 });
  source.say({ t: 'announce', ...announcement() });
  t.match(await source.hear('refused'), { group: groupId, code: 'TERM_OLD', term: 5 });
  source.say({ t: 'announce', ...announcement({ group: 'cc'.repeat(16), name: 'db' }) });
  t.match(await source.hear('group'), { group: 'cc'.repeat(16) });
  source.ws.send(recordBytes('open', { groupId: 'cc'.repeat(16) }));
  source.ws.send(recordBytes('part', { groupId: 'cc'.repeat(16), sequence: 1 }));
  t.match(await source.hear('ack'), { group: 'cc'.repeat(16) });
});

t.test('a failure that the store does not name stops its group and nothing else', async (t) => {
  const loopback = await startIngest(t);
  const source = await RawSource.announced(loopback);
  const store = loopback.registry.stores.get(groupId)!;
  store.gate = () => Promise.reject(new TypeError('a bug'));
  source.ws.send(recordBytes('open'));
  const { code, message } = await source.hear('refused');
  t.equal(code, 'INTERNAL');
  t.notMatch(message, /a bug/, 'its words stay in the log');
  t.notOk(source.isClosed);
});

t.test('an announcement in the middle of a delta cuts it back to its durable part', async (t) => {
  const loopback = await startIngest(t);
  const source = await RawSource.announced(loopback);
  source.ws.send(recordBytes('open'));
  source.ws.send(recordBytes('data', { sequence: 1 }));
  source.say({ t: 'announce', ...announcement() });
  t.equal((await source.hear('group')).open, null);
  source.ws.send(recordBytes('open', { deltaId: 2n }));
  source.ws.send(recordBytes('part', { deltaId: 2n, sequence: 1 }));
  t.match(await source.hear('ack'), { part: 1 });
});

t.test('a newer connection of a source ends the older, after what had arrived there is finished and cut', async (t) => {
  const loopback = await startIngest(t);
  const older = await RawSource.announced(loopback);
  const store = loopback.registry.stores.get(groupId)!;
  let release: () => void = () => undefined;
  const isReleased = new Promise<void>((resolve) => { release = resolve; });
  store.gate = () => isReleased;
  older.ws.send(recordBytes('open'));
  older.ws.send(recordBytes('part', { sequence: 1 }));
  older.ws.send(recordBytes('data', { sequence: 2 }));
  await waitFor(() => store.recordsUnderWay === 3, { ...limit, what: 'the records to be under way' });
  const newer = await RawSource.authenticated(loopback);
  await older.closed();
  newer.say({ t: 'announce', ...announcement() });
  const newest = await RawSource.authenticated(loopback);
  newest.say({ t: 'announce', ...announcement() });
  await newer.closed();
  await sleep(0);
  t.same(newest.heard, [], 'not answered while the older ones’ records are under way');
  release();
  t.match((await newest.hear('group')).open, { nextSequence: 2, parts: 1 }, 'the part that had arrived is durable, the rest is cut off');
  t.same(store.log.slice(0, 5), ['cut', 'open:0', 'part:1', 'data:2', 'cut']);
  await waitFor(() => loopback.ingest.sources().length === 1, { ...limit, what: 'the older ones to be gone' });
  t.equal(store.listenerCount, 1, 'nobody listens for those who are gone');
});

t.test('forgetting', async (t) => {
  const loopback = await startIngest(t);
  const source = await RawSource.announced(loopback);
  source.say({ t: 'forget', group: groupId });
  t.same(await source.hear('forgotten'), { t: 'forgotten', group: groupId });
  t.equal(loopback.registry.stores.size, 0);
  source.say({ t: 'forget', group: groupId });
  t.match(await source.hear('refused'), { code: 'GROUP_UNKNOWN', group: groupId });
  source.say({ t: 'announce', ...announcement() });
  await source.hear('group');
});

t.test('closing ends connections and waits for what has arrived', async (t) => {
  const loopback = await startIngest(t);
  const source = await RawSource.announced(loopback);
  const store = loopback.registry.stores.get(groupId)!;
  source.ws.send(recordBytes('open'));
  source.ws.send(recordBytes('part', { sequence: 1 }));
  await source.hear('ack');
  source.ws.send(recordBytes('data', { sequence: 2 }));
  await waitFor(() => store.log.includes('data:2'), { ...limit, what: 'the record' });
  await loopback.ingest.close();
  t.same(store.log.at(-1), 'cut');
  t.equal(store.open!.records.length, 2);
  await source.closed();
});
