/** `token`: who may use a daemon's API over the network, and for what. Not the pairing tokens of sources (`target invite`). */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { scopes, type Scope } from '../api/route.ts';
import { tokenForMsMax } from '../api/service-routes.ts';
import { chooseAny } from '../choose-config.ts';
import { readDurationMs } from '../config/quantity.ts';
import { ControlClient } from '../control-client.ts';
import { UsageError } from '../exit-code.ts';
import { remotePlace, type DaemonOption } from '../open-client.ts';
import { formatTokens } from '../render/tokens.ts';
import { lookOf, print, printAside, printJson } from '../terminal.ts';
import { readName } from './guests.ts';
import { withDaemon } from './with-config.ts';

interface CreateOptions extends DaemonOption { readonly scope: Scope; readonly for?: number; readonly json?: true }

export function addTokenCommands(program: Command): void {
  const token = program.command('token').description('operators’ tokens: who may use this daemon’s API over the network');

  withDaemon(token.command('create').description('make a token; it is shown this once').argument('<name>', 'whose it is, or what for', readName))
    .addOption(new Option('--scope <scope>', 'read: look; operate: tests, rehearsals, marks, holds as well; administer: all').choices(scopes).makeOptionMandatory())
    .option('--for <duration>', 'it ends by itself after this, such as 90d', readFor)
    .option('--json', 'as JSON')
    .action(async (name: string, option: CreateOptions) => {
      const made = await (await client(option)).createToken(name, option.scope, option.for ?? null);
      if (option.json === true) return printJson(made);
      // The token alone on stdout, so that it can go into a file.
      printAside(`${name} may ${made.scope}${made.expiresAtMs === null ? '' : ` until ${new Date(made.expiresAtMs).toISOString()}`}. Nobody can show it again:\n`);
      print(`${made.token}\n`);
    });

  withDaemon(token.command('list').description('the tokens that there are, without their secrets'))
    .option('--json', 'as JSON')
    .action(async (option: DaemonOption & { readonly json?: true }) => {
      const tokens = await (await client(option)).tokens();
      if (option.json === true) printJson(tokens);
      else print(formatTokens(lookOf(process.stdout), tokens, Date.now()));
    });

  withDaemon(token.command('revoke').description('refuse a token from now on, and end its streams').argument('<name>', 'of the token', readName))
    .action(async (name: string, option: DaemonOption) => {
      await (await client(option)).revokeToken(name);
      print(`${name} is refused from now on\n`);
    });
}

async function client(option: DaemonOption): Promise<ControlClient> {
  const remote = await remotePlace(option);
  if (remote !== null) return new ControlClient(remote);
  const configs = await chooseAny(option);
  if (configs.length > 1) throw new UsageError('this host plays both roles, and each has its own tokens: name one with --config');
  return new ControlClient(configs[0]!.controlPath);
}

function readFor(text: string): number {
  const ms = readDurationMs(text);
  if (ms === undefined || ms < 1000 || ms > tokenForMsMax) throw new InvalidArgumentError('Expected a duration from 1s to 3660d, such as 90d.');
  return ms;
}
