import t from 'tap';
import { Outbox } from '../../daemon/stream/outbox.ts';
import { Fault } from '../../journal/fault.ts';
import { recordHeaderBytes } from '../../journal/limits.ts';
import { makeRecord, readRecord, type RecordView } from '../../journal/record.ts';

function record(sequence: number, payloadBytes: number): RecordView {
  const header = { groupId: 'aa'.repeat(16), deltaId: 1n, point: 1, term: 1, sequence, disk: 0, offset: 0, codec: 'none' } as const;
  return payloadBytes === 0 ? makeRecord({ kind: 'zero', length: 512, ...header }) : makeRecord({ kind: 'data', length: payloadBytes, ...header }, Buffer.alloc(payloadBytes, 1));
}

function outboxOf(creditBytes: number): { outbox: Outbox; messages: Buffer[]; write: () => void } {
  const messages: Buffer[] = [];
  const written: (() => void)[] = [];
  const outbox = new Outbox({ write: (bytes, onWritten) => { messages.push(bytes); written.push(onWritten); } }, creditBytes);
  return { outbox, messages, write: () => { for (const call of written.splice(0)) call(); } };
}

function sequences(messages: readonly Buffer[]): number[] {
  const found: number[] = [];
  for (const message of messages) {
    for (let at = 0; at < message.length;) {
      const reading = readRecord(message, at);
      if (!reading.ok) throw new Error(reading.detail);
      found.push(reading.record.header.sequence);
      at = reading.next;
    }
  }
  return found;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('nothing leaves beyond the credit, and everything leaves in order', async (t) => {
  const size = recordHeaderBytes + 65_536;
  const { outbox, messages, write } = outboxOf(2 * size);
  const done: number[] = [];
  const sends = [0, 1, 2, 3, 4].map((sequence) => outbox.send(record(sequence, sequence === 3 ? 0 : 65_536)).then(() => done.push(sequence)));
  await turn();
  t.same(done, [0, 1]);
  write();
  await turn();
  t.same(done, [0, 1], 'written is not consumed');
  outbox.grant(size);
  await turn();
  t.same(done, [0, 1, 2], 'the small one does not overtake');
  outbox.grant(2 * size);
  await Promise.all(sends);
  t.same(sequences(messages), [0, 1, 2, 3, 4]);
  t.equal(outbox.sentBytes, 4 * size + recordHeaderBytes);
});

t.test('the socket’s room bounds what is written and not taken', async (t) => {
  const { outbox, messages, write } = outboxOf(1024 ** 3);
  let done = 0;
  for (let sequence = 0; sequence < 20; sequence++) void outbox.send(record(sequence, 1_048_576)).then(() => { done += 1; });
  await turn();
  t.ok(messages.length <= 5, `${messages.length} MiB wait in the socket`);
  for (let i = 0; i < 20; i++) {
    write();
    await turn();
  }
  t.equal(done, 20);
});

t.test('small records share a message, in order with what is around them, and their buffers come back', async (t) => {
  const { outbox, messages, write } = outboxOf(1024 ** 3);
  let returned = 0;
  for (let sequence = 0; sequence < 100; sequence++) await outbox.send(record(sequence, sequence === 50 ? 65_536 : 512), () => { returned += 1; });
  t.equal(messages.length, 2, 'nothing waits for more than the turn, the large one flushes what is before it');
  await turn();
  t.equal(messages.length, 3);
  t.same(sequences(messages), Array.from({ length: 100 }, (_, i) => i));
  t.equal(returned, 0);
  write();
  t.equal(returned, 100);
});

t.test('when it is over, all who wait are told', async (t) => {
  const { outbox } = outboxOf(100);
  const waiting = outbox.send(record(0, 512));
  const fault = new Fault('TARGET_UNREACHABLE', 'gone');
  outbox.fail(fault);
  await t.rejects(waiting, fault);
  await t.rejects(outbox.send(record(1, 512)), fault);
});

t.test('what is given up while it waits never leaves, nor does what was given up with it', async (t) => {
  const { outbox, messages } = outboxOf(recordHeaderBytes);
  const giveUp = new AbortController();
  const reason = new Error('enough');
  const large = outbox.send(record(0, 65_536), undefined, giveUp.signal);
  const small = outbox.send(record(1, 0), undefined, giveUp.signal);
  const other = outbox.send(record(2, 0));
  giveUp.abort(reason);
  await t.rejects(large, reason);
  await t.rejects(small, reason);
  await other;
  await turn();
  t.same(sequences(messages), [2], 'the other one goes on');
  await t.rejects(outbox.send(record(3, 0), undefined, giveUp.signal), reason);
});
