/**
 * The command as it is shipped: the product's files as JavaScript in a folder of their own, made afresh for each test run so
 * that no stale build is ever tested. Types are `npm run check`'s matter, not looked at here. Roles can be replaced by fakes,
 * to test the process around them.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const root = fileURLToPath(new URL('../../', import.meta.url));
const areas = ['journal', 'host', 'qemu', 'daemon', 'replica-target', 'console'];
/** Any single command; a daemon is killed by its test. */
const commandMsMax = 60_000;

export interface Ended { readonly code: number | null; readonly signal: NodeJS.Signals | null; readonly stdout: string; readonly stderr: string }
interface Teardown { teardown(after: () => unknown): unknown }

export class BuiltCommand {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** `tree`: sources of another release, which then run with the packages of this one. */
  static async build(t: Teardown, tree = root): Promise<BuiltCommand> {
    // Socket paths have to be short, hence not the test's own folder.
    const folder = await mkdtemp(join(tmpdir(), 'ai-cmd-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    await symlink(join(root, 'node_modules'), join(folder, 'node_modules'));
    await cp(join(tree, 'package.json'), join(folder, 'package.json'));
    for (const area of areas) {
      for (const name of await readdir(join(tree, area), { recursive: true })) {
        if (name.endsWith('.ts')) await transpile(tree, join(area, name), folder);
      }
    }
    return new BuiltCommand(folder);
  }

  get program(): string { return join(this.folder, 'console/main.js'); }

  /** Puts JavaScript in the place of a product file. */
  async replace(path: string, text: string): Promise<void> {
    await writeFile(join(this.folder, path), text);
  }

  start(args: readonly string[], environment: NodeJS.ProcessEnv = {}, input: 'ignore' | 'pipe' = 'ignore'): ChildProcess {
    const { AFTERIMAGE_CONFIG: _config, NOTIFY_SOCKET: _notify, NODE_OPTIONS: _options, ...inherited } = process.env;
    return spawn(process.execPath, [this.program, ...args], { stdio: [input, 'pipe', 'pipe'], env: { ...inherited, ...environment } });
  }

  /** `input`: for its standard input; absent: it has none. */
  run(args: readonly string[], environment: NodeJS.ProcessEnv = {}, input?: string): Promise<Ended> {
    const child = this.start(args, environment, input === undefined ? 'ignore' : 'pipe');
    // One that refuses its input ends before it has read it.
    if (input !== undefined) child.stdin!.on('error', () => undefined).end(input);
    const timer = setTimeout(() => child.kill('SIGKILL'), commandMsMax);
    return ended(child).finally(() => clearTimeout(timer));
  }
}

export function ended(child: ChildProcess): Promise<Ended> {
  const texts = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) child[name]?.on('data', (chunk: Buffer) => { texts[name] += chunk.toString('utf8'); });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal, ...texts }));
  });
}

/** Resolves with the first line of stdout for which `isWanted` holds; rejects when the process ends without one. */
export function awaitLine(child: ChildProcess, isWanted: (line: string) => boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const timer = setTimeout(() => reject(new Error(`no such line within ${commandMsMax} ms; so far: ${text}`)), commandMsMax);
    child.stdout!.on('data', (chunk: Buffer) => {
      text += chunk.toString('utf8');
      const line = text.split('\n').slice(0, -1).find(isWanted);
      if (line === undefined) return;
      clearTimeout(timer);
      resolve(line);
    });
    child.once('close', () => {
      clearTimeout(timer);
      reject(new Error(`ended without such a line: ${text}`));
    });
  });
}

const compilerOptions = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true, rewriteRelativeImportExtensions: true } as const;
/** Several test files need the command: what one has translated serves all, by content. Beside what tap itself keeps there. */
const cache = join(root, '.tap', 'transpiled');

async function transpile(tree: string, path: string, folder: string): Promise<void> {
  const out = join(folder, path.replace(/\.ts$/, '.js'));
  await mkdir(dirname(out), { recursive: true });
  await writeFile(out, await translated(path, await readFile(join(tree, path), 'utf8')));
}

async function translated(path: string, source: string): Promise<string> {
  const kept = join(cache, `${createHash('sha256').update(`${ts.version}\n${JSON.stringify(compilerOptions)}\n${source}`).digest('hex')}.js`);
  try {
    return await readFile(kept, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const { outputText } = ts.transpileModule(source, { fileName: path, compilerOptions });
  await mkdir(cache, { recursive: true });
  // Another test file may be at the same.
  await writeFile(`${kept}.${process.pid}`, outputText);
  await rename(`${kept}.${process.pid}`, kept);
  return outputText;
}
