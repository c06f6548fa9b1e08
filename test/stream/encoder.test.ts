import t from 'tap';
import { availableParallelism } from 'node:os';
import { randomFillSync } from 'node:crypto';
import { uncompressSync } from 'snappy';
import { Encoder, type EncodedRun } from '../../daemon/stream/encoder.ts';
import { sampleMs } from '../../daemon/stream/compression-plan.ts';
import { nodeClock } from '../../host/node/clock.ts';
import { recordHeaderBytes } from '../../journal/limits.ts';
import { readRecord, type RecordView } from '../../journal/record.ts';

const place = { groupId: 'aa'.repeat(16), deltaId: 7n, point: 3, term: 2, disk: 1, offset: 65_536 };

function read({ bytes }: RecordView): RecordView {
  const reading = readRecord(bytes);
  if (!reading.ok) throw new Error(reading.detail);
  return reading.record;
}

function filled(encoder: Encoder, length: number, fill: (payload: Buffer) => void): Buffer {
  const buffer = encoder.buffers.take(length);
  fill(buffer.subarray(recordHeaderBytes));
  return buffer;
}

t.test('a run becomes one record in its own buffer, and the buffer comes back when the record has left', async (t) => {
  const encoder = new Encoder({ clock: nodeClock });
  const buffer = filled(encoder, 1_048_576, (payload) => payload.fill('x'));
  const run = await encoder.data(place, buffer);
  const record = run.finish(5);
  t.match(read(record).header, { ...place, kind: 'data', codec: 'none', sequence: 5, length: 1_048_576 });
  t.equal(record.bytes.buffer, buffer.buffer, 'nothing was copied');
  t.not(encoder.buffers.take(1_048_576).buffer, buffer.buffer, 'in use');
  run.release!();
  t.equal(encoder.buffers.take(1_048_576).buffer, buffer.buffer, 'used again');
});

t.test('zeroes become a zero record, and nothing else does', async (t) => {
  const encoder = new Encoder({ clock: nodeClock });
  for (const length of [512, 4096, 1_048_576]) {
    const zero = await encoder.data(place, filled(encoder, length, (payload) => payload.fill(0)));
    t.match(read(zero.finish(1)).header, { kind: 'zero', length, payloadBytes: 0 });
    for (const at of [0, 511, length / 2, length - 1]) {
      const run = await encoder.data(place, filled(encoder, length, (payload) => { payload.fill(0)[at] = 1; }));
      t.match(read(run.finish(1)).header, { kind: 'data', length }, `a one at ${at} of ${length}`);
    }
  }
  t.match(read(encoder.zero(place, 1024 ** 3).finish(0)).header, { kind: 'zero', length: 1024 ** 3 });
});

const length = 65_536;

/** Runs over a link that takes as long as their records are large, on a host with time to spare, until it is decided. */
async function atSlowLink(fill: (payload: Buffer) => void): Promise<{ encoder: Encoder; run: EncodedRun }> {
  let nowMs = 1000;
  const encoder = new Encoder({ clock: { ...nodeClock, monotonicMs: () => nowMs }, hostIdle: () => nowMs * availableParallelism() * 0.9 });
  const ended = encoder.begin();
  for (let i = 0; i < 200; i++) {
    const run = await encoder.data(place, filled(encoder, length, fill));
    const { bytes } = run.finish(i);
    run.release!();
    const waited = encoder.wait();
    nowMs += 1 + (sampleMs / 4) * (bytes.length / length);
    waited();
  }
  ended();
  return { encoder, run: await encoder.data(place, filled(encoder, length, fill)) };
}

t.test('at a slow link, text travels compressed and is whole when unpacked', async (t) => {
  const { encoder, run } = await atSlowLink((payload) => { payload.fill('a line of a log, like the one before it\n'); });
  const { header, bytes } = read(run.finish(9));
  t.match(header, { kind: 'data', codec: 'snappy', length: length });
  t.ok(header.payloadBytes < length / 5);
  t.ok((uncompressSync(bytes.subarray(recordHeaderBytes)) as Buffer).equals(Buffer.alloc(length, 'a line of a log, like the one before it\n')));
  t.match(encoder.compression(), { isOn: true, why: /./ });
  t.ok(encoder.compression().ratio > 5);
});

t.test('at a slow link, random data travels as it is', async (t) => {
  const { encoder, run } = await atSlowLink((payload) => { randomFillSync(payload); });
  t.match(read(run.finish(9)).header, { kind: 'data', codec: 'none', length });
  t.match(encoder.compression(), { isOn: false, why: /does not pay/ });
});
