/** Manual pages (man(7)) from the texts of `--help`: one for the program, one for each of its commands. Pure; renders the same for the same texts. */
import { defaultConfigPath } from '../config/config.ts';
import { exitCodes } from '../exit-code.ts';
import type { CommandFacts } from './command-tree.ts';

export interface ManualPage {
  /** `afterimage-target-run.1` */
  readonly fileName: string;
  readonly text: string;
}

/** `afterimage`, and below it each command and each command of a command. */
export function manualPages(program: CommandFacts, version: string): ManualPage[] {
  const page = (command: CommandFacts): ManualPage => ({ fileName: `${nameOf(command)}.1`, text: formatPage(command, program, version) });
  const all = (command: CommandFacts): ManualPage[] => [page(command), ...command.commands.flatMap(all)];
  return all(program);
}

const nameOf = ({ path }: CommandFacts): string => path.join('-');
/** A backslash, a dash that is one (not a hyphen), and a dot or a quote at the start of a line mean something to troff. */
const escaped = (text: string): string => text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll(/^([.'])/gm, '\\&$1');
const bold = (text: string): string => `\\fB${escaped(text)}\\fR`;

function formatPage(command: CommandFacts, program: CommandFacts, version: string): string {
  const isProgram = command === program;
  const others = isProgram ? [] : [program];
  const lines = [
    `.TH ${nameOf(command).toUpperCase().replaceAll('-', '\\-')} 1 "" "afterimage ${escaped(version)}" "Afterimage"`,
    '.SH NAME', `${escaped(nameOf(command))} \\- ${escaped(command.description)}`,
    '.SH SYNOPSIS', bold(command.usage),
    ...section('ARGUMENTS', command.arguments.map(({ name, description, choices }) => [name, [description, ...(choices.length === 0 ? [] : [`one of ${choices.join(', ')}`])].filter((text) => text !== '').join('; ')])),
    ...section('OPTIONS', command.options.map(({ flags, description, choices }) => [flags, [description, ...(choices.length === 0 ? [] : [`one of ${choices.join(', ')}`])].join('; ')])),
    ...section('COMMANDS', command.commands.map(({ path, description }) => [path.slice(1).join(' '), description])),
    ...(isProgram ? programSections() : []),
    ...(isProgram ? seeAlso(command.commands) : seeAlso([...others, ...command.commands])),
  ];
  return `${lines.join('\n')}\n`;
}

function section(title: string, rows: readonly (readonly [string, string])[]): string[] {
  return rows.length === 0 ? [] : [`.SH ${title}`, ...rows.flatMap(([term, description]) => ['.TP', bold(term), escaped(description)])];
}

function seeAlso(commands: readonly CommandFacts[]): string[] {
  if (commands.length === 0) return [];
  return ['.SH SEE ALSO', ...commands.map((command, index) => `.BR ${escaped(nameOf(command))} (1)${index === commands.length - 1 ? '' : ','}`)];
}

function programSections(): string[] {
  const codes = { ok: 'well', failed: 'failed', usage: 'used wrongly', unreachable: 'the daemon is unreachable', bug: 'a bug', config: 'the configuration is refused' } as const satisfies Record<keyof typeof exitCodes, string>;
  return [
    ...section('EXIT STATUS', Object.entries(codes).map(([name, meaning]) => [String(exitCodes[name as keyof typeof codes]), meaning])),
    ...section('FILES', [[defaultConfigPath('source'), 'the source of this host'], [defaultConfigPath('target'), 'the target of this host']]),
    ...section('ENVIRONMENT', [['AFTERIMAGE_CONFIG', 'the config, where --config is not given'], ['NO_COLOR', 'no colours, when it is not empty']]),
  ];
}
