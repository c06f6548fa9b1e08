/** Full passes of one link take turns: a few at once, in order, none kept waiting by one that was given up or is paused. */
import t from 'tap';
import { PassTurns } from '../../daemon/resync/pass-turns.ts';

function pass(): { run: () => Promise<string>; end: (said: string) => void; hasBegun: () => boolean } {
  let end: (said: string) => void = () => undefined;
  let begun = false;
  const over = new Promise<string>((resolve) => { end = resolve; });
  return { run: () => { begun = true; return over; }, end, hasBegun: () => begun };
}

const never = new AbortController().signal;
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('two at once, then in order', async (t) => {
  const turns = new PassTurns();
  const passes = [pass(), pass(), pass(), pass()];
  const taken = passes.map(({ run }) => turns.take(run, never));
  t.same(passes.map(({ hasBegun }) => hasBegun()), [true, true, false, false]);
  t.ok(turns.isFull);
  passes[1]!.end('one');
  t.equal(await taken[1], 'one');
  await settled();
  t.same(passes.map(({ hasBegun }) => hasBegun()), [true, true, true, false]);
  for (const [index, one] of passes.entries()) one.end(String(index));
  t.same(await Promise.all(taken), ['0', 'one', '2', '3']);
  t.notOk(turns.isFull);
});

t.test('who gives up his turn keeps nobody waiting, and never begins', async (t) => {
  const turns = new PassTurns();
  const [first, second, third, fourth] = [pass(), pass(), pass(), pass()];
  const stop = new AbortController();
  const running = [turns.take(first.run, never), turns.take(second.run, never)];
  const given = turns.take(third.run, stop.signal);
  const next = turns.take(fourth.run, never);
  stop.abort(new Error('unprotected'));
  await t.rejects(given, { message: 'unprotected' }, 'at once');
  first.end('');
  await settled();
  t.ok(fourth.hasBegun());
  t.notOk(third.hasBegun());
  second.end('');
  fourth.end('');
  await Promise.all([...running, next]);
  await t.rejects(turns.take(pass().run, stop.signal), { message: 'unprotected' });
});

t.test('a pass that fails gives its turn on; one that is paused lends it', async (t) => {
  const turns = new PassTurns();
  await t.rejects(turns.take(() => Promise.reject(new Error('link lost')), never), { message: 'link lost' });
  const passes = [pass(), pass(), pass(), pass()];
  const taken = passes.map(({ run }) => turns.take(run, never));
  const giveBack = turns.lend();
  await settled();
  t.ok(passes[2]!.hasBegun());
  giveBack();
  giveBack();
  passes[0]!.end('');
  await settled();
  t.notOk(passes[3]!.hasBegun(), 'two are running again');
  passes[1]!.end('');
  await settled();
  t.ok(passes[3]!.hasBegun());
  for (const one of passes) one.end('');
  await Promise.all(taken);
});
