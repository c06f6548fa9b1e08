/** Medians, spreads and ratios, and that the one line of JSON has what it promises. */
import t from 'tap';
import { jsonOf, median, ratioOf, spreadOf, type BenchResult } from '../../scripts/bench/figures.ts';
import { tableOf } from '../../scripts/bench/result-table.ts';

t.test('median', (t) => {
  t.equal(median([3]), 3);
  t.equal(median([9, 1, 5]), 5);
  t.equal(median([4, 1, 3, 10]), 3.5);
  t.equal(median([2, 10, 9]), 9, 'by number, not by text');
  t.throws(() => median([]));
  t.end();
});

t.test('a spread keeps the runs in their order and rounds', (t) => {
  t.same(spreadOf([10.04, 2.26, 3], 1), { median: 3, min: 2.3, max: 10, runs: [10, 2.3, 3] });
  t.end();
});

t.test('above 1 is better for us, whichever way the unit goes', (t) => {
  const [less, more] = [spreadOf([100]), spreadOf([200])];
  t.equal(ratioOf(less, more, true), 2, 'we took half the time');
  t.equal(ratioOf(more, less, true), 0.5);
  t.equal(ratioOf(more, less, false), 2, 'we did twice as many');
  t.end();
});

const result: BenchResult = {
  name: 'seed', unit: 'ms', ours: 400, peer: 200, ratio: 0.5, runs: 2, extras: { image_bytes: 1024 }, notes: ['what it is'],
  rows: [{ what: 'ours', unit: 'ms', spread: spreadOf([390, 410]) }, { what: 'the peer', unit: 'ms', spread: spreadOf([200, 200]), ratio: 0.5 }],
};

t.test('JSON is one line with the promised keys first', (t) => {
  const line = jsonOf(result);
  t.notMatch(line, '\n');
  t.same(Object.keys(JSON.parse(line) as object), ['name', 'unit', 'ours', 'peer', 'ratio', 'runs', 'image_bytes', 'notes']);
  t.end();
});

t.test('the table names every row and note', (t) => {
  const table = tableOf(result);
  t.match(table, /^seed: ours 400 ms, peer 200 ms, ratio 0\.50/);
  t.match(table, /\nours +400 +390 +410 +ms\n/);
  t.match(table, /\nthe peer +200 +200 +200 +ms +0\.50\n/);
  t.match(table, 'what it is');
  t.end();
});
