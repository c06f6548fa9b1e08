/** Commands about who trusts whom: invite, pair, pairings, revoke, and another certificate for a source or a target. */
import { InvalidArgumentError, type Command } from 'commander';
import { chooseAny, chooseSource, chooseTarget, type ConfigOption } from '../choose-config.ts';
import { readDurationMs } from '../config/quantity.ts';
import { invitationMsMax, invitationMsMin } from '../control-api.ts';
import { SourceClient, TargetClient } from '../control-client.ts';
import { UsageError } from '../exit-code.ts';
import { formatRotation, formatSourcePairings, formatTargetPairings } from '../render/pairings.ts';
import { formatSpan, printable } from '../render/units.ts';
import { lookOf, print, printAside, printJson, readInput } from '../terminal.ts';
import { readName } from './guests.ts';
import { withConfig } from './with-config.ts';

/** Far above what any token has. */
const tokenBytesMax = 8192;

interface InviteOptions extends ConfigOption { readonly json?: true; readonly for?: number; readonly name?: string }

export function addInviteCommand(target: Command): void {
  for (const [name, options] of [['invite', {}], ['token', { hidden: true }]] as const) {
    withConfig(target.command(name, options).description('make a token that pairs one source with this target, once'))
      .option('--for <duration>', 'how long it can be used: 10s to 7d (15m)', readInvitationTime)
      .option('--name <source>', 'the source that it is for; needed for one that is known already and has another certificate', readName)
      .option('--json', 'token, address, fingerprint and end as JSON')
      .action(invite);
  }
}

async function invite(option: InviteOptions): Promise<void> {
  const made = await new TargetClient((await chooseTarget(option, 'target invite')).controlPath).invite({ forMs: option.for, name: option.name });
  if (option.json === true) return printJson(made);
  // The token alone on stdout, for scripts; what a person should know beside it.
  printAside(`for ${printable(made.address)}, fingerprint ${made.fingerprint}. Whoever has it can pair one source within ${formatSpan(made.expiresAtMs - Date.now())}. At the source: afterimage pair TOKEN\n`);
  print(`${made.token}\n`);
}

export function addPairingCommands(program: Command): void {
  withConfig(program.command('pair').description('pair this source with the target that made the token').argument('<token>', 'what `afterimage target invite` printed; `-`: taken from standard input, where no list of processes shows it'))
    .action(async (token: string, option: ConfigOption) => {
      const target = await new SourceClient((await chooseSource(option, 'pair')).controlPath).pair((token === '-' ? await readInput(tokenBytesMax) : token).trim());
      print(`paired with ${target.name} at ${printable(target.address)}, fingerprint ${target.fingerprint}\n`);
    });

  withConfig(program.command('pairings').description('list who is paired with the daemons of this host, and by which certificates'))
    .option('--json', 'as JSON: one object for each daemon')
    .action(pairings);

  withConfig(program.command('revoke').description('end a pairing at once: of a source with this target, or of a target with this source')
    .argument('[name]', 'its name, id, or the beginning of its fingerprint'))
    .option('--old-secrets', 'at a target: secrets of earlier releases let nobody in any more')
    .action(revoke);
}

async function pairings(option: ConfigOption & { readonly json?: true }): Promise<void> {
  const look = lookOf(process.stdout);
  const pages: string[] = [];
  for (const { role, controlPath } of await chooseAny(option)) {
    if (role === 'source') {
      const report = await new SourceClient(controlPath).pairings();
      if (option.json === true) printJson({ role, ...report });
      else pages.push(formatSourcePairings(look, report, Date.now()));
    } else {
      const report = await new TargetClient(controlPath).pairings();
      if (option.json === true) printJson({ role, ...report });
      else pages.push(formatTargetPairings(look, report, Date.now()));
    }
  }
  if (option.json !== true) print(pages.join('\n'));
}

async function revoke(name: string | undefined, option: ConfigOption & { readonly oldSecrets?: true }): Promise<void> {
  if ((name === undefined) !== (option.oldSecrets === true)) throw new UsageError('name what is to be revoked: a pairing, or --old-secrets');
  const configs = await chooseAny(option);
  if (configs.length > 1) throw new UsageError('this host plays both roles: name the daemon’s config with --config');
  const { role, controlPath } = configs[0]!;
  if (name === undefined) {
    if (role !== 'target') throw new UsageError('--old-secrets is asked of a target');
    const count = await new TargetClient(controlPath).revokeOldSecrets();
    return print(`${count} secrets of earlier releases let nobody in any more\n`);
  }
  const revoked = await (role === 'target' ? new TargetClient(controlPath) : new SourceClient(controlPath)).revoke(name);
  print(`the pairing with ${printable(revoked.name)} is revoked: its connection has ended, and ${role === 'target' ? 'nothing more of it is taken' : 'nothing more is sent to it'}\n`);
}

/** `source rotate` and `target rotate`. */
export function addCertificateCommand(parent: Command, role: 'source' | 'target'): void {
  withConfig(parent.command('rotate').description(`give this ${role} another key and certificate; who is paired with it is told over the connection, which goes on`))
    .option('--now', 'do not wait for those that cannot be reached: they must be paired anew')
    .option('--json', 'as JSON')
    .action(async (option: ConfigOption & { readonly now?: true; readonly json?: true }) => {
      const isNow = option.now === true;
      const report = role === 'source'
        ? await new SourceClient((await chooseSource(option, 'source rotate')).controlPath).rotate(isNow)
        : await new TargetClient((await chooseTarget(option, 'target rotate')).controlPath).rotate(isNow);
      if (option.json === true) printJson(report);
      else print(formatRotation(report, role));
    });
}

function readInvitationTime(text: string): number {
  const ms = readDurationMs(text);
  if (ms === undefined || ms < invitationMsMin || ms > invitationMsMax) throw new InvalidArgumentError('Expected a duration from 10s to 7d, such as 15m.');
  return ms;
}
