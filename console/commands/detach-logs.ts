/** `source detach-logs`: what a service manager runs when the source has stopped, however it did. */
import type { Command } from 'commander';
import { chooseSource, type ConfigOption } from '../choose-config.ts';
import { exitCodes } from '../exit-code.ts';
import { print } from '../terminal.ts';
import { withConfig } from './with-config.ts';

export function addDetachLogsCommand(source: Command): void {
  withConfig(source.command('detach-logs').description('without a daemon: take the write logs out of all protected guests; for ExecStopPost'))
    .action(async (option: ConfigOption) => {
      const config = await chooseSource(option, 'source detach-logs');
      const { detachWriteLogs } = await import('../../daemon/detach-logs.ts');
      const guests = await detachWriteLogs(config.options.dataFolder);
      for (const { name, outcome, detail } of guests) {
        if (outcome === 'out') print(`${name}: no write log is in its path\n`);
        else if (outcome === 'gone') print(`${name}: does not run\n`);
        else print(`${name}: its write logs could not be taken out: ${detail}\n`);
      }
      if (guests.some(({ outcome }) => outcome === 'failed')) process.exitCode = exitCodes.failed;
    });
}
