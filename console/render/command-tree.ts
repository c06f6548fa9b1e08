/** The command line as data, for whatever is made of the texts of `--help`: shell completions, manual pages. Pure. */
import type { Command } from 'commander';

export interface OptionFacts {
  /** `-c, --config <file>` */
  readonly flags: string;
  readonly short: string | null;
  readonly long: string | null;
  readonly takesValue: boolean;
  readonly description: string;
  readonly choices: readonly string[];
}

export interface CommandFacts {
  /** From the program's name on: `['afterimage', 'target', 'run']`. */
  readonly path: readonly string[];
  readonly description: string;
  readonly usage: string;
  readonly arguments: readonly { readonly name: string; readonly description: string; readonly choices: readonly string[] }[];
  readonly options: readonly OptionFacts[];
  readonly commands: readonly CommandFacts[];
}

/** Everything below `command` as well. */
export function describeCommand(command: Command, above: readonly string[] = []): CommandFacts {
  const help = command.createHelp();
  const path = [...above, command.name()];
  return {
    path,
    description: command.description(),
    usage: `${path.join(' ')} ${command.usage()}`,
    arguments: command.registeredArguments.map((argument) => ({ name: help.argumentTerm(argument), description: argument.description, choices: argument.argChoices ?? [] })),
    options: help.visibleOptions(command).map(({ flags, short, long, required, optional, description, argChoices }) => ({
      flags, short: short ?? null, long: long ?? null, takesValue: required || optional, description, choices: argChoices ?? [],
    })),
    // `help` is commander's own and says nothing that a page does not.
    commands: help.visibleCommands(command).filter((one) => one.name() !== 'help').map((one) => describeCommand(one, path)),
  };
}

/** The command itself and all below it. */
export function everyCommand(command: CommandFacts): CommandFacts[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}
