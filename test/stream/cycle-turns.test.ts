import t from 'tap';
import { nodeClock } from '../../host/node/clock.ts';
import { CycleTurns } from '../../daemon/stream/cycle-turns.ts';

/** A clock whose delays end by hand, or by their signal. */
function handClock(): { readonly clock: Pick<typeof nodeClock, 'delay'>; pass(): void } {
  const due: (() => void)[] = [];
  return {
    clock: { delay: (_, signal) => new Promise((resolve, reject) => { due.push(resolve); signal?.addEventListener('abort', () => reject(signal.reason as Error)); }) },
    pass: () => { for (const resolve of due.splice(0)) resolve(); },
  };
}

const never = new AbortController().signal;
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('a few at a time, in the order in which they asked', async (t) => {
  const turns = new CycleTurns(handClock().clock);
  const ends: (() => void)[] = [];
  const begun: number[] = [];
  for (let guest = 0; guest < 7; guest++) void turns.take(never).then((end) => { begun.push(guest); ends.push(end); });
  await settled();
  t.same(begun, [0, 1, 2, 3]);
  ends[2]!();
  ends[2]!();
  await settled();
  t.same(begun, [0, 1, 2, 3, 4], 'a turn that is ended twice is one');
  ends[0]!();
  ends[1]!();
  await settled();
  t.same(begun, [0, 1, 2, 3, 4, 5, 6]);
});

t.test('who takes long holds nobody up for ever', async (t) => {
  const { clock, pass } = handClock();
  const turns = new CycleTurns(clock);
  const long = await Promise.all([turns.take(never), turns.take(never), turns.take(never), turns.take(never)]);
  let isBegun = false;
  void turns.take(never).then(() => { isBegun = true; });
  await settled();
  t.equal(isBegun, false);
  pass();
  await settled();
  t.equal(isBegun, true);
  for (const end of long) end();
});

t.test('who gives up while it waits leaves its place to the next', async (t) => {
  const turns = new CycleTurns(nodeClock);
  const ends = await Promise.all([turns.take(never), turns.take(never), turns.take(never), turns.take(never)]);
  const over = new AbortController();
  const givenUp = turns.take(over.signal);
  const next = turns.take(never);
  over.abort(new Error('over'));
  await t.rejects(givenUp, /over/);
  await t.rejects(turns.take(over.signal), /over/, 'nor is it begun after that');
  for (const end of ends) end();
  (await next)();
});
