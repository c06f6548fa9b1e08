/**
 * What `npm pack` makes installs into an empty folder, with its packages from the registry or npm's cache, and runs there: the command with all that it writes, and a target with
 * its dashboard, which a source installed in the same way pairs with.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { SourceClient, TargetClient } from '../../console/control-client.ts';
import { BuiltCommand } from '../console/built-command.ts';
import { isLong } from '../support/extent.ts';
import { waitFor } from '../support/wait.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '..', '..');

interface Packed { readonly filename: string; readonly files: readonly { readonly path: string }[] }

/** As `npm pack` makes it after a build, from a tree with the same files and no more than that. */
async function pack(t: Test, folder: string): Promise<Packed> {
  const command = await BuiltCommand.build(t);
  const { files } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { files: string[] };
  const shipped = files.filter((path) => !path.startsWith('dist/')).map((path) => path.replace(/\/\*.*$/, ''));
  for (const name of ['package.json', 'README.md', 'LICENSE', ...shipped]) await cp(join(root, name), join(folder, name), { recursive: true });
  await mkdir(join(folder, 'dist'));
  for (const area of ['journal', 'host', 'qemu', 'daemon', 'replica-target', 'console']) await cp(join(command.folder, area), join(folder, 'dist', area), { recursive: true });
  await run(process.execPath, [join(root, 'scripts/dashboard-build.mjs'), join(folder, 'dist/console/dashboard/assets')]);
  return (JSON.parse((await run('npm', ['pack', '--json', '--ignore-scripts'], { cwd: folder })).stdout) as [Packed])[0];
}

function startRole(t: Test, program: string, role: 'source' | 'target', configPath: string): void {
  const child = spawn(program, [role, 'run', '--config', configPath], { stdio: ['ignore', 'ignore', 'inherit'], cwd: '/' });
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGTERM');
    await once(child, 'close');
  });
}

/** Over the control socket, as a browser would over TLS. */
function get(socketPath: string, path: string): Promise<{ status: number; type: string; text: string }> {
  return new Promise((resolve, reject) => {
    request({ socketPath, path }, (reply) => {
      const chunks: Buffer[] = [];
      reply.on('data', (chunk: Buffer) => chunks.push(chunk));
      reply.on('end', () => resolve({ status: reply.statusCode!, type: reply.headers['content-type'] ?? '', text: Buffer.concat(chunks).toString() }));
    }).on('error', reject).end();
  });
}

void t.test('packed, installed, run', { skip: isLong ? false : 'with --long', timeout: 400_000 }, async (t) => {
  // Socket paths have to be short, and nothing above it may hold packages that are found by chance.
  const folder = await mkdtemp(join(tmpdir(), 'af-npm-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const [tree, empty] = [join(folder, 'tree'), join(folder, 'empty')];
  for (const path of [tree, empty]) await mkdir(path);
  const { filename, files } = await pack(t, tree);
  const paths = files.map(({ path }) => path);
  t.strictSame(paths.filter((path) => /\.tsx?$|^test\/|\.map$|^dist\/(scripts|test)\//.test(path)), [], 'no sources, no tests');
  for (const path of ['LICENSE', 'README.md', 'SECURITY.md', 'CHANGELOG.md', 'docs/first-hour.md', 'docs/reference/codes.md', 'journal/FORMAT.md', 'console/config/samples/target.yaml', 'scripts/grafana/afterimage-dashboard.json', 'scripts/grafana/afterimage-rules.yaml', 'dist/console/main.js', 'dist/console/dashboard/assets/index.html', 'dist/daemon/freeze/watchdog.js']) {
    t.ok(paths.includes(path), path);
  }
  await run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', '--omit=dev', join(tree, filename)], { cwd: empty, timeout: 240_000 });
  const program = join(empty, 'node_modules/.bin/afterimage');
  const installed = async (...args: readonly string[]) => run(program, args, { cwd: empty }).catch((error: unknown) => error as { stdout: string; code: number });
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string };
  t.equal((await installed('--version')).stdout, `${version}\n`);
  t.match((await installed('explain', 'TERM_OLD')).stdout, /^TERM_OLD\n/);
  const { checks } = JSON.parse((await installed('doctor', '--json')).stdout) as { checks: unknown[] };
  t.ok(checks.length > 3, 'doctor looked around');
  await installed('manual', join(folder, 'man'));
  t.ok((await readdir(join(folder, 'man'))).includes('afterimage.1'), 'manual pages');
  for (const shell of ['bash', 'zsh', 'fish']) t.match((await installed('completion', shell)).stdout, /afterimage/, `completion for ${shell}`);

  const config = async (role: 'source' | 'target', more: string): Promise<string> => {
    const path = join(folder, `${role}.yaml`);
    await writeFile(path, `role: ${role}\nname: ${role === 'source' ? 'alpha' : 'bravo'}\ndata: ${folder}/${role}\ncontrol: ${folder}/${role}.sock\n${more}`);
    return path;
  };
  startRole(t, program, 'target', await config('target', 'listen: { host: 127.0.0.1, port: 0 }\nadvertise: 127.0.0.1\nkeepFree: 1MiB\nmetrics: { listen: { host: 127.0.0.1, port: 0 } }\n'));
  startRole(t, program, 'source', await config('source', `spool: { folder: ${folder}/spool, keepFree: 1MiB, budget: 64MiB }\n`));
  const [source, target] = [new SourceClient(join(folder, 'source.sock')), new TargetClient(join(folder, 'target.sock'))];
  for (const client of [source, target]) await waitFor(() => client.about().then(() => true, () => false), { limitMs: 60_000, what: 'an answer' });
  t.match(await source.pair((await target.invite()).token), { name: 'bravo' });
  t.equal((await source.report()).version, version);
  const page = await get(join(folder, 'target.sock'), '/');
  t.match(page, { status: 200, type: /text\/html/ });
  const script = /src="\.?\/?([\w./-]+\.js)"/.exec(page.text)?.[1];
  t.match(await get(join(folder, 'target.sock'), `/${script}`), { status: 200, type: /javascript/ }, 'the dashboard');
});
