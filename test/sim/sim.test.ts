/**
 * The simulator of scripts/sim, as far as the suite has time for it: some hundred seeds keep every promise, a seed run twice is the same run, and each planted defect is found.
 * Run as people run it. More seeds: npm run sim -- --seeds N.
 */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { breaks } from '../../scripts/sim/scenario.ts';
import { isLong } from '../support/extent.ts';

const seeds = isLong ? 2000 : 300;
/** A defect that shows only when two things fall together is found by some of these. */
const breakSeeds = 400;

interface Figures { readonly seeds: number; readonly digest: string; readonly counts: Readonly<Record<string, number>>; readonly violation: { readonly seed: number; readonly what: string } | null }

function sim(...args: readonly string[]): Promise<{ readonly code: number; readonly figures: Figures }> {
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [fileURLToPath(new URL('../../dist/scripts/sim/main.js', import.meta.url)), ...args, '--json'], { timeout: 900_000, maxBuffer: 64 * 1024 ** 2 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : error.code;
      if (typeof code !== 'number' || stdout === '') reject(new Error(`the simulator ended with ${code}: ${stderr}`));
      else resolve({ code, figures: JSON.parse(stdout) as Figures });
    });
  });
}

t.test(`${seeds} seeds keep every promise`, { timeout: 600_000 }, async (t) => {
  const { code, figures } = await sim('--seeds', String(seeds));
  t.same(figures.violation, null);
  t.equal(code, 0);
  t.equal(figures.seeds, seeds);
  // A run in which nothing happens keeps every promise.
  for (const what of ['points acknowledged', 'power cuts', 'network cuts', 'source restarts', 'target restarts', 'guest restarts', 'failovers', 'planned failovers', 'full passes', 'cuts of the witness', 'failovers by themselves']) {
    t.ok((figures.counts[what] ?? 0) >= seeds / 20, `${what}: ${figures.counts[what] ?? 0}`);
  }
});

t.test('a seed run twice is the same run', async (t) => {
  const digestOf = async (seed: number): Promise<string> => (await sim('--seed', String(seed))).figures.digest;
  for (const seed of [3, 77]) t.equal(await digestOf(seed), await digestOf(seed));
  t.not(await digestOf(3), await digestOf(4));
});

for (const name of breaks) {
  t.test(`a planted defect is found: ${name}`, { timeout: 300_000 }, async (t) => {
    const { code, figures } = await sim('--seeds', String(breakSeeds), '--break', name);
    t.equal(code, 1);
    t.ok(figures.violation !== null, `seed ${figures.violation?.seed}: ${figures.violation?.what}`);
  });
}
