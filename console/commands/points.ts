/** Commands about points, at the target: what there is, where it can be read, and taking one away as images. */
import { resolve } from 'node:path';
import { Presets, SingleBar } from 'cli-progress';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { isFault } from '../../journal/fault.ts';
import { formatPoint } from '../../journal/point.ts';
import type { HeldPoint, PointDescription } from '../../replica-target/points/point-desk.ts';
import { readDurationMs } from '../config/quantity.ts';
import type { TargetClient } from '../control-client.ts';
import { exitCodes, UsageError } from '../exit-code.ts';
import { exportFormats, nbdsUri, nbdUri, reachableAddress, type ExportFormat } from '../export/export-plan.ts';
import type { ExportProgress } from '../export/write-export.ts';
import { openTarget, remotePlace, type DaemonOption } from '../open-client.ts';
import { formatChosenPoint, formatExport, formatTimeline } from '../render/timeline.ts';
import { printable } from '../render/units.ts';
import { lookOf, print, printAside, printJson } from '../terminal.ts';
import { readPoint } from './failover.ts';
import { readName } from './guests.ts';
import { withDaemon } from './with-config.ts';

/** An export's hold ends by itself soon after its command was killed, and is renewed long before, ms. */
const holdMs = 15 * 60_000;
const renewMs = 5 * 60_000;

interface AtOptions extends DaemonOption { readonly at: string; readonly json?: true }
interface ViewOptions extends AtOptions { readonly hold?: number }
interface ExportOptions extends AtOptions { readonly format: ExportFormat; readonly to: string }

export function addPointCommands(program: Command): void {
  withDaemon(program.command('points').description('the points of a guest that can be had (at the target)').argument('<guest>', 'its name', readName))
    .option('--all', 'every one, not the newest alone')
    .option('--json', 'as JSON, every one')
    .action(async (name: string, option: DaemonOption & { readonly all?: true; readonly json?: true }) => {
      const timeline = await (await client(option, 'points')).timeline(name);
      if (option.json === true) printJson(timeline);
      else print(formatTimeline(lookOf(process.stdout), timeline, option.all === true));
    });

  withPoint(program.command('view').description('where other tools can read a point, as NBD URIs (at the target)').argument('<guest>', 'its name', readName))
    .option('--hold <duration>', 'keep the point for so long, such as 2h', readHold)
    .option('--json', 'as JSON')
    .action(view);

  withPoint(program.command('export').description('write a point’s disks as images, verified (at the target)').argument('<guest>', 'its name', readName))
    .addOption(new Option('--format <format>', 'of the images').choices(exportFormats).makeOptionMandatory())
    .requiredOption('--to <folder>', 'where a folder GUEST-POINT-FORMAT is made', (path: string) => resolve(path))
    .option('--json', 'the result as JSON')
    .action(exportPoint);
}

function withPoint(command: Command): Command {
  return withDaemon(command).option('--at <point>', 'newest, before-suspicion, a number (7, 2.7), a time (10:42:07, 2026-11-23T10:42:07Z), -15m or a label', readPoint, 'newest');
}

function readHold(text: string): number {
  const ms = readDurationMs(text);
  if (ms === undefined || ms < 1000) throw new InvalidArgumentError('Expected a duration such as 2h.');
  return ms;
}

async function view(name: string, option: ViewOptions): Promise<void> {
  const target = await client(option, 'view');
  const description: PointDescription & Partial<HeldPoint> = option.hold === undefined
    ? await target.describePoint(name, option.at)
    : await target.holdPoint({ group: name, at: option.at, reason: `view of ${name}`, forMs: option.hold });
  const { nbd, address } = await target.report();
  const disks = description.disks.map(({ disk, name: diskName, sizeBytes, exportName }) => ({
    disk, name: diskName, sizeBytes, exportName, uri: nbdUri(nbd.socketPath, exportName), tlsUri: nbd.address === null ? null : nbdsUri(reachableAddress(nbd.address, address), exportName),
  }));
  if (option.json === true) return printJson({ group: description.group, groupId: description.groupId, point: description.point, disks, hold: description.hold ?? null });
  printAside(`${formatChosenPoint(lookOf(process.stderr), description)}\n`);
  for (const { uri, tlsUri } of disks) print(`${uri}\n${tlsUri === null ? '' : `${tlsUri}\n`}`);
}

