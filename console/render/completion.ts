/**
 * Completion scripts for shells, made from the command line's own texts: which words may follow which command. They are whole, start no process when
 * a key is pressed, and take files where a value is due that nobody can list. Pure.
 */
import { everyCommand, type CommandFacts, type OptionFacts } from './command-tree.ts';

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

export function formatCompletion(shell: Shell, program: CommandFacts): string {
  switch (shell) {
    case 'bash': return forBash(program);
    case 'zsh': return forZsh(program);
    case 'fish': return forFish(program);
    default: return shell satisfies never;
  }
}

const named = ({ short, long }: OptionFacts): string[] => [long, short].filter((name) => name !== null);
const valued = (command: CommandFacts): string[] => command.options.filter(({ takesValue }) => takesValue).flatMap(named);
/** In single quotes, for any of the three: fish takes the backslash too. */
const quoted = (text: string): string => `'${text.replaceAll('\\', '').replaceAll("'", '’')}'`;
/** Below the program's own name; empty for the program. */
const below = ({ path }: CommandFacts): string => path.slice(1).join(' ');

/** What may be written where a word of the command line is due: its commands, else the choices of its arguments. */
function words(command: CommandFacts): { readonly word: string; readonly description: string }[] {
  return [
    ...command.commands.map(({ path, description }) => ({ word: path.at(-1)!, description })),
    ...command.arguments.flatMap(({ choices, description }) => choices.map((word) => ({ word, description }))),
  ];
}

/** `known command` cases that walk along the words typed so far, for bash and zsh alike: both know `case` and `[[ ]]`. */
function steps(program: CommandFacts): string {
  return everyCommand(program).flatMap((command) => command.commands.map(({ path }) => `      ${quoted(`${below(command)}|${path.at(-1)!}`)}) at=${quoted(path.slice(1).join(' '))} ;;`)).join('\n');
}

function forBash(program: CommandFacts): string {
  const cases = everyCommand(program).map((command) => `    ${quoted(below(command))}) words=${quoted(words(command).map(({ word }) => word).join(' '))} options=${quoted(command.options.flatMap(named).join(' '))} valued=${quoted(` ${valued(command).join(' ')} `)} ;;`);
  const choices = everyCommand(program).flatMap((command) => command.options.flatMap((option) => option.choices.length === 0 ? [] : named(option).map((name) => `      ${quoted(`${below(command)}|${name}`)}) COMPREPLY=($(compgen -W ${quoted(option.choices.join(' '))} -- "$current")); return ;;`)));
  return `# bash completion for afterimage, made by \`afterimage completion bash\`
_afterimage() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} at='' words='' options='' valued='' index
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    case "$at|\${COMP_WORDS[index]}" in
${steps(program)}
    esac
  done
  case $at in
${cases.join('\n')}
  esac
  if [[ $valued == *" $before "* ]]; then
    case "$at|$before" in
${choices.join('\n')}
      *) COMPREPLY=($(compgen -f -- "$current")); return ;;
    esac
  fi
  if [[ $current == -* ]]; then words=$options; fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o filenames -o bashdefault -F _afterimage afterimage
`;
}

function forZsh(program: CommandFacts): string {
  const pair = (word: string, description: string): string => quoted(`${word}:${description.replaceAll(':', ' –')}`);
  const cases = everyCommand(program).map((command) => [
    `    ${quoted(below(command))})`,
    `      words_=(${words(command).map(({ word, description }) => pair(word, description)).join(' ')})`,
    `      options_=(${command.options.flatMap((option) => named(option).map((name) => pair(name, option.description))).join(' ')})`,
    `      valued=(${valued(command).map(quoted).join(' ')}) ;;`,
  ].join('\n'));
  const choices = everyCommand(program).flatMap((command) => command.options.flatMap((option) => option.choices.length === 0 ? [] : named(option).map((name) => `      ${quoted(`${below(command)}|${name}`)}) compadd -- ${option.choices.map(quoted).join(' ')}; return ;;`)));
  return `#compdef afterimage
# zsh completion for afterimage, made by \`afterimage completion zsh\`
_afterimage() {
  local at='' index before=\${words[CURRENT-1]}
  local -a words_ options_ valued
  for ((index = 2; index < CURRENT; index++)); do
    case "$at|\${words[index]}" in
${steps(program)}
    esac
  done
  case $at in
${cases.join('\n')}
  esac
  if ((\${valued[(Ie)$before]})); then
    case "$at|$before" in
${choices.join('\n')}
      *) _files; return ;;
    esac
  fi
  if [[ \${words[CURRENT]} == -* ]]; then
    _describe -o option options_
  else
    _describe word words_ || _files
  fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _afterimage "$@"; else compdef _afterimage afterimage; fi
`;
}

function forFish(program: CommandFacts): string {
  const lines = everyCommand(program).flatMap((command) => {
    const here = `-n '__afterimage_at ${quoted(below(command)).replaceAll("'", '"')}'`;
    return [
      ...words(command).map(({ word, description }) => `complete -c afterimage ${here} -f -a ${quoted(word)} -d ${quoted(description)}`),
      ...command.options.map(({ short, long, takesValue, description, choices }) => [
        `complete -c afterimage ${here}`, ...(long === null ? [] : [`-l ${long.slice(2)}`]), ...(short === null ? [] : [`-s ${short.slice(1)}`]),
        ...(choices.length > 0 ? ['-x', `-a ${quoted(choices.join(' '))}`] : takesValue ? ['-r', '-F'] : ['-f']), `-d ${quoted(description)}`,
      ].join(' ')),
    ];
  });
  return `# fish completion for afterimage, made by \`afterimage completion fish\`
function __afterimage_at
    set -l at ''
    for word in (commandline -opc)[2..-1]
        switch "$at|$word"
${everyCommand(program).flatMap((command) => command.commands.map(({ path }) => `            case ${quoted(`${below(command)}|${path.at(-1)!}`)}\n                set at ${quoted(path.slice(1).join(' '))}`)).join('\n')}
        end
    end
    test "$at" = "$argv[1]"
end
${lines.join('\n')}
`;
}
