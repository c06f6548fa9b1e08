import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { askLiveness } from '../../console/liveness.ts';

t.test('one that answers and has its folders lives', async (t) => {
  t.equal(await askLiveness({ report: async () => ({}), folders: [t.testdir({})], limitMs: 10_000 }), null);
});

t.test('why one does not', async (t) => {
  const folders = [t.testdir({})];
  t.equal(await askLiveness({ report: () => Promise.reject(new Error('nobody')), folders, limitMs: 10_000 }), 'its report: nobody');
  t.match(await askLiveness({ report: async () => ({}), folders: [`${folders[0]}/gone`], limitMs: 10_000 }), /gone: ENOENT/);
  t.match(await askLiveness({ report: () => delay(60_000, undefined, { ref: false }), folders: [], limitMs: 50 }), /no answer within 50 ms from its report/);
});

t.test('a folder that is slow is no reason, one that hangs is, and it is looked at once', async (t) => {
  let end!: () => void;
  const silent = new Promise<void>((resolve) => { end = resolve; });
  let looked = 0;
  const ask = (hungMs: number) => askLiveness({ report: async () => ({}), folders: ['/silent'], limitMs: 20, hungMs, look: () => { looked += 1; return silent; } });
  t.equal(await ask(60_000), null);
  t.match(await ask(10), /no answer for \d+ ms from \/silent/);
  t.equal(looked, 1);
  end();
  t.equal(await ask(10), null);
});
