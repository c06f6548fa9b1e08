/** A resync is over only when its newest part is acknowledged, also when the last run is the one that filled the part. */
import t from 'tap';
import { PassSender } from '../../daemon/resync/pass-sender.ts';
import { Encoder } from '../../daemon/stream/encoder.ts';
import type { SessionListener, TargetSession } from '../../daemon/stream/session.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { nodeRandom } from '../../host/node/random.ts';
import { recordHeaderBytes } from '../../journal/limits.ts';
import { readRecord } from '../../journal/record.ts';
import type { GroupHolding } from '../../journal/wire.ts';

const mib = 1024 * 1024;
const groupId = 'ab'.repeat(16);
const base = { term: 1, point: 7 };
const holding: GroupHolding = { group: groupId, term: 1, newest: base, applied: base, seed: 'done', open: null };

void t.test('the newest part is waited for', { timeout: 60_000 }, async (t) => {
  const listeners = new Set<SessionListener>();
  const parts: number[] = [];
  const session: TargetSession = {
    closed: new Promise(() => undefined),
    announce: () => Promise.reject(new Error('not asked for')),
    listen: (_, listener) => { listeners.add(listener); return () => listeners.delete(listener); },
    send: (record, onWritten) => {
      const read = readRecord(record.bytes);
      if (read.ok && read.record.header.kind === 'part') parts.push(read.record.header.sequence);
      onWritten?.();
      return Promise.resolve();
    },
    seedBegin: () => Promise.reject(new Error('not asked for')),
    seedEnd: () => Promise.reject(new Error('not asked for')),
    compare: ({ length, blockBytes }) => Promise.resolve('1'.repeat(Math.ceil(length / blockBytes))),
    forget: () => Promise.resolve(),
    answer: () => undefined,
    handOver: () => Promise.resolve(),
    close: () => undefined,
  };
  const sender = new PassSender({ session, groupId, holding, base, next: { term: 1, point: 8 }, kind: 'delta', isCompared: true, encoder: new Encoder({ clock: nodeClock }), random: nodeRandom });
  for (let run = 0; run < 256; run++) {
    const buffer = sender.buffers.take(mib);
    buffer.fill(run + 1, recordHeaderBytes);
    await sender.write(0, run * mib, buffer, recordHeaderBytes);
  }
  t.equal(parts.length, 1, 'the last run filled the part');
  let isFinished = false;
  const finished = sender.finish().then((ended) => { isFinished = true; return ended; });
  await new Promise((resolve) => setImmediate(resolve));
  t.notOk(isFinished, 'not before the part is acknowledged');
  for (const listener of listeners) listener.onAck?.({ term: 1, point: 8, part: 1 });
  const { open } = await finished;
  t.match(open, { point: 8, parts: 1, nextSequence: 258 });
  t.equal(listeners.size, 0, 'nobody listens any more');
});
