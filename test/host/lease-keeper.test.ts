/** Leases at a real etcd: kept, lost and held again, and what becomes of what was to stand still without one. */
import t from 'tap';
import { LeaseKeeper, type LeasedGroup } from '../../host/lease-keeper.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { etcdWitness } from '../../host/node/etcd-witness.ts';
import { startEtcd, type Etcd } from '../support/etcd.ts';
import { waitFor } from '../support/wait.ts';

const groupId = 'cd'.repeat(16);
const log = { warn: () => undefined, info: () => undefined };
const soon = { limitMs: 30_000 };

async function witnessAt({ endpoint }: Etcd) {
  return etcdWitness({ endpoints: [endpoint], prefix: '/keeper/', answerMsMax: 300 });
}

void t.test('a guest stands still before its lease ends, and goes on when it is held again', { timeout: 120_000 }, async (t) => {
  const etcd = await startEtcd(t);
  const ttlMs = 3000;
  const told: string[] = [];
  const guard: NonNullable<LeasedGroup['guard']> = { stop: () => { told.push('stop'); return Promise.resolve('stopped'); }, goOn: () => { told.push('go on'); return Promise.resolve(); }, heldUntilMs: () => Promise.resolve(null), noteHeld: () => Promise.resolve() };
  let term: number | null = 4;
  const keeper = new LeaseKeeper({ witness: await witnessAt(etcd), holder: 's1', by: 'alpha', ttlMs, clock: nodeClock, log });
  const other = await witnessAt(etcd);
  t.teardown(() => other.close());
  await keeper.add({ groupId, name: 'web', term: () => term, guard });
  keeper.start();
  t.teardown(() => keeper.close());
  const state = (): string | undefined => keeper.report(groupId)?.state;
  await waitFor(() => state() === 'held', { ...soon, what: 'the lease' });
  t.match(await other.look(groupId), { record: { term: 4, by: 'alpha' }, holders: [{ holder: 's1', term: 4 }] });

  etcd.freeze();
  await waitFor(() => told.at(-1) === 'stop', { ...soon, what: 'the guest to be stopped' });
  t.match(keeper.report(groupId), { state: 'lost', isStopped: true });
  const stops = told.length;
  await waitFor(() => told.length > stops, { ...soon, what: 'it to be stopped again, whoever started it' });
  etcd.thaw();
  await waitFor(() => state() === 'held', { ...soon, what: 'the lease to be held again' });
  await waitFor(() => told.at(-1) === 'go on', { ...soon, what: 'the guest to go on' });

  // Somebody claims a higher term: the guest is live elsewhere, and the old lease keeps nobody waiting.
  t.ok(await other.put(groupId, { term: 5, byId: 'b', by: 'bravo' }, await other.look(groupId), false));
  await waitFor(() => state() === 'superseded' && told.at(-1) === 'stop', { ...soon, what: 'the guest to be stopped for good' });
  await waitFor(async () => (await other.look(groupId)).holders.length === 0, { ...soon, what: 'the old lease to be let go of, as nothing runs by it' });
  // It comes home in a term of its own.
  term = 6;
  await waitFor(() => state() === 'held' && told.at(-1) === 'go on', { ...soon, what: 'the guest to be held in its new term' });
  t.match(await other.look(groupId), { record: { term: 6, by: 'alpha' }, holders: [{ term: 6 }] });
  term = null;
  await waitFor(() => state() === 'none', { ...soon, what: 'it to run here no more' });
  await waitFor(async () => (await other.look(groupId)).holders.length === 0, { ...soon, what: 'it to be let go of' });
});

void t.test('a keeper that ends leaves its leases to time', { timeout: 60_000 }, async (t) => {
  const etcd = await startEtcd(t);
  const keeper = new LeaseKeeper({ witness: await witnessAt(etcd), holder: 's1', by: 'alpha', ttlMs: 3000, clock: nodeClock, log });
  const other = await witnessAt(etcd);
  t.teardown(() => other.close());
  keeper.start();
  await keeper.add({ groupId, name: 'web', term: () => 1 });
  await waitFor(() => keeper.report(groupId)?.state === 'held', { ...soon, what: 'the lease' });
  await keeper.close();
  t.equal((await other.look(groupId)).holders.length, 1, 'held still');
  await waitFor(async () => (await other.look(groupId)).holders.length === 0, { ...soon, what: 'it to end' });
});
