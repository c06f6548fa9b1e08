/** The command that checks what a target has stored of a guest. */
import { Option, type Command } from 'commander';
import { exitCodes } from '../exit-code.ts';
import { openTarget, type DaemonOption } from '../open-client.ts';
import { formatVerification } from '../render/verification.ts';
import { lookOf, print, printJson } from '../terminal.ts';
import { readPoint } from './failover.ts';
import { readName } from './guests.ts';
import { withDaemon } from './with-config.ts';

export function addVerifyCommand(program: Command): void {
  withDaemon(program.command('verify').description('check all that is stored of a guest against its checksums (at the target)').argument('<guest>', 'its name', readName))
    .addOption(new Option('--at <point>', 'read this point whole as well: newest, a number, a time, -15m or a label').argParser(readPoint))
    .option('--json', 'what was found, as JSON')
    .action(async (name: string, option: DaemonOption & { readonly at?: string; readonly json?: true }) => {
      const target = await openTarget(option, 'verify');
      const verified = await target.verify(name, option.at);
      if (option.json === true) printJson(verified);
      else print(formatVerification(lookOf(process.stdout), name, verified));
      if (verified.findings.length > 0) process.exitCode = exitCodes.failed;
    });
}
