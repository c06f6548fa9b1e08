import t from 'tap';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeRandom } from '../../host/node/random.ts';
import type { CapturedDelta, CapturedRun } from '../../daemon/capture/capture.ts';
import { PassSender } from '../../daemon/resync/pass-sender.ts';
import { sendDelta } from '../../daemon/stream/delta-sender.ts';
import { Encoder } from '../../daemon/stream/encoder.ts';
import { recordHeaderBytes } from '../../journal/limits.ts';
import { waitFor } from '../support/wait.ts';
import { announcement, groupId, startIngest } from '../ingest/loopback.ts';

const limit = (): AbortSignal => AbortSignal.timeout(20_000);
const encoder = new Encoder({ clock: nodeClock });
const common = { groupId, random: nodeRandom, encoder };

interface Piece { readonly offset: number; readonly length: number; readonly fill: number | null }

function deltaOf(pieces: readonly Piece[], isRound = false): CapturedDelta {
  return {
    isRound, kind: 'crash', cutAtMs: 1_700_000_000_000, cutMonotonicMs: 0, disks: [{ disk: 0, sizeBytes: 16 * 1024 * 1024 }],
    changedBytes: pieces.reduce((sum, { length }) => sum + length, 0),
    *runs(): Iterable<CapturedRun> {
      for (const { offset, length, fill } of pieces) {
        if (fill === null) yield { kind: 'zero', disk: 0, offset, length };
        else yield { kind: 'data', disk: 0, offset, length, read: (into, at) => { into.fill(fill, at, at + length); return Promise.resolve(); } };
      }
    },
    end: () => Promise.resolve(),
  };
}

t.test('a delta arrives, is acknowledged and applied', async (t) => {
  const { registry, link } = await startIngest(t);
  const session = await link().session(limit());
  const holding = await session.announce(announcement());
  t.same(holding, { group: groupId, term: 1, newest: null, applied: null, open: null, seed: 'none' });
  const applied: unknown[] = [];
  session.listen(groupId, { onApplied: (point) => applied.push(point) });
  const pieces = [{ offset: 0, length: 512, fill: 7 }, { offset: 65_536, length: 1_048_576, fill: 9 }, { offset: 4_194_304, length: 4_194_304, fill: null }];
  const sent = await sendDelta(session, { ...common, term: 1, base: null, next: { term: 1, point: 1 }, open: null }, deltaOf(pieces));
  t.equal(sent.open, null);
  const store = registry.find('web')!;
  t.same(store.newest, { term: 1, point: 1 });
  t.equal(store.disks.get(0)![511], 7);
  t.equal(store.disks.get(0)![65_536 + 1_048_575], 9);
  await waitFor(() => applied.length === 1, { limitMs: 5000, what: 'applied' });
  t.same(applied, [{ term: 1, point: 1 }]);
});

t.test('the benchmark’s switch: the same without TLS, and never one side alone', async (t) => {
  const { registry, link } = await startIngest(t, { tls: false });
  const session = await link({ tls: false }).session(limit());
  await session.announce(announcement());
  await sendDelta(session, { ...common, term: 1, base: null, next: { term: 1, point: 1 }, open: null }, deltaOf([{ offset: 512, length: 512, fill: 1 }]));
  t.equal(registry.find('web')!.disks.get(0)![512], 1);
  const other = link();
  await waitFor(() => other.report().lastFault !== null, { limitMs: 5000, what: 'a source with TLS to fail' });
  t.equal(other.report().state, 'down');
});

t.test('a round is acknowledged as a part, and the delta goes on from it', async (t) => {
  const { registry, link } = await startIngest(t);
  const session = await link().session(limit());
  await session.announce(announcement());
  const place = { ...common, term: 1, base: null, next: { term: 1, point: 1 } };
  const { open } = await sendDelta(session, { ...place, open: null }, deltaOf([{ offset: 0, length: 4096, fill: 1 }], true));
  t.match(open, { point: 1, nextSequence: 3, parts: 1 });
  t.same((await session.announce(announcement())).open, open, 'the target says the same of it');
  await sendDelta(session, { ...place, open }, deltaOf([{ offset: 4096, length: 4096, fill: 2 }]));
  t.same([registry.find('web')!.disks.get(0)![0], registry.find('web')!.disks.get(0)![4096]], [1, 2]);
});

t.test('a first sync, direct and compared', async (t) => {
  const { registry, link } = await startIngest(t);
  const session = await link().session(limit());
  const holding = await session.announce(announcement());
  for (const isCompared of [false, true]) {
    await session.seedBegin(groupId, '00000000000000ff');
    const sender = new PassSender({ ...common, session, holding, base: { term: 1, point: 0 }, next: { term: 1, point: 1 }, kind: 'seed', seedDeltaId: 255n, isCompared });
    const buffer = Buffer.alloc(recordHeaderBytes + 1_048_576, 5);
    if (isCompared) buffer.fill(6, recordHeaderBytes + 131_072, recordHeaderBytes + 131_073);
    await Promise.all([sender.write(0, 0, buffer, recordHeaderBytes), sender.zero(0, 8_388_608, 8_388_608)]);
    const { open } = await sender.finish();
    t.equal(open, null);
    if (isCompared) t.ok(sender.sentBytes < 2 * 65_536, 'only the block that differs travels');
  }
  const store = registry.find('web')!;
  t.equal(store.seed, 'done');
  t.same([store.disks.get(0)![131_071], store.disks.get(0)![131_072], store.disks.get(0)![131_073]], [5, 6, 5]);
});
