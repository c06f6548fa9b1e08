/** `test-failover`: a guest booted here from a point with no way out, beside a protection that goes on; and its end. */
import { Option, type Command } from 'commander';
import type { AccelChoice, TestNetwork } from '../../replica-target/operations.ts';
import { readDurationMs, readSizeBytes } from '../config/quantity.ts';
import { testLimitMsMax } from '../control-api.ts';
import { UsageError } from '../exit-code.ts';
import { openTarget, type DaemonOption } from '../open-client.ts';
import { formatTestResult } from '../render/points.ts';
import { lookOf, print, printJson } from '../terminal.ts';
import { readPoint, readTestNetwork } from './failover.ts';
import { readName } from './guests.ts';
import { withDaemon } from './with-config.ts';

interface TestOptions extends DaemonOption {
  readonly at?: string;
  readonly for?: number;
  readonly budget?: number;
  readonly stop?: true;
  readonly json?: true;
  readonly accel?: AccelChoice;
  readonly network?: TestNetwork;
}

export function addTestFailoverCommand(program: Command): void {
  withDaemon(program.command('test-failover').description('boot a guest here with no way out, beside its protection (at the target)').argument('<guest>', 'its name', readName))
    .option('--at <point>', 'newest (the default), a number, a time (10:42:07, -15m) or a label', readPoint)
    .option('--for <duration>', 'after this it ends and is removed (default 1h)', readLimitMs)
    .option('--budget <size>', 'what it may write in all (default: a quarter of what can be spared)', readBudgetBytes)
    .option('--stop', 'end the test that runs, and remove every trace of it')
    .option('--json', 'the result as JSON')
    .addOption(new Option('--accel <accel>', 'in place of the config’s').choices(['kvm', 'tcg', 'auto']))
    .addOption(new Option('--network <network>', 'none: no cable; isolated: a network that leads nowhere; bridge:NAME; user (default: the config’s, or none)').argParser(readTestNetwork))
    .action(testFailover);
}

async function testFailover(name: string, option: TestOptions): Promise<void> {
  const target = await openTarget(option, 'test-failover');
  if (option.stop === true) {
    if (option.at !== undefined || option.for !== undefined || option.budget !== undefined || option.network !== undefined || option.accel !== undefined) throw new UsageError('--stop ends a test: it takes no options of one that begins');
    await target.stopTest(name);
    if (option.json === true) printJson({});
    else print(`the test of ${name} has ended, and nothing of it is left\n`);
    return;
  }
  const result = await target.testFailover({ group: name, at: option.at, limitMs: option.for, budgetBytes: option.budget, network: option.network, accel: option.accel });
  if (option.json === true) printJson(result);
  else print(formatTestResult(lookOf(process.stdout), result, Date.now()));
}

function readLimitMs(text: string): number {
  const limitMs = readDurationMs(text);
  if (limitMs === undefined || limitMs < 1000 || limitMs > testLimitMsMax) throw new UsageError(`expected a duration from 1s to 24h, such as 30m, found ${JSON.stringify(text)}.`);
  return limitMs;
}

function readBudgetBytes(text: string): number {
  const sizeBytes = readSizeBytes(text);
  if (sizeBytes === undefined) throw new UsageError(`expected a size with its unit, such as 4GiB, found ${JSON.stringify(text)}.`);
  return sizeBytes;
}
