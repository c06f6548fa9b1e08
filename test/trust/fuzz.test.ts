/**
 * The fuzzer of scripts/fuzz, as far as the suite has time for it: some inputs for each decoder end in a result or a named refusal, and
 * each planted defect is found. Run as people run it. Longer: npm run fuzz -- --seconds N.
 */
import { execFile } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { decoders } from '../../scripts/fuzz/decoders.ts';
import { plantedNames } from '../../scripts/fuzz/planted.ts';
import { isLong } from '../support/extent.ts';

/** Enough for each decoder to come behind its checksums. */
const inputsMax = isLong ? 20_000 : 100;
/** At most, on a machine that has much other work. */
const seconds = isLong ? 600 : 120;

interface Figures {
  readonly inputs: number;
  readonly memoryPeakBytes: number;
  readonly figures: readonly { readonly decoder: string; readonly inputs: number; readonly accepted: number; readonly faults: Readonly<Record<string, number>> }[];
  readonly crashes: readonly { readonly decoder: string; readonly kind: string; readonly what: string; readonly file: string }[];
}

function fuzz(...args: readonly string[]): Promise<{ readonly code: number; readonly found: Figures }> {
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [fileURLToPath(new URL('../../dist/scripts/fuzz/main.js', import.meta.url)), ...args, '--json'], { timeout: 800_000, maxBuffer: 64 * 1024 ** 2 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : error.code;
      if (typeof code !== 'number' || stdout === '') reject(new Error(`the fuzzer ended with ${code}: ${stderr}`));
      else resolve({ code, found: JSON.parse(stdout) as Figures });
    });
  });
}

t.test('every decoder ends by its named refusal, whatever it is given', { timeout: 850_000 }, async (t) => {
  const { code, found } = await fuzz('--inputs', String(inputsMax), '--seconds', String(seconds));
  t.same(found.crashes, []);
  t.equal(code, 0);
  t.same(found.figures.map(({ decoder }) => decoder), decoders().map(({ name }) => name), 'all of them were tried');
  for (const { decoder, inputs, accepted } of found.figures) t.ok(inputs > 0 && accepted > 0, `${decoder}: ${inputs} inputs, ${accepted} valid`);
  t.ok(found.inputs > 10 * found.figures.length, `${found.inputs} inputs in all`);
  t.ok(found.memoryPeakBytes < 1024 ** 3, `${Math.round(found.memoryPeakBytes / 1024 ** 2)} MiB at most`);
});

const kinds: Readonly<Record<string, string>> = { 'length-believed': 'memory', 'endless-page': 'hang', 'slow-pattern': 'slow' };

t.test('planted defects are found', { timeout: 600_000 }, async (t) => {
  const { code, found } = await fuzz('--planted', ...plantedNames, '--seconds', String(15 * plantedNames.length));
  t.equal(code, 1);
  for (const name of plantedNames) {
    t.test(name, async (t) => {
      const crash = found.crashes.find(({ decoder }) => decoder === name);
      t.ok(crash !== undefined);
      if (crash === undefined) return;
      t.teardown(() => rmSync(dirname(crash.file), { recursive: true }));
      // A pattern that takes longer still is one that does not end.
      const wanted = kinds[name] ?? 'error';
      t.ok(crash.kind === wanted || (wanted === 'slow' && crash.kind === 'hang'), `${crash.kind}: ${crash.what.split('\n')[0]}`);
      t.ok(readFileSync(crash.file).length > 0, 'with the input, to be tried again');
    });
  }
});
