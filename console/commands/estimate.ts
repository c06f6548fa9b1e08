/** `estimate`: measures how a guest changes, and says what its protection takes: of a guest that is not protected yet through its QMP socket, of one that is from its points. */
import { resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { nodeClock } from '../../host/node/clock.ts';
import { Fault } from '../../journal/fault.ts';
import { connectQmp } from '../../qemu/qmp-client.ts';
import { defaultRetention, type RetentionPolicy } from '../../replica-target/points/retention-plan.ts';
import { choosePresent, chooseTarget, type ConfigOption } from '../choose-config.ts';
import type { TargetConfig } from '../config/config.ts';
import { readDurationMs, readRate } from '../config/quantity.ts';
import { rpoMsMax, rpoMsMin } from '../control-api.ts';
import { TargetClient } from '../control-client.ts';
import { measurementOfPoints, planEstimate, type ChangeMeasurement } from '../estimate/estimate-plan.ts';
import { UsageError } from '../exit-code.ts';
import { formatEstimate } from '../render/estimate.ts';
import { formatSpan } from '../render/units.ts';
import { lookOf, print, printAside, printJson } from '../terminal.ts';
import { readName } from './guests.ts';
import { withConfig } from './with-config.ts';

const forMsDefault = 10 * 60_000;
const forMsMax = 7 * 86_400_000;
const rpoMsDefault = 5000;
/** What a gigabit carries beside its own framing, bytes a second. */
const linkDefault = 112 * 1024 ** 2;

interface EstimateOptions extends ConfigOption {
  readonly qmp?: string;
  readonly for: number;
  readonly rpo: number;
  readonly link: number;
  readonly window?: number;
  readonly json?: true;
}

export function addEstimateCommand(program: Command): void {
  withConfig(program.command('estimate').description('measure how a guest changes, and say what its protection takes: link, RPO, spool, space, capture (with --qmp at its host; of a protected guest at the target)')
    .argument('[guest]', 'one that is protected to this target: from its points', readName))
    .option('--qmp <path>', 'QMP socket of a guest that is not protected yet: measures it; Ctrl-C ends that early', (path) => resolve(path))
    .addOption(new Option('--for <duration>', 'how long, 1s to 7d; of points, how far back').argParser(readFor).default(forMsDefault, '10m'))
    .addOption(new Option('--rpo <duration>', 'the pace of points that is asked about').argParser(readPace).default(rpoMsDefault, '5s'))
    .addOption(new Option('--link <size>', 'what the link carries a second, such as 10MiB').argParser(readLink).default(linkDefault, '112MiB, a gigabit'))
    .option('--window <duration>', 'for how long every point is kept (default: of the target’s config, or 4h)', readWindow)
    .option('--json', 'as JSON, bytes and milliseconds')
    .action(estimate);
}

async function estimate(guest: string | undefined, option: EstimateOptions): Promise<void> {
  if ((guest === undefined) === (option.qmp === undefined)) throw new UsageError('name a guest that is protected to this target, or --qmp and the socket of one that is not protected yet: one of the two');
  const { measured, retention } = option.qmp === undefined ? await fromPoints(guest!, option) : { measured: await fromGuest(option.qmp, option.for), retention: defaultRetention };
  const made = planEstimate(measured, { rpoMs: option.rpo, linkBytesPerSecond: option.link, retention: option.window === undefined ? retention : { ...retention, windowMs: option.window } });
  if (option.json === true) printJson(made);
  else print(formatEstimate(lookOf(process.stdout), guest ?? option.qmp!, made));
}

/** Faults: GROUP_UNKNOWN, POINT_UNKNOWN. */
async function fromPoints(guest: string, option: EstimateOptions): Promise<{ readonly measured: ChangeMeasurement; readonly retention: RetentionPolicy }> {
  const config = await targetOf(option);
  const target = new TargetClient(config.controlPath);
  const { points } = await target.timeline(guest);
  const { disks } = await target.describePoint(guest, 'newest');
  const newest = points.at(-1);
  const measured = newest === undefined ? null : measurementOfPoints(points, disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0), newest.cutAtMs - option.for);
  if (measured === null) throw new Fault('POINT_UNKNOWN', `${guest} has no two neighbouring points within ${formatSpan(option.for)}: ask again later, or with a longer --for`, { group: guest });
  const { retention } = config.options;
  return { measured, retention: retention?.groups?.[guest] ?? retention?.all ?? defaultRetention };
}

/** Its points know what it changes, and they are at the target; its QMP socket is the daemon's. */
async function targetOf(option: ConfigOption): Promise<TargetConfig> {
  const configs = await choosePresent(option);
  const found = configs.find(({ role }) => role === 'target');
  if (found?.role === 'target') return found;
  if (configs.length > 0) throw new UsageError('a guest that is protected is estimated from its points: ask at its target. One that is not is measured with --qmp');
  return chooseTarget(option, 'estimate');
}

async function fromGuest(qmpPath: string, forMs: number): Promise<ChangeMeasurement> {
  const ending = new AbortController();
  const end = (): void => ending.abort();
  // A second one ends the command where it stands; what it left is then taken out by the next.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, end);
  const qmp = await connectQmp(qmpPath);
  try {
    const isShown = process.stderr.isTTY;
    const { measureChanges } = await import('../estimate/measure-changes.ts');
    const { measured, leftOvers } = await measureChanges(qmp, {
      clock: nodeClock, forMs, signal: ending.signal,
      ...(isShown ? { onProgress: (passedMs: number) => printAside(`\r\u001b[2Kmeasured ${formatSpan(passedMs)} of ${formatSpan(forMs)}`) } : {}),
    });
    if (isShown) printAside('\r\u001b[2K');
    if (leftOvers > 0) printAside(`${leftOvers} dirty bitmaps of an earlier measurement, which was killed, were taken out\n`);
    if (measured === null) throw new UsageError('it was ended within the first second: nothing is known yet, and nothing is left in the guest');
    return measured;
  } finally {
    qmp.close();
  }
}

function within(text: string, minMs: number, maxMs: number, expected: string): number {
  const ms = readDurationMs(text);
  if (ms === undefined || ms < minMs || ms > maxMs) throw new InvalidArgumentError(`Expected ${expected}.`);
  return ms;
}

const readFor = (text: string): number => within(text, 1000, forMsMax, 'a duration from 1s to 7d, such as 10m');
const readPace = (text: string): number => within(text, rpoMsMin, rpoMsMax, 'a duration from 100ms to 1h, such as 5s');
const readWindow = (text: string): number => within(text, 0, 366 * 86_400_000, 'a duration of at most 366d, such as 4h');

function readLink(text: string): number {
  const rate = readRate(text);
  if (rate === undefined || rate === 0) throw new InvalidArgumentError('Expected a size a second, such as 10MiB.');
  return rate;
}
