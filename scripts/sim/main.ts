/** The simulator's command: many seeds, or one, with or without a planted defect. Exit code 1: a promise was broken. */
import { Command, InvalidArgumentError, Option } from 'commander';
import { breaks, simulate, type Break } from './scenario.ts';
import { tailLinesDefault } from './world.ts';

interface Options { readonly seeds: number; readonly seed?: number; readonly break?: Break; readonly lines: number; readonly json?: true }

function readCount(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1 || count > 1_000_000) throw new InvalidArgumentError('Expected a whole number from 1 to 1000000.');
  return count;
}

const options = new Command('sim').description('source, target, network and operators under faults, by seed')
  .option('--seeds <count>', 'how many, from 1 on', readCount, 500)
  .option('--seed <seed>', 'this one alone', readCount)
  .addOption(new Option('--break <name>', 'with this defect planted, until a seed finds it').choices(breaks))
  .option('--lines <count>', 'of the log of a run that broke a promise, at most', readCount, tailLinesDefault)
  .option('--json', 'figures as JSON')
  .parse().opts<Options>();

const seeds = options.seed === undefined ? Array.from({ length: options.seeds }, (_, at) => at + 1) : [options.seed];
const totals = new Map<string, number>();
let last = '';
let ran = 0;
let violated: Awaited<ReturnType<typeof simulate>> | null = null;
for (const seed of seeds) {
  const result = await simulate(seed, options.break ?? null, options.lines);
  ran += 1;
  last = result.digest;
  for (const [what, count] of result.counts) totals.set(what, (totals.get(what) ?? 0) + count);
  if (result.violation === null) continue;
  violated = result;
  break;
}
const figures = { seeds: ran, digest: last, counts: Object.fromEntries([...totals].sort()), violation: violated === null ? null : { seed: violated.seed, what: violated.violation } };
if (options.json === true) process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`);
else {
  if (violated !== null) process.stdout.write(`${violated.tail.join('\n')}\n\nseed ${violated.seed}: ${violated.violation}\n`);
  process.stdout.write(`${ran} seeds${violated === null ? ', every promise kept' : ''}; the last one's log has the digest ${last}\n`);
  for (const [what, count] of [...totals].sort()) process.stdout.write(`  ${what}: ${count}\n`);
}
process.exit(violated === null ? 0 : 1);
