/** `alert-test`: sends a test on every way out that the daemon's config names, and says what each answered. */
import type { Command } from 'commander';
import { chooseAny, type ConfigOption } from '../choose-config.ts';
import { SourceClient, TargetClient } from '../control-client.ts';
import { exitCodes } from '../exit-code.ts';
import { formatTable, tint } from '../render/look.ts';
import { printable } from '../render/units.ts';
import { lookOf, print, printAside, printJson } from '../terminal.ts';
import { withConfig } from './with-config.ts';

export function addAlertTestCommand(program: Command): void {
  withConfig(program.command('alert-test').description('send a test alert on every way out that the daemon’s config names, and say what each answered (exit code 1: one failed, or there is none)'))
    .option('--json', 'as JSON')
    .action(async (option: ConfigOption & { readonly json?: true }) => {
      const configs = await chooseAny(option);
      const results = (await Promise.all(configs.map(async ({ role, controlPath }) => {
        const client = role === 'source' ? new SourceClient(controlPath) : new TargetClient(controlPath);
        return (await client.testAlerts()).map((result) => ({ role, ...result }));
      }))).flat();
      const look = lookOf(process.stdout);
      if (option.json === true) printJson({ results });
      else if (results.length === 0) printAside('no way out for alerts is configured: see `alerts` in the config\n');
      else {
        print(formatTable(look, [{ head: 'ROLE' }, { head: 'CHANNEL' }, { head: 'RESULT' }, { head: 'TOOK', align: 'right' }, { head: 'ANSWER' }], results.map(({ role, channel, isDelivered, answer, tookMs }) => [
          role, printable(channel), tint(look, isDelivered ? 'good' : 'bad', isDelivered ? 'delivered' : 'failed'), `${tookMs} ms`, printable(answer),
        ])));
      }
      if (results.length === 0 || results.some(({ isDelivered }) => !isDelivered)) process.exitCode = exitCodes.failed;
    });
}
