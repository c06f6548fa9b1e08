import t from 'tap';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeDisk } from '../../host/node/disk.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { PassSender, type PassSenderOptions } from '../../daemon/resync/pass-sender.ts';
import { sendDelta } from '../../daemon/stream/delta-sender.ts';
import { Encoder } from '../../daemon/stream/encoder.ts';
import type { TargetSession } from '../../daemon/stream/session.ts';
import { isFault } from '../../journal/fault.ts';
import { recordHeaderBytes } from '../../journal/limits.ts';
import type { GroupHolding } from '../../journal/wire.ts';
import { openRegistry } from '../../replica-target/store/registry.ts';
import type { GroupRegistry } from '../../replica-target/store/store.ts';
import { announcement, groupId, startIngestOver, type Loopback, type Teardown } from '../ingest/loopback.ts';
import { seededFractions } from '../support/seeded.ts';
import { cuttingProxy } from './cutting-proxy.ts';
import { randomDelta } from './test-deltas.ts';

const sizeBytes = 16 * 1024 * 1024;
const soon = (): AbortSignal => AbortSignal.timeout(60_000);
const encoder = new Encoder({ clock: nodeClock });
/** Pauses between attempts are not the point here. */
const hasty = { ...nodeClock, delay: (ms: number, signal?: AbortSignal) => nodeClock.delay(Math.min(ms, 20), signal) };

async function startStore(t: Teardown): Promise<Loopback<GroupRegistry>> {
  const folder = await mkdtemp(join(tmpdir(), 'af-wire-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const registry = await openRegistry({ disk: nodeDisk, clock: nodeClock, folder: join(folder, 'groups') });
  t.teardown(() => registry.close());
  return startIngestOver(t, registry);
}

/** Hands the model over as a mirror does: 1 MiB writes from the sink's own buffers, several at once, zeroes apart. */
async function pass(session: TargetSession, holding: GroupHolding, model: Buffer, manner: Pick<PassSenderOptions, 'kind' | 'isCompared'>, signal?: AbortSignal): Promise<PassSender> {
  const base = holding.newest ?? { term: 1, point: 0 };
  const seedDeltaId = nodeRandom.bytes(8).readBigUInt64LE();
  if (manner.kind === 'seed') await session.seedBegin(groupId, seedDeltaId.toString(16).padStart(16, '0'));
  const sender = new PassSender({ session, groupId, holding, base, next: { term: 1, point: base.point + 1 }, seedDeltaId, ...manner, encoder, random: nodeRandom });
  const step = 1024 * 1024;
  const writes: Promise<void>[] = [];
  for (let at = 0; at < model.length; at += step) {
    const bytes = model.subarray(at, at + step);
    if (bytes.equals(Buffer.alloc(step))) {
      writes.push(sender.zero(0, at, step));
    } else {
      const buffer = sender.buffers.take(step);
      bytes.copy(buffer, recordHeaderBytes);
      writes.push(sender.write(0, at, buffer, recordHeaderBytes));
    }
    if (writes.length % 4 === 0) await Promise.all(writes);
    signal?.throwIfAborted();
  }
  await Promise.all(writes);
  return sender;
}

async function replica(registry: GroupRegistry): Promise<Buffer> {
  const store = registry.find('web')!;
  await store.drain();
  return readFile(store.report().disks[0]!.replicaPath);
}

function randomModel(fraction: () => number): Buffer {
  const model = Buffer.alloc(sizeBytes);
  randomDelta(fraction, model);
  model.fill(0, 4 * 1024 * 1024, 6 * 1024 * 1024);
  return model;
}

t.test('first sync and deltas over a link that is cut at arbitrary bytes: the replica is the model', async (t) => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  t.comment(`SEED=${seed}`);
  const fraction = seededFractions(seed);
  const loopback = await startStore(t);
  const proxy = await cuttingProxy(t, loopback.ingest.address.port, fraction);
  const link = loopback.link({ port: proxy.port, clock: hasty });
  const model = randomModel(fraction);
  const pointCount = 6;
  let delta = randomDelta(fraction, model.subarray(0));
  for (let point = 0; point < pointCount;) {
    const session = await link.session(soon());
    try {
      const holding = await session.announce(announcement());
      if (holding.seed !== 'done') {
        await (await pass(session, holding, model, { kind: 'seed', isCompared: holding.seed === 'partial' })).finish();
        continue;
      }
      if (holding.newest?.point === point + 1) {
        point += 1;
        if (point < pointCount) delta = randomDelta(fraction, model);
        continue;
      }
      t.equal(holding.newest?.point ?? 0, point, 'what was acknowledged is there');
      await sendDelta(session, { groupId, random: nodeRandom, encoder, term: 1, base: holding.newest, next: { term: 1, point: point + 1 }, open: holding.open }, delta);
      point += 1;
      if (point < pointCount) delta = randomDelta(fraction, model);
    } catch (error) {
      if (!isFault(error)) throw error;
      await session.closed;
    }
  }
  t.ok(proxy.cuts() > 0);
  t.ok((await replica(loopback.registry)).equals(model));
});

t.test('a resync by hash, broken off after a part and gone on with after the guest changed back', async (t) => {
  const fraction = seededFractions(7);
  const loopback = await startStore(t);
  const link = loopback.link({ clock: hasty });
  let session = await link.session(soon());
  const model = randomModel(fraction);
  let holding = await session.announce(announcement());
  await (await pass(session, holding, model, { kind: 'seed', isCompared: false })).finish();
  await sendDelta(session, { groupId, random: nodeRandom, encoder, term: 1, base: null, next: { term: 1, point: 1 }, open: null }, randomDelta(fraction, model));

  // A few blocks differ; the pass sends them as a part.
  const before = Buffer.from(model);
  for (const at of [0, 70_000, 5_000_000, 16_700_000]) model.fill(0xaa, at, at + 512);
  holding = await session.announce(announcement());
  const first = await pass(session, holding, model, { kind: 'delta', isCompared: true });
  const part = await first.finish();
  t.equal(first.comparedBytes, sizeBytes - zeroBytes(model));
  t.ok(part.sentBytes < 6 * 65_536, `${part.sentBytes} bytes for four blocks`);
  t.match(part.open, { point: 2, parts: 1 });

  // The connection is lost before the seal, the guest takes some of it back, the pass is made anew over the part.
  session.close();
  session = await link.session(soon());
  before.copy(model, 5_000_000, 5_000_000, 5_000_512);
  before.copy(model, 0, 0, 512);
  holding = await session.announce(announcement());
  t.same(holding.open, part.open, 'the part is there still');
  const { open } = await (await pass(session, holding, model, { kind: 'delta', isCompared: true })).finish();
  t.match(open, { parts: 2 });
  await sendDelta(session, { groupId, random: nodeRandom, encoder, term: 1, base: { term: 1, point: 1 }, next: { term: 1, point: 2 }, open }, randomDelta(fraction, model));
  t.ok((await replica(loopback.registry)).equals(model));
});

function zeroBytes(model: Buffer): number {
  let bytes = 0;
  for (let at = 0; at < model.length; at += 1024 * 1024) if (model.subarray(at, at + 1024 * 1024).equals(Buffer.alloc(1024 * 1024))) bytes += 1024 * 1024;
  return bytes;
}
