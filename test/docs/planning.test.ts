/** The worked example of docs/planning.md is what the command prints for the measurement that the document names. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { planEstimate, type ChangeMeasurement } from '../../console/estimate/estimate-plan.ts';
import { formatEstimate } from '../../console/render/estimate.ts';
import { plainLook } from '../../console/render/look.ts';
import { defaultRetention } from '../../replica-target/points/retention-plan.ts';

const mib = 1024 ** 2;
/** Of one that is busy for a while within each half minute. */
const cyclesOf = (ms: number, count: number, quietMiB: number, busyMiB: number, busyEvery: number) => Array.from({ length: count }, (_none, at) => ({ ms, changedBytes: (at % busyEvery === busyEvery - 1 ? busyMiB : quietMiB) * mib }));

const example: ChangeMeasurement = {
  forMs: 600_000, sizeBytes: 200 * 1024 * mib, written: { bytes: 3000 * mib, operations: 192_000 },
  windows: [
    { windowMs: 1000, cycles: cyclesOf(1000, 600, 4, 12, 10) }, { windowMs: 5000, cycles: cyclesOf(5000, 120, 14, 38, 6) },
    { windowMs: 60_000, cycles: cyclesOf(60_000, 10, 110, 140, 5) }, { windowMs: 300_000, cycles: cyclesOf(300_000, 2, 290, 290, 5) },
  ],
};

t.test('the example', async (t) => {
  const printed = formatEstimate(plainLook, '/run/web1/afterimage.qmp', planEstimate(example, { rpoMs: 5000, linkBytesPerSecond: 12 * mib, retention: defaultRetention }));
  const text = await readFile(join(import.meta.dirname, '../../docs/planning.md'), 'utf8');
  t.ok(text.includes(printed.trimEnd()), `docs/planning.md has:\n${printed}`);
});
