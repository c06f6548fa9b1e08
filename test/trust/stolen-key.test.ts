import t from 'tap';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { fingerprintOf, makeCertificate, signRenewal, type OwnCertificate } from '../../journal/identity.ts';
import { formatPoint } from '../../journal/point.ts';
import { makeRecord } from '../../journal/record.ts';
import { encodePayload } from '../../journal/seal.ts';
import { sourceMessage, type SourceMessage } from '../../journal/wire.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { GroupRegistry } from '../../replica-target/store/store.ts';
import type { RawSource } from '../ingest/raw-source.ts';
import { ModelGuest, groupId, sourceId } from '../store/model-guest.ts';
import { appendAll } from '../store/store-rig.ts';
import { waitFor } from '../support/wait.ts';
import { answerTo, inTheHandsOf, limit, portOf, privateFolder, stolenFrom, trustSource, trustTarget } from './trust-rig.ts';

const MiB = 1024 * 1024;
const otherGroup = 'cc'.repeat(16);
const otherSource = 'dd'.repeat(16);
const otherDisk = [{ disk: 0, name: 'vda', sizeBytes: MiB }];
const otherAnnouncement = { group: otherGroup, name: 'ledger', term: 1, rpoMs: 1000, hardware: {}, disks: otherDisk };

/** Two groups with a past: one of the source whose key is stolen, one of another. */
async function fill(folder: string, guest: ModelGuest): Promise<void> {
  await mkdir(join(folder, 'groups'), { recursive: true, mode: 0o700 });
  const registry = await openRegistry({ disk: nodeDisk, clock: nodeClock, folder: join(folder, 'groups') });
  const store = await registry.announce(sourceId, guest.announcement());
  await store.seedBegin('00000000000000aa');
  await store.seedEnd();
  for (let point = 0; point < 8; point += 1) {
    guest.write(0, point * 64 * 1024, Buffer.alloc(128 * 1024, point + 1));
    await appendAll(store, guest.cut());
  }
  const other = await registry.announce(otherSource, otherAnnouncement);
  await other.seedBegin('00000000000000bb');
  await other.seedEnd();
  await appendAll(other, delta(otherGroup, 1, { base: null, point: 1, fill: 0x5a }));
  await registry.close();
}

function delta(group: string, term: number, { base, point, fill }: { base: { term: number; point: number } | null; point: number; fill: number }) {
  const head = (kind: 'open' | 'data' | 'seal', sequence: number, length = 0) => ({ kind, codec: 'none', groupId: group, deltaId: 0x77n, point, term, sequence, disk: 0, offset: 0, length } as const);
  return [
    makeRecord(head('open', 0), encodePayload({ base })), makeRecord(head('data', 1, 4096), Buffer.alloc(4096, fill)),
    makeRecord(head('seal', 2), encodePayload({ base, kind: 'crash', cutAtMs: 1_700_000_000_000, records: 3, changedBytes: 4096, disks: [{ disk: 0, sizeBytes: MiB }] })),
  ];
}

async function contentFaults(registry: GroupRegistry, guest: ModelGuest): Promise<string[]> {
  const faults: string[] = [];
  const points = registry.find(groupId)!.restorePoints;
  for (const { term, point } of (await points.list()).filter((one) => one.point <= 8)) {
    const view = await points.open({ term, point });
    const into = Buffer.alloc(4 * MiB);
    await view.read(0, 0, into);
    if (!into.equals(guest.at({ term, point })[0]!)) faults.push(`point ${formatPoint({ term, point })} is not what it was`);
    await view.release();
  }
  const other = registry.find(otherGroup)!.restorePoints;
  const view = await other.open({ term: 1, point: 1 });
  const into = Buffer.alloc(MiB);
  await view.read(0, 0, into);
  if (!into.equals(Buffer.concat([Buffer.alloc(4096, 0x5a), Buffer.alloc(MiB - 4096)]))) faults.push('the other source’s point is not what it was');
  await view.release();
  return faults;
}

