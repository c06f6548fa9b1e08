/** The commands, with arguments and options, as commander has them. */
import type { Command } from 'commander';
import { commandLine } from '../../console/main.ts';
import { madeFrom } from './pages.ts';

export function commandPage(): string {
  const program = commandLine();
  return [
    '# Commands', '', madeFrom('the command line’s own tree'), '',
    'Each command says the same of itself with `--help`. `-c, --config FILE` names the config of the daemon that is meant; without it and without',
    '`AFTERIMAGE_CONFIG` it is `/etc/afterimage/source.yaml` or `target.yaml`, whichever the command is for. With `--json` a failure is one object on stdout as well:',
    '`{"error": {"code", "message", "facts"}}`.', '',
    ...commandsOf(program).flatMap(describe),
  ].join('\n');
}

/** Those that do something, in the order of their names. */
export function commandsOf(command: Command): Command[] {
  const help = command.createHelp();
  const own = help.visibleCommands(command).filter((one) => one.name() !== 'help');
  return own.sort((a, b) => (pathOf(a) < pathOf(b) ? -1 : 1)).flatMap((one) => (isGroup(one) ? commandsOf(one) : [one, ...commandsOf(one)]));
}

/** One that only has others. */
function isGroup(command: Command): boolean {
  return command.commands.length > 0 && command.options.length === 0 && command.registeredArguments.length === 0;
}

export function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

function describe(command: Command): string[] {
  const help = command.createHelp();
  const { registeredArguments } = command;
  const usage = registeredArguments.map((argument) => help.argumentTerm(argument)).map((term, at) => {
    const argument = registeredArguments[at]!;
    const name = argument.variadic ? `${term}...` : term;
    return argument.required ? `<${name}>` : `[${name}]`;
  });
  const items = [
    ...registeredArguments.map((argument) => `- \`${argument.name()}\`: ${help.argumentDescription(argument)}`),
    ...help.visibleOptions(command).filter(({ long }) => long !== '--help' && long !== '--config').map((option) => `- \`${option.flags}\`: ${help.optionDescription(option)}${option.mandatory ? ' (must be given)' : ''}`),
  ];
  return [`## \`${[pathOf(command), ...usage].join(' ')}\``, '', `${capital(command.description())}.`, '', ...items, ...(items.length === 0 ? [] : [''])];
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
