/** Commands of a target: failover and its end, seed-from. */
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { Fault } from '../../journal/fault.ts';
import { networkName } from '../../replica-target/failover/network-plan.ts';
import type { AccelChoice, FailoverRequest, NetworkChoice, TestNetwork } from '../../replica-target/operations.ts';
import { choosePoint, pinSelector } from '../../replica-target/points/point-selector.ts';
import type { GroupStoreReport } from '../../replica-target/store/store.ts';
import { decisionMsMax, failoverNetwork, shutdownMsMax } from '../control-api.ts';
import { readDurationMs } from '../config/quantity.ts';
import type { TargetClient } from '../control-client.ts';
import { exitCodes, UsageError } from '../exit-code.ts';
import { openTarget, type DaemonOption } from '../open-client.ts';
import { formatFailoverOutlook, formatFailoverResult, formatHome } from '../render/points.ts';
import { formatRefusals } from '../render/start-check.ts';
import { printable } from '../render/units.ts';
import { confirm, isInteractive, lookOf, print, printAside, printJson } from '../terminal.ts';
import { readName } from './guests.ts';
import { withDaemon } from './with-config.ts';

/** How long a guest may take to shut down unless told otherwise, ms: what service managers give their services, with a margin. */
const shutdownMsDefault = 120_000;
const readShutdownLimit = (text: string): number => readWithin(text, 1000, shutdownMsMax, 'a duration from 1s to 1h, such as 2m');
const readDecisionTime = (text: string): number => readWithin(text, 0, decisionMsMax, 'a duration of at most 31d, such as 30m');

interface FailoverOptions extends DaemonOption { readonly json?: true; readonly yes?: true; readonly at?: string; readonly wait?: true; readonly withoutWitness?: true; readonly planned?: true; readonly shutdownLimit?: number; readonly onLimit?: 'stop' | 'give-up'; readonly commitAfter?: number; readonly rollbackAfter?: number; readonly accel?: AccelChoice; readonly network?: NetworkChoice }

export function addFailoverCommands(program: Command): void {
  withDaemon(program.command('failover').description('boot a guest here, from its newest or an older point (at the target)').argument('<guest>', 'its name', readName))
    .option('--at <point>', 'newest, a number, a time (10:42:07, -15m) or a label', readPoint)
    .option('--planned', 'its source shuts the guest down first, and nothing is lost')
    .option('--shutdown-limit <duration>', 'with --planned: how long the guest may take to shut down (2m)', readShutdownLimit)
    .addOption(new Option('--on-limit <act>', 'with --planned: give the failover up then (the guest runs on), or stop the guest where it stands').choices(['give-up', 'stop']))
    .addOption(new Option('--commit-after <duration>', 'make it final by itself after this').argParser(readDecisionTime).conflicts('rollbackAfter'))
    .addOption(new Option('--rollback-after <duration>', 'undo it by itself after this, unless it is committed').argParser(readDecisionTime).conflicts('planned'))
    .option('--without-witness', 'the witness cannot be asked, and the guest runs nowhere else: you have seen to that')
    .option('--wait', 'until the data of an older point has come home')
    .option('--yes', 'do not ask')
    .option('--json', 'the result as JSON')
    .addOption(new Option('--accel <accel>', 'in place of the config’s').choices(['kvm', 'tcg', 'auto']))
    .addOption(new Option('--network <network>', 'in place of the config’s: none, user or bridge:NAME').argParser(readNetwork))
    .action(failover);

  withDaemon(program.command('failback').description('bring a guest home that was handed over from this host: its source shuts it down where it runs, and it boots here on its old disks')
    .argument('<guest>', 'its name', readName))
    .option('--shutdown-limit <duration>', 'how long the guest may take to shut down (2m)', readShutdownLimit)
    .addOption(new Option('--on-limit <act>', 'give it up then (the guest runs on where it is), or stop the guest where it stands').choices(['give-up', 'stop']))
    .option('--yes', 'do not ask')
    .option('--json', 'the result as JSON')
    .addOption(new Option('--accel <accel>', 'in place of the config’s').choices(['kvm', 'tcg', 'auto']))
    .addOption(new Option('--network <network>', 'in place of the config’s: none, user or bridge:NAME').argParser(readNetwork))
    .action((name: string, option: FailoverOptions) => failback(name, option));

  withDaemon(program.command('commit').description('make a failover final: the guest’s data comes home, and its changes are points of the group (at the target)').argument('<guest>', 'its name', readName))
    .option('--wait', 'until all has come home')
    .action(commit);

  withDaemon(program.command('failover-stop').description('end the guest that a failover started (at the target)').argument('<guest>', 'its name', readName))
    .option('--roll-back', 'throw away what it wrote here, and take changes from the source again')
    .option('--yes', 'do not ask')
    .action(failoverStop);

  withDaemon(program.command('seed-from').description('put an image that is here under a disk, to be compared by hash (at the target)')
    .argument('<guest>', 'its name', readName).argument('<disk>', 'number or name of the disk').argument('<image>', 'a raw image; it is not changed', (path) => resolve(path)))
    .action(seedFrom);
}

