/**
 * The demo's command: reads its options, plays the story once, and makes sure that whatever happens (an error, Ctrl-C, a
 * closed terminal) nothing is left running and nothing is left on the disk. Exit status 1 when the guest did not come back
 * as promised.
 */
import { Command, Option } from 'commander';

import { readDurationMs } from '../../console/config/quantity.ts';
import { printJson } from '../../console/terminal.ts';
import { playDashboard } from './dashboard-story.ts';
import { playFailback } from './failback-story.ts';
import { brokenFailbackPromises, brokenPointPromises, brokenPromises } from './figures.ts';
import { playPoints } from './points-story.ts';
import { openScreen } from './screen.ts';
import { openStage } from './stage.ts';
import { play } from './story.ts';

interface Options {
  readonly json?: true;
  readonly points?: true;
  readonly failback?: true;
  readonly dashboard?: true;
  readonly shots?: string;
  readonly for?: string;
  readonly capture: 'cbt' | 'writelog';
  readonly rpo?: string;
  readonly watch: string;
  readonly churn: string;
}

const { json, points, failback, dashboard, shots, capture, watch, churn, ...given } = new Command('demo')
  .description('A real guest is protected, its host is lost, and it runs again from its replica')
  .option('--json', 'end with one JSON object of what was measured; the story goes to stderr')
  .option('--points', 'instead, boots three older points in turn as tests, while protection goes on')
  .addOption(new Option('--failback', 'instead, the guest is handed over to the other host, works there, and is brought home onto its old disk').conflicts('points'))
  .addOption(new Option('--dashboard', 'instead, the guest is protected and the dashboard served, until it is interrupted').conflicts(['points', 'failback']))
  .addOption(new Option('--shots <folder>', 'screenshots of the dashboard, at desktop and phone width, light and dark').implies({ dashboard: true }))
  .option('--for <duration>', 'the dashboard is served so long (default: until it is interrupted)')
  .addOption(new Option('--capture <kind>', 'how its changes are followed').choices(['cbt', 'writelog']).default('cbt'))
  .option('--rpo <duration>', 'how much may be lost (default: 1s, with a write log 500ms)')
  .option('--watch <duration>', 'how long the guest is watched before its host is lost, or its points are booted', '25s')
  .option('--churn <KiB/s>', 'what the guest writes beside its counter', '1024')
  .parse()
  .opts<Options>();

const rpoMs = readDurationMs(given.rpo ?? (capture === 'writelog' ? '500ms' : '1s'));
const watchMs = readDurationMs(watch);
const lastMs = given.for === undefined ? null : readDurationMs(given.for);
if (rpoMs === undefined || watchMs === undefined || lastMs === undefined || !/^\d+$/.test(churn)) {
  process.stderr.write('demo: durations look like 1s or 500ms, churn like 1024\n');
  process.exit(64);
}

const screen = openScreen(json === true ? process.stderr : process.stdout);
const stage = await openStage(failback === true);
const interrupted = new Promise<never>((_, reject) => {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => reject(new Interruption(signal)));
});
// A signal that comes when nobody waits any more must not end the clean-up.
interrupted.catch(() => undefined);

class Interruption extends Error {
  readonly signal: string;

  constructor(signal: string) {
    super(`interrupted by ${signal}`);
    this.signal = signal;
  }
}

let failure: unknown;
try {
  const options = { rpoMs, capture, watchMs, churnKib: Number(churn) };
  const story = points === true
    ? playPoints(stage, screen, options).then((figures) => ({ figures, broken: brokenPointPromises(figures) }))
    : dashboard === true ? playDashboard(stage, screen, options, shots ?? null, lastMs).then((figures) => ({ figures, broken: [] }))
    : failback === true ? playFailback(stage, screen, options).then((figures) => ({ figures, broken: brokenFailbackPromises(figures) }))
    : play(stage, screen, options).then((figures) => ({ figures, broken: brokenPromises(figures, rpoMs) }));
  const { figures, broken } = await Promise.race([story, interrupted]);
  await stage.clear();
  for (const promise of broken) screen.bad(promise);
  if (json === true) printJson(figures, false);
  process.exitCode = broken.length === 0 ? 0 : 1;
} catch (error) {
  failure = error;
}

if (failure !== undefined) {
  screen.end();
  if (failure instanceof Interruption) {
    process.stderr.write(`demo: ${failure.message}; cleaning up\n`);
  } else {
    process.stderr.write(`demo: ${failure instanceof Error ? (failure.stack ?? failure.message) : String(failure)}\n`);
    for (const line of await stage.lastWords()) process.stderr.write(`  ${line}\n`);
  }
  await stage.clear();
  process.exitCode = failure instanceof Interruption ? 130 : 1;
}
// The story may still wait for something that will not come now.
process.exit();
