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
