import { PassThrough } from 'node:stream';
import t from 'tap';

import { watchLines } from '../../scripts/lab/watch-lines.ts';

t.test('lines come out whole, whether they were there before the wait or come after it', async (t) => {
  const stream = new PassThrough();
  const watch = watchLines(stream);
  stream.write('one\r\ntw');
  const first = await watch.waitFor(/^o(n)e$/, 1_000, { from: 0 });
  t.match(first, { text: 'one', index: 0, match: ['one', 'n'] });
  const later = watch.waitFor(/^two$/, 1_000, { from: 0 });
  stream.write('o\nthree\n');
  t.match(await later, { text: 'two', index: 1 });
  t.match(await watch.waitFor(/./, 1_000, { from: 2 }), { text: 'three' }, 'from an index on');
  t.strictSame(watch.lines.map(({ text }) => text), ['one', 'two', 'three']);
});

t.test('a wait ends with the reason when what it waits for will not come', async (t) => {
  const stream = new PassThrough();
  const watch = watchLines(stream);
  stream.write('fine\n');
  const failing = watch.waitFor(/^never$/, 10_000, { from: 0, orFail: /panic/ });
  const ending = watch.waitFor(/^never$/, 10_000, { from: 0 });
  const settled = Promise.allSettled([failing, ending]);
  stream.write('a panic\n');
  await t.rejects(failing, /"a panic" while waiting for .*never[^]*fine/);
  watch.end('QEMU ended');
  await settled;
  await t.rejects(ending, /QEMU ended while waiting/);
  await t.rejects(watch.waitFor(/^never$/, 10_000, { from: 0 }), /QEMU ended/, 'also when asked after the end');
  t.match(await watch.waitFor(/^fine$/, 10_000, { from: 0 }), { text: 'fine' }, 'what was said stays said');
});
