/** The command by which a person says that what was suspected of a guest is nothing. */
import type { Command } from 'commander';
import { formatPoint } from '../../journal/point.ts';
import { chooseTarget, type ConfigOption } from '../choose-config.ts';
import { TargetClient } from '../control-client.ts';
import { print, printJson } from '../terminal.ts';
import { readName } from './guests.ts';
import { withConfig } from './with-config.ts';

export function addDismissCommand(program: Command): void {
  withConfig(program.command('dismiss').description('end the suspicion that something encrypts a guest, after looking into it (at the target)').argument('<guest>', 'its name', readName))
    .option('--json', 'what was suspected, as JSON')
    .action(async (name: string, option: ConfigOption & { readonly json?: true }) => {
      const flag = await new TargetClient((await chooseTarget(option, 'dismiss')).controlPath).dismiss(name);
      if (option.json === true) printJson(flag);
      else print(`${name}: what was suspected since point ${formatPoint(flag.first)} is dismissed; it stays on record, and points from before it are held no longer\n`);
    });
}
