/**
 * Where a benchmark runs: a temporary folder and the processes that it starts.
 * Invariant: `clear` ends every process that was started here, by its own pid, and removes the folder, whenever and however
 * often it is called. Should the benchmark itself be killed, the kernel ends its children.
 */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export interface Running {
  readonly pid: number;
  readonly child: ChildProcess;
  readonly logPath: string;
  /** Resolves when it is gone. */
  readonly exited: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  readonly isGone: boolean;
  /** Ends it, SIGKILL unless told otherwise (and SIGKILL after 30 s of being asked). Does nothing when it is gone. */
  end(signal?: NodeJS.Signals): Promise<void>;
  /** The last lines that it said on either output. */
  lastWords(): string;
}

export interface SpawnOptions {
  /** Name of its log in the folder; by default the program's. */
  readonly name?: string;
  /** An IPC channel for a program of Node's. */
  readonly hasIpc?: boolean;
}

/** What is asked to end with a signal has this long, ms. */
const endMsMax = 30_000;

export class Site {
  readonly folder: string;
  readonly #running = new Set<Running>();
  #count = 0;
  #isCleared = false;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async open(): Promise<Site> {
    // Short, for the sockets in it: the path of a unix socket has at most 107 bytes.
    return new Site(await mkdtemp(join(tmpdir(), 'af-bench-')));
  }

  get isCleared(): boolean { return this.#isCleared; }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** A path that was never used here before. */
  freshPath(name: string): string {
    this.#count += 1;
    return this.path(`${name}${this.#count}`);
  }

  spawn(program: string, args: readonly string[], options: SpawnOptions = {}): Running {
    if (this.#isCleared) throw new Error('the benchmark is being ended');
    const logPath = this.path(`${options.name ?? basename(program)}.log`);
    const log = openSync(logPath, 'a');
    const stdio: StdioOptions = ['ignore', log, log, ...(options.hasIpc === true ? ['ipc' as const] : [])];
    // setpriv becomes the program (same pid) after asking the kernel to kill it when we are gone. In a session of its own:
    // Ctrl-C is for the benchmark, which then ends its processes itself.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', program, ...args], { stdio, detached: true });
    closeSync(log);
    const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => resolve({ code, signal }));
    });
    exited.catch(() => undefined);
    let isGone = false;
    void exited.then(() => { isGone = true; }, () => { isGone = true; }).then(() => this.#running.delete(running));
    const running: Running = {
      pid: child.pid ?? 0, child, logPath, exited,
      get isGone() { return isGone; },
      end: async (signal = 'SIGKILL') => {
        if (isGone || child.pid === undefined) return;
        child.kill(signal);
        const limit = setTimeout(() => child.kill('SIGKILL'), endMsMax);
        await exited.finally(() => clearTimeout(limit));
      },
      lastWords: () => (existsSync(logPath) ? readFileSync(logPath, 'utf8').trim().split('\n').slice(-12).join('\n') : ''),
    };
    this.#running.add(running);
    return running;
  }

  /** Runs a program to its end. Rejects, with its last words, when it fails. */
  async run(program: string, args: readonly string[], name?: string): Promise<void> {
    const running = this.spawn(program, args, name === undefined ? {} : { name });
    const { code, signal } = await running.exited;
    if (code !== 0) throw new Error(`${program} ended with ${signal ?? `status ${code}`}: ${running.lastWords()}`);
  }

  /** What the processes said last, for when something went wrong. */
  lastWords(): string {
    return [...this.#running].map((running) => `${basename(running.logPath)}:\n${running.lastWords()}`).join('\n');
  }

  async clear(): Promise<void> {
    this.#isCleared = true;
    await Promise.all([...this.#running].map((running) => running.end()));
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Asks until the answer is neither false, null nor undefined. Rejects when `running` ends or the limit is over. */
export async function until<T>(
  what: string, condition: () => T | Promise<T>, options: { readonly running?: Running; readonly limitMs?: number; readonly everyMs?: number } = {},
): Promise<Exclude<T, false | null | undefined>> {
  const { running, limitMs = 30_000, everyMs = 10 } = options;
  const endMs = performance.now() + limitMs;
  for (;;) {
    const found = await condition();
    if (found !== false && found !== null && found !== undefined) return found as Exclude<T, false | null | undefined>;
    if (running?.isGone === true) throw new Error(`${what}: the process ended: ${running.lastWords()}`);
    if (performance.now() > endMs) throw new Error(`${what}: not within ${limitMs} ms${running === undefined ? '' : `: ${running.lastWords()}`}`);
    await delay(everyMs);
  }
}
