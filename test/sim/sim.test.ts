/**
 * The simulator of scripts/sim, as far as the suite has time for it: some hundred seeds keep every promise, a seed run twice is the same run, and each planted defect is found.
 * More seeds: npm run sim -- --seeds N.
 */
import t from 'tap';
import { breaks, simulate } from '../../scripts/sim/scenario.ts';
import { isLong } from '../support/extent.ts';

const seeds = isLong ? 2000 : 200;
/** A defect that shows only when two things fall together is found by some of these. */
const breakSeeds = 400;

t.test(`${seeds} seeds keep every promise`, { timeout: 600_000 }, async (t) => {
  const totals = new Map<string, number>();
  const broken: string[] = [];
  for (let seed = 1; seed <= seeds; seed += 1) {
    const { violation, tail, counts } = await simulate(seed, null);
    for (const [what, count] of counts) totals.set(what, (totals.get(what) ?? 0) + count);
    if (violation !== null) broken.push(`seed ${seed}: ${violation}\n${tail.join('\n')}`);
  }
  t.same(broken, []);
  // A run in which nothing happens keeps every promise.
  for (const what of ['points acknowledged', 'power cuts', 'network cuts', 'source restarts', 'target restarts', 'guest restarts', 'failovers', 'planned failovers', 'full passes']) {
    t.ok((totals.get(what) ?? 0) >= seeds / 20, `${what}: ${totals.get(what) ?? 0}`);
  }
});

t.test('a seed run twice is the same run', async (t) => {
  for (const seed of [3, 77, 123]) t.equal((await simulate(seed, null)).digest, (await simulate(seed, null)).digest);
  t.not((await simulate(3, null)).digest, (await simulate(4, null)).digest);
});

for (const name of breaks) {
  t.test(`a planted defect is found: ${name}`, { timeout: 300_000 }, async (t) => {
    for (let seed = 1; seed <= breakSeeds; seed += 1) {
      const { violation } = await simulate(seed, name);
      if (violation !== null) return t.pass(`seed ${seed}: ${violation}`);
    }
    t.fail(`no seed of ${breakSeeds} finds it`);
  });
}
