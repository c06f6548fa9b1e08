/** Releases before this one, built from their own sources in the repository, to be run against this one. Not a suite. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { BuiltCommand } from '../console/built-command.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../../', import.meta.url));

/** What a source and a target of this release have to understand: the commit that each release was made from. */
export const releases = { '0.1.0': 'b1412452cebf826af17686f17f50d54e35600261' } as const;
export type Release = keyof typeof releases;

/** Null when it can be built here; else why not: a copy without the repository's past has no past releases. */
export async function whyNoRelease(release: Release): Promise<string | null> {
  try {
    await run('git', ['-C', root, 'cat-file', '-e', `${releases[release]}^{commit}`]);
    return null;
  } catch (error) {
    return `the sources of ${release} are not here: ${(error as { stderr?: string }).stderr?.trim() ?? String(error)}`;
  }
}

/** Its files as they were, with the packages of this release. Nothing is written into the working tree but what was translated. */
export async function buildRelease(t: { teardown(after: () => unknown): unknown }, release: Release): Promise<BuiltCommand> {
  const tree = await mkdtemp(join(tmpdir(), 'af-past-'));
  t.teardown(() => rm(tree, { recursive: true, force: true }));
  await run('git', ['-C', root, 'archive', '--output', join(tree, 'tree.tar'), releases[release]]);
  await run('tar', ['-xf', join(tree, 'tree.tar'), '-C', tree]);
  return BuiltCommand.build(t, tree);
}
