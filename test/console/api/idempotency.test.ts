import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import t from 'tap';
import { IdempotentActs, readKey, type Answer, type KeyedAct } from '../../../console/api/idempotency.ts';
import { OperatorTokens } from '../../../console/api/operator-tokens.ts';
import { nodeClock } from '../../../host/node/clock.ts';

const log = pino({ level: 'silent' });
const act: KeyedAct = { owner: 'token 1', key: 'k', request: 'POST /v1/groups/web/failover\n{}', act: 'failover', isSecret: false };
const never = (): never => { throw new Error('begun a second time, or without a note'); };
const answer: Answer = { status: 200, mediaType: 'application/json', text: '{"term":2}' };

async function folderOf(t: { teardown(after: () => unknown): unknown }): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'ai-acts-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

t.test('an answer outlives its process; an act that was cut off is not begun again', async (t) => {
  const folder = await folderOf(t);
  const first = await IdempotentActs.open(folder, nodeClock, log);
  await first.once(act, async () => answer);
  // Never ends in this process, as if that had been killed.
  let isBegun: () => void = () => undefined;
  const begun = new Promise<void>((resolve) => { isBegun = resolve; });
  void first.once({ ...act, key: 'cut' }, () => { isBegun(); return new Promise(() => undefined); });
  await begun;
  await first.once({ ...act, key: 'secret', isSecret: true }, async () => ({ ...answer, text: '{"token":"s3cret"}' }));
  t.match(await first.once({ ...act, key: 'secret', isSecret: true }, never), { isReplayed: true, answer: { text: '{"token":"s3cret"}' } }, 'from memory');

  const second = await IdempotentActs.open(folder, nodeClock, log);
  t.strictSame(await second.once(act, never), { answer, isReplayed: true });
  await t.rejects(second.once({ ...act, request: 'POST /v1/groups/db/failover\n{}' }, never), { code: 'KEY_REUSED' });
  await t.rejects(second.once({ ...act, key: 'cut' }, never), { code: 'OUTCOME_UNKNOWN', message: /ended in the middle of it \(failover, begun / });
  await t.rejects(second.once({ ...act, key: 'secret', isSecret: true }, never), { code: 'OUTCOME_UNKNOWN', message: /its answer was not kept/ });
});

t.test('a note that cannot be read keeps its key from being used again, and nobody from starting', async (t) => {
  const folder = await folderOf(t);
  await (await IdempotentActs.open(folder, nodeClock, log)).once(act, async () => answer);
  const [name] = await readdir(folder);
  await writeFile(join(folder, name!), '{"version":');
  await writeFile(join(folder, `${name}.new`), 'half');
  const again = await IdempotentActs.open(folder, nodeClock, log);
  await t.rejects(again.once(act, never), { code: 'OUTCOME_UNKNOWN' });
  t.strictSame(await readdir(folder), [name]);
});

t.test('the note is there before the act begins; without it nothing begins', async (t) => {
  const folder = await folderOf(t);
  const acts = await IdempotentActs.open(folder, nodeClock, log);
  await acts.once(act, async () => {
    t.equal((await readdir(folder)).length, 1);
    return answer;
  });
  await rm(folder, { recursive: true });
  await t.rejects(acts.once({ ...act, key: 'other' }, never), { code: 'ENOENT' });
});

t.test('bounded in number and time', async (t) => {
  const folder = await folderOf(t);
  let nowMs = 1_000_000;
  const clock = { ...nodeClock, nowMs: () => nowMs };
  const acts = await IdempotentActs.open(null, clock, log);
  for (let at = 0; at <= 1000; at += 1) await acts.once({ ...act, key: `${at}` }, async () => answer);
  t.match(await acts.once({ ...act, key: '1000' }, never), { isReplayed: true });
  t.match(await acts.once({ ...act, key: '0' }, async () => answer), { isReplayed: false }, 'the oldest was forgotten');
  const durable = await IdempotentActs.open(folder, clock, log);
  await durable.once(act, async () => answer);
  nowMs += 86_400_001;
  await durable.once({ ...act, key: 'next day' }, async () => answer);
  t.equal((await readdir(folder)).length, 1);
});

t.test('keys', async (t) => {
  t.equal(readKey('"a b"'), 'a b');
  t.equal(readKey('"a\\"b"'), 'a"b');
  t.equal(readKey('8e03978e-40d5-43dd-bc93-6894a57f9324'), '8e03978e-40d5-43dd-bc93-6894a57f9324');
  for (const none of ['', '""', 'a b', '"a', `"${'x'.repeat(256)}"`]) t.equal(readKey(none), null, none);
});

t.test('tokens end by themselves, and survive a restart', async (t) => {
  const path = join(await folderOf(t), 'tokens.json');
  let nowMs = 1_000_000;
  const clock = { ...nodeClock, nowMs: () => nowMs };
  const tokens = await OperatorTokens.open(path, clock);
  const [short, long] = [await tokens.create('short', 'read', 1000), await tokens.create('long', 'operate', null)];
  const again = await OperatorTokens.open(path, clock);
  t.match(again.find(short.token), { name: 'short', scope: 'read' });
  nowMs += 1000;
  t.equal(again.find(short.token), null);
  t.notOk(again.isGood(short.id));
  t.match(again.find(long.token), { name: 'long', scope: 'operate' });
  t.equal(again.find(`${long.token}x`), null);
});