async function failover(name: string, option: FailoverOptions): Promise<void> {
  const target = await client(option, 'failover');
  if (option.yes !== true) {
    const report = await target.report();
    const point = option.at === undefined ? undefined : choosePoint(await target.points(name), option.at, report.atMs, name);
    printAside(`${formatFailoverOutlook(lookOf(process.stderr), find(report.groups, name), report.atMs, point, option.planned === true)}\n`);
    const look = lookOf(process.stderr);
    for (const line of formatRefusals(look, report.startChecks?.find(({ group }) => group === name))) printAside(`${line}\n`);
    if (!await isAgreed(`Fail over ${name}? Type yes: `)) return;
  }
  if (option.planned !== true && (option.shutdownLimit !== undefined || option.onLimit !== undefined)) throw new UsageError('--shutdown-limit and --on-limit belong to --planned');
  const result = await target.failover({
    group: name, at: option.at, accel: option.accel, network: option.network,
    ...(option.planned === true ? { planned: { shutdownMs: option.shutdownLimit ?? shutdownMsDefault, onLimit: option.onLimit ?? 'give-up' } } : {}),
    ...decisionOf(option), ...(option.withoutWitness === true ? { isWitnessed: false } : {}),
  });
  if (option.json !== true) print(formatFailoverResult(lookOf(process.stdout), result));
  if (option.wait === true && result.isComingHome) await awaitHome(target, name);
  if (option.json === true) printJson(result);
}

/** A planned failover to the host that the guest came from. */
async function failback(name: string, option: FailoverOptions): Promise<void> {
  const { groups } = await (await client(option, 'failback')).report();
  const group = groups.find((one) => one.name === name);
  if (group === undefined) throw new Fault('GROUP_UNKNOWN', `nothing of ${name} comes home to this host: its source over there must be paired with this target (\`afterimage pair\`), and follow the guest`, { group: name });
  if (!group.isReclaimed) printAside(`${name} has no old disks here that could be used: it will run on images of this target.\n`);
  await failover(name, { ...option, planned: true });
}

/** Throws InvalidArgumentError. */
export function readTestNetwork(text: string): TestNetwork {
  const network = networkName.safeParse(text);
  if (!network.success) throw new InvalidArgumentError('Expected none, user, isolated or bridge:NAME.');
  return network.data;
}

function readNetwork(text: string): NetworkChoice {
  const network = failoverNetwork.safeParse(text);
  if (!network.success) throw new InvalidArgumentError('Expected none, user or bridge:NAME.');
  return network.data;
}

function decisionOf({ commitAfter, rollbackAfter }: FailoverOptions): Pick<FailoverRequest, 'decision'> {
  if (commitAfter !== undefined) return { decision: { act: 'commit', afterMs: commitAfter } };
  return rollbackAfter === undefined ? {} : { decision: { act: 'roll-back', afterMs: rollbackAfter } };
}

