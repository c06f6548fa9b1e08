/** Every `afterimage …` in a code block of the documents is a command that exists, with those options and arguments; every code and link in them leads somewhere. */
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Command, Option } from 'commander';
import t from 'tap';
import { commandLine } from '../../console/main.ts';
import { faultTable } from '../../journal/fault.ts';
import { shellLines, wordsOf } from './shell-lines.ts';

const root = join(import.meta.dirname, '../..');
const program = commandLine();
const documents = ['README.md', ...(await readdir(join(root, 'docs'))).filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)];

/** What a person would be told; null: it would be taken. */
function refusalOf(words: readonly string[]): string | null {
  let command: Command = program;
  let at = 0;
  for (; at < words.length; at += 1) {
    const next = command.commands.find((one) => one.name() === words[at] || one.aliases().includes(words[at]!));
    if (next === undefined) break;
    command = next;
  }
  if (at === 0) return words[0]?.startsWith('-') === true ? null : `no command ${words[0]}`;
  const options = [...ancestors(command)].flatMap((one) => one.options);
  let given = 0;
  for (; at < words.length; at += 1) {
    const word = words[at]!;
    if (!/^--?[a-z]/.test(word) || /^-\d/.test(word)) given += 1;
    else {
      const [flag, value] = word.split('=', 2);
      const option = options.find(({ long, short }) => long === flag || short === flag);
      if (option === undefined) return word === '--help' ? null : `${command.name()} has no ${word}`;
      if (option.required && value === undefined) at = valuesEnd(words, at, option);
      if (option.argChoices !== undefined && !/^[A-Z]+$/.test(words[at]!) && !option.argChoices.includes(value ?? words[at]!)) return `${word}: not one of ${option.argChoices.join(', ')}`;
    }
  }
  const wanted = command.registeredArguments;
  if (given < wanted.filter(({ required }) => required).length) return `${command.name()} needs ${wanted.map((one) => one.name()).join(', ')}`;
  return given > wanted.length ? `${command.name()} takes no more than ${wanted.length} arguments` : null;
}

/** Index of the last word that is the option's. */
function valuesEnd(words: readonly string[], at: number, { variadic }: Option): number {
  let end = at + 1;
  while (variadic && end + 1 < words.length && !words[end + 1]!.startsWith('-')) end += 1;
  return end;
}

function* ancestors(command: Command): Generator<Command> {
  for (let one: Command | null = command; one !== null; one = one.parent) yield one;
}

for (const path of documents) {
  t.test(path, async (t) => {
    const text = await readFile(join(root, path), 'utf8');
    const refusals = shellLines(text).flatMap(({ line, text: shown, words }) => {
      const refusal = refusalOf(words);
      return refusal === null ? [] : [`${path}:${line}: ${refusal}: ${shown.trim()}`];
    });
    t.same(refusals, [], 'commands');
    const codes = [...text.matchAll(/`([A-Z]{2,}(?:_[A-Z]+)+)`/g)].map(([, code]) => code!).filter((code) => !code.startsWith('AFTERIMAGE_'));
    t.same(codes.filter((code) => !Object.hasOwn(faultTable, code)), [], 'codes');
    const links = [...text.matchAll(/\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)/g)].map(([, link]) => link!);
    t.same(links.filter((link) => !existsSync(join(root, dirname(path), link))), [], 'links');
  });
}

t.test('what is looked for would be found', (t) => {
  t.equal(refusalOf(['failover', 'web1', '--at', '-15m', '--yes']), null);
  t.equal(refusalOf(['failover', 'web1', '--format', 'raw']), 'failover has no --format');
  t.equal(refusalOf(['failovers', 'web1']), 'no command failovers');
  t.equal(refusalOf(['failover']), 'failover needs guest');
  t.equal(refusalOf(['failover', 'web1', 'web2']), 'failover takes no more than 1 arguments');
  t.equal(refusalOf(['target', 'run', '--config', 'x']), null);
  t.equal(refusalOf(['capture', 'web1', '--rate']), 'capture has no --rate');
  t.match(refusalOf(['export', 'web1', '--format', 'tar', '--to', 'x']), /^--format: not one of raw/);
  t.equal(refusalOf(['protect', 'shop', '--guest', 'a=b', 'c=d', '--rpo', '5s']), null);
  t.same(wordsOf('mark web1 --label "before upgrade"   # a point | of'), ['mark', 'web1', '--label', 'before upgrade']);
  t.same(shellLines('afterimage a\n```\n  $ afterimage pair $(afterimage target token)   # x\nelse\ntarget# afterimage b > c\n```\n').map(({ line, words }) => [line, ...words]), [[3, 'pair', 'VALUE'], [3, 'target', 'token'], [5, 'b']]);
  t.end();
});
