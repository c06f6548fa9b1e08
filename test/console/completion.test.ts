/** Completion scripts in the shells that they are for, and manual pages through man: what the command line has, they have. */
import { execFile } from 'node:child_process';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { BuiltCommand } from './built-command.ts';

const run = promisify(execFile);
const command = await BuiltCommand.build(t);

async function scriptFor(t: Test, shell: string): Promise<string> {
  const { code, stdout } = await command.run(['completion', shell]);
  if (code !== 0) throw new Error(`completion ${shell}: ${code}`);
  const path = join(t.testdir({}), `script.${shell}`);
  await writeFile(path, stdout);
  return path;
}

/** A line of the command, its last word being the one that is completed, and what is offered. */
const asked: readonly (readonly [readonly string[], readonly string[]])[] = [
  [['afterimage', 'ta'], ['target']],
  [['afterimage', 'target', ''], ['invite', 'rotate', 'run']],
  [['afterimage', 'protect', 'web', '--cap'], ['--capture']],
  [['afterimage', 'protect', 'web', '--capture', ''], ['auto', 'cbt', 'writelog']],
  [['afterimage', 'completion', ''], ['bash', 'fish', 'zsh']],
  // Not the word of another command.
  [['afterimage', 'protect', 'source', '--sta'], []],
];
const sorted = (text: string): string[] => text.split(/\s+/).filter((word) => word !== '').sort();
const quote = (words: readonly string[]): string => words.map((word) => `'${word}'`).join(' ');

t.test('bash', async (t) => {
  const path = await scriptFor(t, 'bash');
  for (const [line, offered] of asked) {
    const { stdout } = await run('bash', ['-c', `source ${path}; COMP_WORDS=(${quote(line)}); COMP_CWORD=${line.length - 1}; _afterimage; echo "\${COMPREPLY[@]}"`]);
    t.same(sorted(stdout), offered, line.join(' '));
  }
});

t.test('zsh', async (t) => {
  const path = await scriptFor(t, 'zsh');
  // The line editor is not there: what would be handed to it is printed, as far as it begins with what was typed.
  const stand = 'compdef() { :; }; _files() { :; }; compadd() { shift; print -l -- $@; }; _describe() { local n=${@[-1]}; print -l -- ${(P)n%%:*}; }';
  for (const [line, offered] of asked) {
    const { stdout } = await run('zsh', ['-fc', `${stand}; source ${path}; words=(${quote(line)}); CURRENT=${line.length}; _afterimage`]);
    t.same(sorted(stdout).filter((word) => word.startsWith(line.at(-1)!)), offered, line.join(' '));
  }
});

t.test('fish', async (t) => {
  const path = await scriptFor(t, 'fish');
  for (const [line, offered] of asked) {
    const { stdout } = await run('fish', ['-N', '--private', '-c', `source ${path}; complete -C '${line.join(' ')}'`]);
    t.same(sorted(stdout.split('\n').map((one) => one.split('\t')[0]).join(' ')), offered, line.join(' '));
  }
});

t.test('each command has its page, and man has nothing to say against it', async (t) => {
  const folder = t.testdir({});
  t.match(await command.run(['manual', folder]), { code: 0, stdout: '' });
  const pages = await readdir(folder);
  const { stdout: help } = await command.run(['--help']);
  const commands = [...help.slice(help.indexOf('Commands:')).matchAll(/^ {2}([a-z-]+)/gm)].map(([, name]) => name!).filter((name) => name !== 'help');
  t.ok(commands.length > 20);
  for (const page of ['afterimage.1', 'afterimage-target-invite.1', ...commands.map((name) => `afterimage-${name}.1`)]) t.ok(pages.includes(page), page);
  const all = await Promise.all(pages.map((page) => run('man', ['--warnings', '-E', 'UTF-8', '-l', '-Tutf8', join(folder, page)], { env: { ...process.env, MANWIDTH: '100', MAN_KEEP_FORMATTING: '0' } })));
  for (const [index, { stdout, stderr }] of all.entries()) {
    t.equal(stderr, '', pages[index]!);
    t.match(stdout.replaceAll(/.\u0008|\u001b\[[0-9;]*m/g, ''), /NAME\n +afterimage/, 'it has a name');
  }
  const text = all[pages.indexOf('afterimage-protect.1')]!.stdout.replaceAll(/.\u0008|\u001b\[[0-9;]*m/g, '');
  t.match(text, /--capture <kind>\n +how\s+changes\s+are\s+followed/);
  t.match(all[pages.indexOf('afterimage.1')]!.stdout, /78[^]*the configuration is refused/);
});
