/** What `npm pack` makes installs into an empty folder, with its packages from the registry or npm's cache, and runs. */
import { execFile } from 'node:child_process';
import { cp, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { BuiltCommand } from '../console/built-command.ts';
import { isLong } from '../support/extent.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '..', '..');

void t.test('packed, installed, run', { skip: isLong ? false : 'with --long', timeout: 300_000 }, async (t) => {
  const command = await BuiltCommand.build(t);
  const [tree, empty] = [join(t.testdir({ tree: {}, empty: {} }), 'tree'), join(t.testdirName, 'empty')];
  // As it is after a build, without one: the same files from where they were translated.
  for (const name of ['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'console/config/samples', 'journal/FORMAT.md', 'journal/PROTOCOL.md']) await cp(join(root, name), join(tree, name), { recursive: true });
  await mkdir(join(tree, 'dist'));
  for (const area of ['journal', 'host', 'qemu', 'daemon', 'replica-target', 'console']) await cp(join(command.folder, area), join(tree, 'dist', area), { recursive: true });
  const { stdout: packed } = await run('npm', ['pack', '--json', '--ignore-scripts'], { cwd: tree });
  const [{ filename, files }] = JSON.parse(packed) as [{ filename: string; files: { path: string }[] }];
  t.notOk(files.some(({ path }) => /\.ts$|^test\/|^scripts\/|\.map$/.test(path)), 'no sources, no tests');
  await run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', '--omit=dev', join(tree, filename)], { cwd: empty, timeout: 240_000 });
  const installed = async (...args: readonly string[]) => run(join(empty, 'node_modules/.bin/afterimage'), args, { cwd: empty }).catch((error: unknown) => error as { stdout: string; code: number });
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string };
  t.equal((await installed('--version')).stdout, `${version}\n`);
  t.match((await installed('explain', 'TERM_OLD')).stdout, /^TERM_OLD\n/);
  const { checks } = JSON.parse((await installed('doctor', '--json')).stdout) as { checks: unknown[] };
  t.ok(checks.length > 3, 'doctor looked around');
});
