#!/usr/bin/env node
/**
 * The one command, for both roles and for the operator. It reads the command line, hands over to console/commands/, and turns
 * whatever they throw into a message for a person (or JSON, where JSON was asked for) and an exit code (exit-code.ts).
 */
import { existsSync, realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command, CommanderError } from 'commander';
import { isFault } from '../journal/fault.ts';
import { chooseSource, chooseTarget, type ConfigOption } from './choose-config.ts';
import { addAuditCommand } from './commands/audit.ts';
import { addAlertTestCommand } from './commands/alert-test.ts';
import { addCompletionCommands } from './commands/completion.ts';
import { addDetachLogsCommand } from './commands/detach-logs.ts';
import { addDismissCommand } from './commands/dismiss.ts';
import { addDoctorCommand } from './commands/doctor.ts';
import { addDiscoveryCommands } from './commands/discover.ts';
import { addEstimateCommand } from './commands/estimate.ts';
import { addExplainCommand } from './commands/explain.ts';
import { addFailoverCommands } from './commands/failover.ts';
import { addGuestCommands } from './commands/guests.ts';
import { addLogCommand } from './commands/log.ts';
import { addTestFailoverCommand } from './commands/test-failover.ts';
import { addRehearseCommand } from './commands/rehearse.ts';
import { addLockCommands } from './commands/lock.ts';
import { addCertificateCommand, addInviteCommand, addPairingCommands } from './commands/pairings.ts';
import { addPointCommands } from './commands/points.ts';
import { addSupportBundleCommand } from './commands/support-bundle.ts';
import { addVerifyCommand } from './commands/verify.ts';
import { addStatusCommand } from './commands/status.ts';
import { addTokenCommands } from './commands/token.ts';
import { withConfig } from './commands/with-config.ts';
import { exitCodeOf, exitCodes, isSystemError, UsageError } from './exit-code.ts';
import { formatFault } from './render/fault.ts';
import { endQuietlyOnBrokenPipe, lookOf, printAside, printJson } from './terminal.ts';
import { readVersion } from './version.ts';

/** All commands with their options: what is run, and what the reference in docs/ is written from. */
export function commandLine(): Command {
  const program = new Command('afterimage')
    .description('Continuous protection for QEMU/KVM guests')
    .version(readVersion())
    .exitOverride()
    .showSuggestionAfterError()
    .addHelpText('after', `
Exit codes: ${exitCodes.ok} ok, ${exitCodes.failed} failed, ${exitCodes.usage} usage, ${exitCodes.unreachable} daemon unreachable, ${exitCodes.bug} bug, ${exitCodes.config} configuration refused.
With --json a failure is one object on stdout as well: {"error": {"code", "message", "facts"}}.`);

  const source = program.command('source').description('the role that protects the guests of this host');
  withConfig(source.command('run').description('run the source daemon in the foreground'))
    .action(async (option: ConfigOption) => run(await chooseSource(option, 'source run')));
  addDetachLogsCommand(source);
  addCertificateCommand(source, 'source');
  const target = program.command('target').description('the role that keeps replicas and boots them');
  withConfig(target.command('run').description('run the target daemon in the foreground'))
    .action(async (option: ConfigOption) => run(await chooseTarget(option, 'target run')));
  addInviteCommand(target);
  addCertificateCommand(target, 'target');

  addPairingCommands(program);
  addGuestCommands(program);
  addDiscoveryCommands(program);
  addStatusCommand(program);
  addPointCommands(program);
  addLockCommands(program);
  addVerifyCommand(program);
  addDismissCommand(program);
  addFailoverCommands(program);
  addTestFailoverCommand(program);
  addRehearseCommand(program);
  addAuditCommand(program);
  addAlertTestCommand(program);
  addTokenCommands(program);
  addDoctorCommand(program);
  addSupportBundleCommand(program);
  addEstimateCommand(program);
  addLogCommand(program);
  addExplainCommand(program);
  addCompletionCommands(program);
  return program;
}

async function run(config: Parameters<typeof import('./commands/run-role.ts').runRole>[0]): Promise<void> {
  // Daemons alone need the web server and the logger: the other commands start without them.
  const { runRole } = await import('./commands/run-role.ts');
  await runRole(config);
  // Whatever is left open (sockets of peers, timers) has no say any more.
  process.exit(exitCodes.ok);
}

/** The exit code of what was thrown; the message has been printed. */
function tell(error: unknown, isJson: boolean): number {
  if (error instanceof CommanderError) {
    // Commander has printed it. Help and version come as errors with code 0.
    return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  }
  if (error instanceof UsageError) printAside(`error: ${error.message}\n`);
  else if (isFault(error)) {
    if (isJson) printJson({ error: { code: error.code, message: error.message, facts: error.facts } });
    printAside(formatFault(lookOf(process.stderr), error));
  } else if (isSystemError(error)) printAside(`error: ${error.message}\n  you can          run \`afterimage doctor\`: it looks at folders, permissions, space and ports\n`);
  else printAside(`a bug in the command line: ${error instanceof Error ? error.stack ?? error.message : String(error)}\n`);
  return exitCodeOf(error);
}

/** Not when it is imported for its commands alone. */
function isProgram(): boolean {
  const started = process.argv[1];
  return started !== undefined && existsSync(started) && realpathSync(started) === fileURLToPath(import.meta.url);
}

if (isProgram()) {
  endQuietlyOnBrokenPipe();
  try {
    await commandLine().parseAsync(process.argv);
  } catch (error) {
    process.exitCode = tell(error, process.argv.includes('--json'));
  }
}
