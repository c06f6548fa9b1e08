/** The benchmark command's words: what it takes, and that it says what is wrong with the rest. */
import t from 'tap';
import { readArguments } from '../../scripts/bench/arguments.ts';

t.test('a name alone', (t) => {
  t.same(readArguments(['seed']), { name: 'seed', isJson: false, runs: 5, sizeBytes: 2 * 1024 ** 3, pointCount: 1, loadSeconds: 15, capture: null, profileFolder: null, only: null });
  t.end();
});

t.test('everything', (t) => {
  t.same(readArguments(['overhead', '--json', '--runs', '7', '--size=256', '--seconds', '3', '--points', '500', '--capture=writelog', '--profile', 'there']), {
    name: 'overhead', isJson: true, runs: 7, sizeBytes: 256 * 1024 ** 2, pointCount: 500, loadSeconds: 3, capture: 'writelog', profileFolder: 'there', only: null,
  });
  t.end();
});

for (const words of [[], ['sed'], ['seed', 'delta'], ['seed', '--jason'], ['seed', '--runs', '0'], ['seed', '--runs', 'many'], ['seed', '--size', '100'], ['seed', '--size', '0'], ['seed', '--seconds', '-1'], ['rpo', '--capture', 'auto'], ['seed', '--capture', 'cbt']]) {
  t.test(`refused: ${words.join(' ')}`, (t) => {
    const read = readArguments(words);
    t.ok('problem' in read && read.problem.length > 10);
    t.end();
  });
}
