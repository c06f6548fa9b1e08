/** `lock` and `forget`, at the target: that a point stays until a date, which nobody takes back, and the end of a group with all its points. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { formatPoint } from '../../journal/point.ts';
import { chooseTarget, type ConfigOption } from '../choose-config.ts';
import { readDurationMs } from '../config/quantity.ts';
import { lockMsMax } from '../../journal/limits.ts';
import { TargetClient } from '../control-client.ts';
import { UsageError } from '../exit-code.ts';
import { formatLocked } from '../render/timeline.ts';
import { formatInstant, printable } from '../render/units.ts';
import { lookOf, print, printAside, printJson } from '../terminal.ts';
import { isAgreed, readPoint } from './failover.ts';
import { readName } from './guests.ts';
import { withConfig } from './with-config.ts';

interface LockOptions extends ConfigOption { readonly at: string; readonly until?: number; readonly for?: number; readonly reason: string; readonly yes?: true; readonly json?: true }
interface ForgetOptions extends ConfigOption { readonly yes?: true; readonly json?: true }

export function addLockCommands(program: Command): void {
  withConfig(program.command('lock').description('keep a point until a date, whatever anybody asks, and whatever the clock says (at the target)').argument('<guest>', 'its name', readName))
    .requiredOption('--at <point>', 'newest, a number (7, 2.7), a time (10:42:07, 2026-11-23T10:42:07Z), -15m or a label', readPoint)
    .addOption(new Option('--until <date>', 'such as 2027-01-31 or 2027-01-31T12:00:00Z').argParser(readDate))
    .addOption(new Option('--for <duration>', 'such as 30d').argParser(readLockTime).conflicts('until'))
    .option('--reason <text>', 'what for', readReason, 'locked by an operator')
    .option('--yes', 'do not ask')
    .option('--json', 'the result as JSON')
    .action(lock);

  withConfig(program.command('forget').description('remove a guest’s replica and all its points, for good (at the target)').argument('<guest>', 'its name', readName))
    .option('--yes', 'do not ask')
    .option('--json', 'the result as JSON')
    .action(forget);
}

async function lock(name: string, option: LockOptions): Promise<void> {
  if (option.until === undefined && option.for === undefined) throw new UsageError('how long? --until DATE or --for DURATION');
  const target = await client(option, 'lock');
  // What is named by its age or as the newest is another point once somebody has read the question.
  const { group, point } = await target.describePoint(name, option.at);
  if (option.yes !== true) {
    const untilMs = option.until ?? (await target.report()).atMs + option.for!;
    printAside(`${printable(group)} at point ${formatPoint(point)}, cut ${formatInstant(point.cutAtMs)}, would be locked until ${formatInstant(untilMs)}. Nobody can end that sooner, and what it needs of the disk stays taken.\n`);
    if (!await isAgreed(`Lock point ${formatPoint(point)} of ${group}? Type yes: `)) return;
  }
  const locked = await target.lockPoint({ group: name, at: formatPoint(point), reason: option.reason, ...(option.until === undefined ? { forMs: option.for } : { untilMs: option.until }) });
  if (option.json === true) printJson(locked);
  else print(formatLocked(lookOf(process.stdout), locked));
}

async function forget(name: string, option: ForgetOptions): Promise<void> {
  const target = await client(option, 'forget');
  if (option.yes !== true) {
    const { points } = await target.timeline(name);
    printAside(`The replica of ${printable(name)} and its ${points.length} points would be removed from this target, for good.\n`);
    if (!await isAgreed(`Forget ${name}? Type yes: `)) return;
  }
  await target.forget(name);
  if (option.json === true) printJson({ forgotten: name });
  else print(`${printable(name)} is forgotten: its replica and its points are gone\n`);
}

/** Midnight UTC of a bare date; a time without a zone is this host's. */
function readDate(text: string): number {
  const ms = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?$/.test(text) ? Date.parse(text) : NaN;
  if (Number.isNaN(ms)) throw new InvalidArgumentError('Expected a date such as 2027-01-31 or 2027-01-31T12:00:00Z.');
  return ms;
}

function readLockTime(text: string): number {
  const ms = readDurationMs(text);
  if (ms === undefined || ms < 1000 || ms > lockMsMax) throw new InvalidArgumentError('Expected a duration from 1s to 3660d, such as 30d.');
  return ms;
}

function readReason(text: string): string {
  if (text === '' || text.length > 200 || /\p{Cc}/u.test(text)) throw new InvalidArgumentError('Expected a text of at most 200 characters in one line.');
  return text;
}

async function client(option: ConfigOption, what: string): Promise<TargetClient> {
  return new TargetClient((await chooseTarget(option, what)).controlPath);
}