async function exportPoint(name: string, option: ExportOptions): Promise<void> {
  if (await remotePlace(option) !== null) throw new UsageError('export reads the point through a socket of the target’s host: run it there');
  const target = await client(option, 'export');
  const { hold, ...description } = await target.holdPoint({ group: name, at: option.at, reason: `export of ${name}`, forMs: holdMs });
  const keeper = new HoldKeeper(target, description, hold.holdId);
  const abort = new AbortController();
  const stop = (signal: NodeJS.Signals): void => abort.abort(new Interruption(signal));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop);
  const bar = new ProgressBar();
  try {
    const { nbd } = await target.report();
    const { writeExport } = await import('../export/write-export.ts');
    const written = await writeExport(description, option.format, option.to, nbd.socketPath, abort.signal, (progress) => bar.show(progress));
    bar.end();
    if (option.json === true) printJson({ group: description.group, groupId: description.groupId, point: description.point, format: option.format, ...written });
    else print(formatExport(lookOf(process.stdout), description, written));
  } catch (error) {
    bar.end();
    if (!(error instanceof Interruption)) throw error;
    printAside(`${error.message}: nothing is left of the export; the same command writes it anew\n`);
    process.exitCode = exitCodes.failed;
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, stop);
    await keeper.end();
  }
}

class Interruption extends Error {
  constructor(signal: NodeJS.Signals) {
    super(`interrupted by ${signal}`);
  }
}

/** Keeps a point held by holds that each end soon, so that nothing is kept for a command that was killed. */
class HoldKeeper {
  readonly #target: TargetClient;
  readonly #description: PointDescription;
  readonly #timer: NodeJS.Timeout;
  #holdId: string;
  #renewing: Promise<void> = Promise.resolve();

  constructor(target: TargetClient, description: PointDescription, holdId: string) {
    this.#target = target;
    this.#description = description;
    this.#holdId = holdId;
    this.#timer = setInterval(() => { this.#renewing = this.#renew(); }, renewMs);
    this.#timer.unref();
  }

  async end(): Promise<void> {
    clearInterval(this.#timer);
    await this.#renewing;
    try {
      await this.#target.releasePoint(this.#description.groupId, this.#holdId);
    } catch (error) {
      // It ends by itself; the export stands or has failed regardless.
      if (!isFault(error)) throw error;
      printAside(`the hold of the point could not be released and ends by itself within ${holdMs / 60_000} minutes: ${error.message}\n`);
    }
  }

  async #renew(): Promise<void> {
    const { group, groupId, point } = this.#description;
    try {
      const { hold } = await this.#target.holdPoint({ group: groupId, at: formatPoint(point), reason: `export of ${group}`, forMs: holdMs });
      const before = this.#holdId;
      this.#holdId = hold.holdId;
      await this.#target.releasePoint(groupId, before);
    } catch (error) {
      // The target may be starting again: there are two more turns before the hold ends.
      if (!isFault(error)) throw error;
    }
  }
}

/** On a terminal; otherwise nothing is drawn. */
class ProgressBar {
  #bar: SingleBar | null = null;

  show({ disk, step, doneBytes, totalBytes }: ExportProgress): void {
    if (!process.stderr.isTTY) return;
    const text = `${printable(disk)} ${step === 'write' ? 'is written' : 'is verified'}`;
    if (this.#bar === null) {
      this.#bar = new SingleBar({ format: '{bar} {percentage} %  {text}', hideCursor: true, stream: process.stderr, clearOnComplete: true }, Presets.shades_classic);
      this.#bar.start(totalBytes, doneBytes, { text });
    } else this.#bar.update(doneBytes, { text });
  }

  end(): void {
    this.#bar?.stop();
    this.#bar = null;
  }
}

function client(option: DaemonOption, what: string): Promise<TargetClient> {
  return openTarget(option, what);
}
