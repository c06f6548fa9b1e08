/** `completion SHELL` and `manual`: what packages install beside the command, made from the texts of its own help. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Argument, type Command } from 'commander';
import { describeCommand } from '../render/command-tree.ts';
import { formatCompletion, shells, type Shell } from '../render/completion.ts';
import { manualPages } from '../render/manual-page.ts';
import { print } from '../terminal.ts';
import { readVersion } from '../version.ts';

export function addCompletionCommands(program: Command): void {
  program.command('completion').description('print a completion script for a shell: source <(afterimage completion bash)')
    .addArgument(new Argument('<shell>', 'whose').choices(shells))
    .action((shell: Shell) => print(formatCompletion(shell, describeCommand(program))));
  program.command('manual').description('write the manual pages into a folder, for man -l or MANPATH')
    .argument('<folder>', 'made when it is not there')
    .action(async (folder: string) => {
      await mkdir(folder, { recursive: true });
      for (const { fileName, text } of manualPages(describeCommand(program), readVersion())) await writeFile(join(folder, fileName), text);
    });
}