async function commit(name: string, option: DaemonOption & { readonly wait?: true }): Promise<void> {
  const target = await client(option, 'commit');
  await target.commitFailover(name);
  if (option.wait === true) await awaitHome(target, name);
  print(`${name}: ${option.wait === true ? 'the failover is committed' : 'its data comes home; then the failover is committed'}\n`);
}

/** Pace of looking, ms. */
const homePaceMs = 500;

/** Shows how the data comes home, until it has. Ctrl-C ends the showing, not the coming. */
async function awaitHome(target: TargetClient, name: string): Promise<void> {
  const look = lookOf(process.stderr);
  for (;;) {
    const guest = (await target.report()).failovers.find(({ group }) => group === name);
    if (guest?.home == null || !guest.isRunning) throw new Fault('FAILOVER_STATE', `${name} does not run here any more, and its data has not all come home`, { group: name });
    const line = formatHome(look, guest.home);
    if (process.stderr.isTTY) printAside(`\r\u001b[2K${line}`);
    if (guest.home.state === 'home') {
      printAside(process.stderr.isTTY ? '\n' : `${line}\n`);
      return;
    }
    await delay(homePaceMs);
  }
}

async function failoverStop(name: string, option: DaemonOption & { readonly rollBack?: true; readonly yes?: true }): Promise<void> {
  const target = await client(option, 'failover-stop');
  const isRolledBack = option.rollBack === true;
  if (option.yes !== true) {
    printAside(`The guest ${name} that runs here is ended${isRolledBack ? ', and everything that it wrote here is thrown away' : '; what it wrote stays in its overlay'}.\n`);
    if (!await isAgreed(`End ${name}? Type yes: `)) return;
  }
  await target.stopFailover(name, isRolledBack);
  print(`${name} no longer runs here${isRolledBack ? ', and takes changes from its source again' : ''}\n`);
}

async function seedFrom(name: string, diskText: string, imagePath: string, option: DaemonOption): Promise<void> {
  const target = await client(option, 'seed-from');
  const { disks } = find((await target.report()).groups, name);
  const found = disks.find((disk) => disk.name === diskText) ?? disks.find(({ disk }) => String(disk) === diskText);
  if (found === undefined) throw new UsageError(`expected a disk of ${name}: ${disks.map(({ disk, name: known }) => `${disk} (${printable(known)})`).join(', ')}.`);
  await target.seedFrom(name, found.disk, imagePath);
  print(`${name}: disk ${found.disk} (${printable(found.name)}) will be compared with ${printable(imagePath)}, and only the difference sent\n`);
}

function readWithin(text: string, minMs: number, maxMs: number, expected: string): number {
  const ms = readDurationMs(text);
  if (ms === undefined || ms < minMs || ms > maxMs) throw new UsageError(`expected ${expected}, found ${JSON.stringify(text)}.`);
  return ms;
}

/** A time means the same instant to whoever acts on it later, and wherever. */
export function readPoint(text: string): string {
  return pinSelector(text, Date.now());
}

/** Fault of usage without a terminal. */
export async function isAgreed(question: string): Promise<boolean> {
  if (!isInteractive()) throw new UsageError('this asks a person, and there is no terminal: give --yes');
  if (await confirm(question)) return true;
  printAside('Nothing was done.\n');
  process.exitCode = exitCodes.failed;
  return false;
}

function find(groups: readonly GroupStoreReport[], name: string): GroupStoreReport {
  const found = groups.find((group) => group.name === name || group.groupId === name);
  if (found === undefined) throw new Fault('GROUP_UNKNOWN', `no group named ${name} is here${groups.length === 0 ? '' : `; there are ${groups.map((group) => printable(group.name)).join(', ')}`}`, { group: name });
  return found;
}

function client(option: DaemonOption, what: string): Promise<TargetClient> {
  return openTarget(option, what);
}
