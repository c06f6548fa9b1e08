/** Runs a program of the operator's, with the facts as JSON on its standard input and a time limit that holds for all that it starts. Its output is not shown, but for the end of what it says on standard error. */
import { spawn } from 'node:child_process';

/** How long after its end, or after it was to end, its last words are waited for, ms. */
const lateMs = 500;
/** What it said last, characters. */
const saidMax = 500;

export interface CommandOptions {
  readonly facts: Readonly<Record<string, unknown>>;
  readonly limitMs: number;
  readonly signal?: AbortSignal;
}

/** Null: it ended well. Else why not, for people. Never rejects. */
export function runCommand([program, ...args]: readonly string[], { facts, limitMs, signal }: CommandOptions): Promise<string | null> {
  return new Promise((resolve) => {
    // A process group of its own: what a script has started ends with it.
    const child = spawn(program!, args, { stdio: ['pipe', 'ignore', 'pipe'], detached: true });
    let said = '';
    let killed: string | null = null;
    const end = (why: string | null): void => {
      for (const timer of [limit, late]) clearTimeout(timer);
      signal?.removeEventListener('abort', stop);
      // Whoever it left behind may hold its output open.
      child.stderr?.destroy();
      resolve(why === null || said === '' ? why : `${why}: ${said.trim()}`);
    };
    const kill = (why: string): void => {
      killed ??= why;
      // One that cannot be ended is waited for no longer.
      late = setTimeout(() => end(killed), lateMs);
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
      } catch (error) {
        if (!['ESRCH', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      }
    };
    const stop = (): void => kill('it was not waited for');
    let late: NodeJS.Timeout | undefined;
    const limit = setTimeout(() => kill(`it took longer than ${limitMs} ms`), limitMs);
    // Without file handles to spare there are no pipes.
    child.stderr?.on('data', (chunk: Buffer) => { said = `${said}${chunk.toString('utf8')}`.slice(-saidMax); });
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(`${JSON.stringify(facts)}\n`);
    const ended = (code: number | null, by: NodeJS.Signals | null): void => end(code === 0 ? null : killed ?? `it ended with ${code ?? by ?? 'nothing'}`);
    child.once('error', (error) => end(error.message));
    child.once('exit', (code, by) => { late = setTimeout(() => ended(code, by), lateMs); });
    child.once('close', ended);
    if (signal?.aborted === true) stop();
    else signal?.addEventListener('abort', stop, { once: true });
  });
}