t.test('a stolen source key tries everything and changes nothing in the past', async (t) => {
  const folder = await privateFolder(t);
  const guest = new ModelGuest([4 * MiB]);
  guest.term = 3;
  await fill(folder, guest);
  const target = await trustTarget(t, { retention: { all: { windowMs: 86_400_000, hourly: 0, daily: 0, weekly: 0, monthly: 0, budgetBytes: null }, groups: { scratch: { windowMs: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, budgetBytes: null } } } }, folder);
  const { operations } = target.running;
  const owner = async (id: string, name: string) => {
    const home = await privateFolder(t);
    await writeFile(join(home, 'source.json'), JSON.stringify({ sourceId: id }), { mode: 0o600 });
    const source = await trustSource(t, { name, folder: home });
    await source.targets.pair((await operations.invite({ name })).token);
    await source.targets.close();
    return source;
  };
  const [victim, other] = [await owner(sourceId, 'alpha'), await owner(otherSource, 'ledgers')];
  const key = await stolenFrom(victim);
  const otherKey = await stolenFrom(other);
  // Applying what was filled in goes on in the background, and is no change.
  await waitFor(() => operations.report().groups.every(({ newest, applied }) => newest?.point === applied?.point), { ...limit, what: 'all to be applied' });
  const past = async (): Promise<unknown> => ({
    points: await Promise.all([groupId, otherGroup].map(async (group) => (await operations.timeline(group)).points)),
    groups: operations.report().groups.map(({ groupId: id, name, sourceId: whose, state, term, seed, pointCount, oldest }) => ({ id, name, whose, state, term, seed, pointCount, oldest })),
    pairings: operations.pairings().sources.map(({ sourceId: id, name, certificates, revokedAtMs }) => ({ id, name, certificates, revokedAtMs })),
  });
  const before = await past();

  const open = (): Promise<RawSource> => inTheHandsOf(key, sourceId, portOf(target));
  let hand = await open();
  const own = guest.announcement();
  const nonces = { role: 'source', sourceNonce: '05'.repeat(32), targetNonce: '00'.repeat(32) } as const;
  const block = { disk: 0, offset: 0, length: 65_536, blockBytes: 65_536, hashes: Buffer.alloc(32).toString('base64') };
  const handover = { id: 'ab'.repeat(8), point: { term: 3, point: 8 }, stoppedAtMs: 1 };
  const tried = new Set<string>();
  /** `code`: how it is refused. `null`: nothing is said to it. Each is sent to a connection that has announced its own group, as a sound source does. */
  const attempts: readonly (readonly [what: string, message: SourceMessage, answer: string | null])[] = [
    ['the handshake once more, as another', { t: 'hello', versions: [1], sourceId: otherSource, sourceName: 'ledgers', nonce: '06'.repeat(32) }, 'WIRE_GARBAGE'],
    ['a proof once more', { t: 'auth' }, 'WIRE_GARBAGE'],
    ['another source’s group', { t: 'announce', ...otherAnnouncement }, 'GROUP_FOREIGN'],
    ['its name, for a group of its own', { t: 'announce', ...own, group: 'ee'.repeat(16), name: 'ledger' }, 'GROUP_FOREIGN'],
    ['a lower term', { t: 'announce', ...own, term: 2 }, 'TERM_OLD'],
    ['a term that leaves none for a failover', { t: 'announce', ...own, term: 0xffffffff }, 'WIRE_GARBAGE'],
    ['another name, for which less is kept', { t: 'announce', ...own, name: 'scratch' }, 'GROUP_RENAMED'],
    ['a first sync over its points', { t: 'seedBegin', group: groupId, deltaId: 'ff'.repeat(8) }, 'RECORD_MISPLACED'],
    ['a first sync over another’s points', { t: 'seedBegin', group: otherGroup, deltaId: 'ff'.repeat(8) }, 'GROUP_UNKNOWN'],
    ['the end of a first sync', { t: 'seedEnd', group: groupId }, 'RECORD_MISPLACED'],
    ['hashes of another’s disk', { t: 'compare', group: otherGroup, id: 1, ...block }, 'GROUP_UNKNOWN'],
    ['hashes beyond its own', { t: 'compare', group: groupId, id: 1, ...block, offset: 1 << 30 }, 'RECORD_MISPLACED'],
    ['to forget its group', { t: 'forget', group: groupId }, 'FORGET_REFUSED'],
    ['to forget another’s', { t: 'forget', group: otherGroup }, 'GROUP_FOREIGN'],
    ['an answer that nobody asked for', { t: 'yielded', group: groupId, ...handover }, 'recall'],
    ['an answer for another', { t: 'yielded', group: otherGroup, ...handover }, 'GROUP_FOREIGN'],
    ['that its guest runs', { t: 'kept', group: groupId, id: handover.id, code: 'X', message: 'x' }, null],
    ['that another’s does', { t: 'kept', group: otherGroup, id: handover.id, code: 'X', message: 'x' }, 'GROUP_FOREIGN'],
    ['that it let go', { t: 'relinquished', group: groupId, term: 4 }, null],
    ['that another let go', { t: 'relinquished', group: otherGroup, term: 4 }, 'GROUP_FOREIGN'],
    ['its group for somebody else', { t: 'handedOver', group: groupId, term: 4, sourceId: otherSource }, 'GROUP_FOREIGN'],
    ['another’s group for itself', { t: 'handedOver', group: otherGroup, term: 4, sourceId }, 'GROUP_FOREIGN'],
    ['another’s certificate for its own', { t: 'renew', ...signRenewal(otherKey, nonces) }, 'WIRE_GARBAGE'],
    ['an end of another’s certificate', { t: 'retire', fingerprint: fingerprintOf(otherKey.cert) }, null],
    ['an end of its only one', { t: 'retire', fingerprint: fingerprintOf(key.cert) }, null],
    ['that it knows a certificate which nobody announced', { t: 'renewalNoted', fingerprint: '12'.repeat(32) }, null],
  ];
  for (const [what, message, expected] of attempts) {
    if (hand.isClosed) hand = await open();
    t.match(await answerTo(hand, { t: 'announce', ...own }), { t: 'group', group: groupId }, 'its own group is its own');
    if (expected === null) hand.say(message);
    else {
      const answer = await answerTo(hand, message);
      t.match(answer, expected === 'recall' ? { t: 'recall' } : { t: 'refused', code: expected }, `${what}: ${JSON.stringify(answer)}`);
    }
    if (expected?.startsWith('WIRE_') === true || expected === 'RECORD_MISPLACED') await hand.closed();
    // A fence: everything before it was answered or passed over.
    else t.match(await answerTo(hand, { t: 'announce', ...own }), { t: 'group', term: 3 });
    t.same(await past(), before, `${what}: nothing has changed`);
    tried.add(message.t);
  }
  t.same([...tried].sort(), sourceMessage.options.map((option) => option.shape.t.value as string).sort(), 'every message that a source can say was tried');

  const records: readonly (readonly [what: string, bytes: Buffer, code: string])[] = [
    ['a record of another’s group', Buffer.concat(delta(otherGroup, 1, { base: { term: 1, point: 1 }, point: 2, fill: 1 }).map(({ bytes }) => bytes)), 'RECORD_MISPLACED'],
    ['a point in the place of an old one', Buffer.concat(delta(groupId, 3, { base: { term: 3, point: 3 }, point: 4, fill: 1 }).map(({ bytes }) => bytes)), 'DELTA_BASE'],
    ['a point on nothing', Buffer.concat(delta(groupId, 3, { base: null, point: 1, fill: 1 }).map(({ bytes }) => bytes)), 'DELTA_BASE'],
    ['a point of a lower term', Buffer.concat(delta(groupId, 2, { base: { term: 3, point: 8 }, point: 9, fill: 1 }).map(({ bytes }) => bytes)), 'TERM_OLD'],
    ['a point of a term that it did not announce', Buffer.concat(delta(groupId, 9, { base: { term: 3, point: 8 }, point: 1, fill: 1 }).map(({ bytes }) => bytes)), 'RECORD_MISPLACED'],
    ['a record of a first sync', makeRecord({ kind: 'data', codec: 'none', groupId, deltaId: 1n, point: 0, term: 3, sequence: 0, disk: 0, offset: 0, length: 4096 }, Buffer.alloc(4096, 9)).bytes, 'RECORD_MISPLACED'],
  ];
  for (const [what, bytes, code] of records) {
    if (hand.isClosed) hand = await open();
    await answerTo(hand, { t: 'announce', ...own });
    hand.heard.length = 0;
    hand.ws.send(bytes);
    t.match(await hand.hear('refused'), { code }, what);
    t.same(await past(), before, `${what}: nothing has changed`);
  }
  t.equal(await operatorsApi(key, portOf(target)), 426, 'and what an operator may ask is not asked here');
  hand.ws.terminate();
  await target.stop();
  const registry = await openRegistry({ disk: nodeDisk, clock: nodeClock, folder: join(folder, 'groups') });
  t.teardown(() => registry.close());
  t.same(await contentFaults(registry, guest), [], 'every point holds what it held, byte for byte');
});

function operatorsApi({ key, cert }: OwnCertificate, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path: '/points?group=ledger', key, cert, rejectUnauthorized: false, agent: false }, (response) => { response.resume(); resolve(response.statusCode ?? 0); }).on('error', reject).end();
  });
}

t.test('with a stolen key a thief may bring in a certificate of his own: what revoke ends is both', async (t) => {
  const target = await trustTarget(t);
  const source = await trustSource(t);
  await source.targets.pair((await target.running.operations.invite({})).token);
  await source.targets.close();
  const key = await stolenFrom(source);
  const mine = await makeCertificate('mine');
  const hand = await inTheHandsOf(key, source.sourceId, portOf(target));
  hand.say({ t: 'renew', ...signRenewal(mine, { role: 'source', sourceNonce: '05'.repeat(32), targetNonce: hand.targetNonce }) });
  await hand.hear('renewed');
  await target.running.operations.revoke('alpha');
  await hand.closed();
  for (const one of [key, mine]) await t.rejects(inTheHandsOf(one, source.sourceId, portOf(target)), /closed before challenge/);
  t.notMatch(await readFile(join(target.folder, 'pairings.json'), 'utf8'), /PRIVATE/);
});
