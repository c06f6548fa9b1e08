/** `plan`: a failover before it happens. `rehearse`: a test failover whose guests have to become ready, with a report. */
import { Option, type Command } from 'commander';
import type { AccelChoice, TestNetwork } from '../../replica-target/operations.ts';
import { exitCodes } from '../exit-code.ts';
import { openTarget, type DaemonOption } from '../open-client.ts';
import { formatRunbook } from '../render/runbook.ts';
import { formatRehearsal } from '../render/rehearsal.ts';
import { lookOf, print, printJson } from '../terminal.ts';
import { readPoint, readTestNetwork } from './failover.ts';
import { readName } from './guests.ts';
import { withDaemon } from './with-config.ts';

interface PlanOptions extends DaemonOption { readonly at?: string; readonly planned?: true; readonly json?: true }

interface RehearseOptions extends DaemonOption {
  readonly at?: string;
  readonly keep?: true;
  readonly json?: true;
  readonly accel?: AccelChoice;
  readonly network?: TestNetwork;
}

export function addRehearseCommand(program: Command): void {
  withDaemon(program.command('plan').description('say what a failover would do, step by step, what would be lost and how long it should take; does nothing (at the target)').argument('<guest>', 'its name, or its group’s', readName))
    .option('--at <point>', 'newest (the default), a number, a time (10:42:07, -15m) or a label', readPoint)
    .option('--planned', 'with the source at hand')
    .option('--json', 'as JSON')
    .action(async (name: string, option: PlanOptions) => {
      const runbook = await (await openTarget(option, 'plan')).plan({ group: name, at: option.at, isPlanned: option.planned });
      if (option.json === true) printJson(runbook);
      else print(formatRunbook(lookOf(process.stdout), runbook));
    });

  withDaemon(program.command('rehearse').description('boot a point here as in earnest, beside its protection: whether it becomes ready, with a report (at the target; exit code 1: it did not)').argument('<guest>', 'its name, or its group’s', readName))
    .option('--at <point>', 'newest (the default), a number, a time (10:42:07, -15m) or a label', readPoint)
    .option('--keep', 'let it run on afterwards, as a test failover')
    .option('--json', 'the report as JSON')
    .addOption(new Option('--accel <accel>', 'in place of the config’s').choices(['kvm', 'tcg', 'auto']))
    .addOption(new Option('--network <network>', 'none: no cable; isolated: a network that leads nowhere; bridge:NAME; user (default: the config’s, or none)').argParser(readTestNetwork))
    .action(async (name: string, option: RehearseOptions) => {
      const target = await openTarget(option, 'rehearse');
      const report = await target.rehearse({ group: name, at: option.at, isKept: option.keep, network: option.network, accel: option.accel });
      if (option.json === true) printJson(report);
      else print(formatRehearsal(lookOf(process.stdout), report));
      if (!report.isPassed) process.exitCode = exitCodes.failed;
    });
}
